"""From a ByteCover to fewer dimensions: the layer between GeM and BNNeck, PCA-FC, which starts as principal axes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..config import Config
from ..errors import ConfigError
from ..model.chroma_network import ChromaNetwork
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
    return _with_layer(
        checkpoint,
        layer,
        pooled,
        replace(config, network=replace(config.network, feature_dim=layer.out_features, joined=0)),
    )


def _with_layer(checkpoint: Checkpoint, layer: nn.Linear, pooled: NDArray[np.float32], config: Config) -> Checkpoint:
    """`checkpoint`, its network of `config` with `layer` as its PCA-FC and a BNNeck that changes nothing yet."""
    network = ByteCover2(config.network)
    network.backbone.load_state_dict(checkpoint.network.backbone.state_dict())
    network.gem.load_state_dict(checkpoint.network.gem.state_dict())
    network.pca_fc.load_state_dict(layer.state_dict())
    with torch.no_grad():
        feature = network.pca_fc(torch.from_numpy(pooled).float())  # (N, D)
        assert network.bnneck.running_var is not None
        network.bnneck.running_var.copy_(feature.var(dim=0))
        network.bnneck.weight.copy_(torch.sqrt(network.bnneck.running_var + network.bnneck.eps))
    return Checkpoint(
        config, network, checkpoint.note_map, checkpoint.chroma_network, facts=lasting_facts(checkpoint.facts)
    )


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
    return insert_fc(
        checkpoint, _projection(*_linear(checkpoint.network, pooled.shape[1]), pooled, dim, whitening), pooled
    )


def join_chroma_network(
    checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, whitening: float = 0.0
) -> Checkpoint:
    """The network of `checkpoint`, joined with its chroma network: a PCA-FC from both embeddings to `dim` dimensions.

    Its axes are the principal ones of the two embeddings, one behind the other, each centred and over the square root
    of its mean squared length, so that both count alike. A PCA-FC that the network has already becomes part of the new
    one; of one that is joined, what it makes of the backbone's values, so that a chroma network that was trained
    further takes the place of the one before.

    Parameters
    ----------
    checkpoint : Checkpoint
    pooled : np.ndarray [shape=(N, 2048 + 4 * width)] of float32
        As `pooled_embeddings` gives them with the chroma network.
    dim : int
    whitening : float
        That of `principal_axes`.

    Raises
    ------
    ConfigError
        If there is no chroma network, or both embeddings have fewer than `dim` dimensions.
    """
    check_joinable(checkpoint, dim)
    assert checkpoint.chroma_network is not None
    first = checkpoint.config.network.pooled_dim
    parts = []
    for network, columns in ((checkpoint.network, slice(None, first)), (checkpoint.chroma_network, slice(first, None))):
        part = pooled[:, columns]
        if network is checkpoint.network and checkpoint.config.network.joins:
            weight = _linear(network, pooled.shape[1])[0][:, columns]
        else:
            weight, _ = _linear(network, part.shape[1])
        embedding = part @ weight.T
        parts.append(weight / np.sqrt(np.square(embedding - embedding.mean(axis=0)).sum(axis=1).mean()))
    vector, chroma = parts
    weight = np.zeros((len(vector) + len(chroma), pooled.shape[1]))
    weight[: len(vector), :first], weight[len(vector) :, first:] = vector, chroma
    layer = _projection(weight, np.zeros(len(weight)), pooled, dim, whitening)
    joined = replace(checkpoint.config.network, feature_dim=dim, joined=checkpoint.config.chroma.dim)
    return _with_layer(checkpoint, layer, pooled, replace(checkpoint.config, network=joined))


def check_joinable(checkpoint: Checkpoint, dim: int) -> None:
    """Make sure, before anything is computed, that `join_chroma_network` can be had with `dim` dimensions.

    Raises
    ------
    ConfigError
    """
    network, chroma = checkpoint.config.network, checkpoint.config.chroma
    if checkpoint.chroma_network is None or checkpoint.note_map is None:
        raise ConfigError('it has no chroma network: train one with training.phase="chroma"')
    if dim > network.embedding_dim + chroma.dim:
        raise ConfigError(f"dim = {dim}: both embeddings have {network.embedding_dim + chroma.dim} dimensions")


def _linear(network: ByteCover2 | ChromaNetwork, pooled_dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The head of a network as one linear layer: weight (D, C) and offset (D,) from pooled to embedding."""
    head = copy.deepcopy(network).double().cpu().eval()
    with torch.no_grad():
        offset = head.head(torch.zeros(1, pooled_dim, dtype=torch.float64))[1]  # (1, D)
        weight = head.head(torch.eye(pooled_dim, dtype=torch.float64))[1] - offset  # (C, D)
    return weight.numpy().T, offset[0].numpy()


def _projection(
    weight: NDArray[np.float64], offset: NDArray[np.float64], pooled: NDArray[np.float32], dim: int, whitening: float
) -> nn.Linear:
    """The layer from pooled embeddings (N, C) to the principal axes of the embedding that weight and offset give."""
    mean, axes = principal_axes(pooled @ weight.T + offset, dim, whitening)
    layer = nn.Linear(pooled.shape[1], dim)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(axes.T @ weight))
        layer.bias.copy_(torch.from_numpy(axes.T @ (offset - mean)))
    return layer
