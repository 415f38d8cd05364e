"""From a ByteCover to fewer dimensions: the layer between GeM and BNNeck, and its training while the backbone rests.

The ByteCover2 paper compares three layers: PCA-FC, which starts as the principal axes and is trained; the same layer
with random weights (ByteCoverFC); and a fixed PCA of what ByteCover gives (ByteCoverPCA).

While the backbone is frozen, a batch's pooled embeddings depend on nothing that learns. Computed once they serve every
layer that is to be compared, and a step costs a matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import Training
from ..errors import ConfigError
from ..model.network import ByteCover2
from ..model.network_input import NetworkInput
from ..model.pca import fit_pca, principal_axes
from .checkpoint import Checkpoint
from .data.batches import TrainingBatches
from .data.corpus import Corpus
from .data.feature_cache import FeatureCache
from .gradient import loss_terms
from .learner import learning_rate, set_phase
from .optimizer import make_optimizer
from .resume import lasting_facts, works_digest
from .start import initial_classifier


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


def insert_random_fc(checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, seed: int) -> Checkpoint:
    """The ByteCover of `checkpoint` with a fully connected layer drawn from `seed`: where ByteCoverFC starts.

    Raises
    ------
    ConfigError
        As `insert_fc`.
    """
    torch.manual_seed(seed)
    return insert_fc(checkpoint, nn.Linear(checkpoint.config.network.pooled_dim, dim), pooled)


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


@torch.no_grad()
def pooled_batches(
    checkpoint: Checkpoint, corpus: Corpus, cache: FeatureCache, training: Training, device: torch.device | str = "cpu"
) -> list[tuple[Tensor, Tensor]]:
    """Pooled embeddings (B, 2048) float32 and works (B,) of the `training.steps` batches of a run.

    With 72 tracks in a batch, a thousand batches at full width take 590 MB.
    """
    device = torch.device(device)
    network = copy.deepcopy(checkpoint.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = []
    config = checkpoint.config
    network_input = NetworkInput(config.front_end, config.network, checkpoint.note_map).to(device)
    source = TrainingBatches(corpus, cache, training, pooling=network_input.pooling)
    for magnitude, work in map(source.__getitem__, range(training.steps)):
        cqt = network_input(magnitude.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16-mixed"):
            batches.append((network.pooled(cqt).cpu(), work))
    return batches


def train_head(
    start: Checkpoint,
    training: Training,
    batches: Sequence[tuple[Tensor, Tensor]],
    works: Sequence[str],
    device: torch.device | str = "cpu",
) -> Checkpoint:
    """The checkpoint that `train` makes of `start` in phase "frozen", from the pooled embeddings of its batches.

    Parameters
    ----------
    start : Checkpoint
    training : Training
        Of phase "frozen", with as many steps as there are batches.
    batches : sequence of (Tensor [shape=(B, 2048)], Tensor of int [shape=(B,)])
        Of `pooled_batches`.
    works : sequence of str
        Names of the corpus' works, in its order.
    device : torch.device or str
    """
    config = replace(start.config, training=training)
    network = copy.deepcopy(start.network).to(device)
    digest = works_digest(works)
    classifier = initial_classifier(config, digest, len(works), start).to(device)
    set_phase(network, "frozen")
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = make_optimizer([*learned, classifier.weight], training)
    for step, (pooled, work) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        feature, embedding = network.head(pooled.to(device))
        loss: Any = sum(loss_terms(feature, embedding, classifier, work.to(device), training).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight = classifier.weight.detach().cpu()
    return Checkpoint(config, network.cpu().eval(), start.note_map, classifier=weight, works=digest, facts=start.facts)
