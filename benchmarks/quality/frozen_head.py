"""Layers between GeM and BNNeck, trained while the backbone rests: what the ablation compares.

The ByteCover2 paper compares three layers: PCA-FC, which starts as the principal axes and is trained; the same layer
with random weights (ByteCoverFC); and a fixed PCA of what ByteCover gives (ByteCoverPCA).

While the backbone is frozen, a batch's pooled embeddings depend on nothing that learns. Computed once they serve every
layer that is to be compared, and a step costs a matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bytecover2_milvus.config import WHITENING, Training
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.model.network_input import NetworkInput
from bytecover2_milvus.training.checkpoint import Checkpoint
from bytecover2_milvus.training.data.batches import TrainingBatches
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.gradient import loss_terms
from bytecover2_milvus.training.insert_pca import insert_embedding_pca, insert_fc, insert_pca_fc
from bytecover2_milvus.training.learner import learning_rate, set_phase
from bytecover2_milvus.training.optimizer import make_optimizer
from bytecover2_milvus.training.resume import works_digest
from bytecover2_milvus.training.start import initial_classifier


def insert_random_fc(checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, seed: int) -> Checkpoint:
    """The ByteCover of `checkpoint` with a fully connected layer drawn from `seed`: where ByteCoverFC starts.

    Raises
    ------
    ConfigError
        As `insert_fc`.
    """
    torch.manual_seed(seed)
    return insert_fc(checkpoint, nn.Linear(checkpoint.config.network.pooled_dim, dim), pooled)


def reduced(reduction: str, checkpoint: Checkpoint, pooled: NDArray[np.float32], dim: int, seed: int) -> Checkpoint:
    """The ByteCover of `checkpoint` with the layer of a reduction inserted, nothing trained yet.

    Parameters
    ----------
    reduction : str
        A key of `ablation_table.REDUCTIONS`.
    checkpoint : Checkpoint
    pooled : np.ndarray [shape=(N, 2048)] of float32
        That principal axes are fitted on.
    dim : int
        D of the layer.
    seed : int
        Of random weights.

    Raises
    ------
    ConfigError
        As `insert_fc`.
    """
    match reduction:
        case "FC":
            return insert_random_fc(checkpoint, pooled, dim, seed)
        case "PCA":
            return insert_embedding_pca(checkpoint, pooled, dim)
        case "PCA-FC" | "PCA-FC's start":
            return insert_pca_fc(checkpoint, pooled, dim)
        case "whitened PCA" | "whitened PCA-FC":
            return insert_embedding_pca(checkpoint, pooled, dim, WHITENING)
        case _:
            raise ValueError(f"no reduction {reduction!r}")


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
    batches: Iterable[tuple[Tensor, Tensor]],
    works: Sequence[str],
    device: torch.device | str = "cpu",
    watch: Callable[[int, ByteCover2], object] = lambda step, network: None,
) -> Checkpoint:
    """The checkpoint that `train` makes of `start` in phase "frozen", from the pooled embeddings of its batches.

    Parameters
    ----------
    start : Checkpoint
    training : Training
        Of phase "frozen", with as many steps as there are batches.
    batches : iterable of (Tensor [shape=(B, 2048)], Tensor of int [shape=(B,)])
        As those of `pooled_batches`.
    works : sequence of str
        Names of the corpus' works, in its order.
    device : torch.device or str
    watch : callable
        Called before the first step and after each, with the steps made and the network.
    """
    config = replace(start.config, training=training)
    network = copy.deepcopy(start.network).to(device)
    digest = works_digest(works)
    classifier = initial_classifier(config, digest, len(works), start).to(device)
    set_phase(network, "frozen")
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = make_optimizer([*learned, classifier.weight], training)
    watch(0, network)
    for step, (pooled, work) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        feature, embedding = network.head(pooled.to(device))
        loss: Any = sum(loss_terms(feature, embedding, classifier, work.to(device), training).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch(step + 1, network)
    weight = classifier.weight.detach().cpu()
    return Checkpoint(config, network.cpu().eval(), start.note_map, classifier=weight, works=digest, facts=start.facts)
