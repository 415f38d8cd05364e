"""From a ByteCover to fewer dimensions: the layer between GeM and BNNeck, PCA-FC, which starts as principal axes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import ConfigError
from ..model.network import ByteCover2
from ..model.pca import fit_pca, principal_axes
from .checkpoint import Checkpoint
from .resume import lasting_facts


def insert_fc(checkpoint: Checkpoint, layer: nn.Linear, pooled: NDArray[np.float32]) -> Checkpoint:
    """The ByteCover of `checkpoint` with `layer` (2048 -> D) between GeM and a new BNNeck, which changes nothing yet.

    BNNeck has the variance of the features that the layer makes of pooled embeddings (N, 2048) and the gain that undoes
    it. With unit gain its first training steps would whiten the features, and what principal axes tell apart by their
    variance would be lost.

    Raises
    ------
    ConfigError
        If the checkpoint has a PCA-FC already, or the layer does not take its pooled embedding.
    """
    config = checkpoint.config
    check_reducible(checkpoint, layer.out_features)
    if layer.in_features != config.network.pooled_dim:
        raise ConfigError(f"a layer of {layer.in_features} inputs: the backbone has {config.network.pooled_dim}")
    config = replace(config, network=replace(config.network, feature_dim=layer.out_features))
    network = ByteCover2(config.network)
    network.backbone.load_state_dict(checkpoint.network.backbone.state_dict())
    network.gem.load_state_dict(checkpoint.network.gem.state_dict())
    network.pca_fc.load_state_dict(layer.state_dict())
    with torch.no_grad():
        feature = network.pca_fc(torch.from_numpy(pooled).float())  # (N, D)
        assert network.bnneck.running_var is not None
        network.bnneck.running_var.copy_(feature.var(dim=0))
        network.bnneck.weight.copy_(torch.sqrt(network.bnneck.running_var + network.bnneck.eps))
    return Checkpoint(config, network, checkpoint.note_map, facts=lasting_facts(checkpoint.facts))


def check_reducible(checkpoint: Checkpoint, dim: int) -> None:
    """Make sure, before anything is computed, that a PCA-FC to `dim` dimensions can be inserted.

    Raises
    ------
    ConfigError
        If the checkpoint has one already, or its backbone has fewer than `dim` dimensions.
    """
    if (has := checkpoint.config.network.feature_dim) is not None:
        raise ConfigError(f"the checkpoint has a PCA-FC to {has} dimensions already: start from a ByteCover")
    if dim > checkpoint.config.network.pooled_dim:
        raise ConfigError(f"dim = {dim}: the backbone has {checkpoint.config.network.pooled_dim} dimensions")


def insert_pca_fc(checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, whitening: float = 0.0) -> Checkpoint:
    """The ByteCover of `checkpoint` with a PCA-FC fitted on pooled embeddings (N, 2048): where ByteCover2 starts.

    `whitening` is that of `principal_axes`.

    Raises
    ------
    ConfigError
        As `insert_fc`.
    """
    return insert_fc(checkpoint, fit_pca(pooled, dim, whitening), pooled)


def insert_embedding_pca(
    checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, whitening: float = 0.0
) -> Checkpoint:
    """The ByteCover of `checkpoint` with its embedding projected on its `dim` principal axes: the paper's ByteCoverPCA.

    The PCA is of what ByteCover gives, after BNNeck, as one who has its vectors would reduce them; BNNeck becomes part
    of the layer. Without `whitening` (of `principal_axes`) the axes are orthonormal, so that at full width every cosine
    is that of the centred embeddings.

    Raises
    ------
    ConfigError
        As `insert_fc`.
    """
    check_reducible(checkpoint, dim)
    bnneck = copy.deepcopy(checkpoint.network.bnneck).double()
    assert bnneck.running_mean is not None and bnneck.running_var is not None
    with torch.no_grad():
        gain = (bnneck.weight / torch.sqrt(bnneck.running_var + bnneck.eps)).numpy()  # (2048,)
        offset = bnneck.bias.numpy() - gain * bnneck.running_mean.numpy()  # (2048,)
    mean, axes = principal_axes(pooled * gain + offset, dim, whitening)
    layer = nn.Linear(len(axes), dim)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(axes.T * gain))
        layer.bias.copy_(torch.from_numpy(axes.T @ (offset - mean)))
    return insert_fc(checkpoint, layer, pooled)
