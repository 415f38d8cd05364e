"""The loss of a batch and its gradient; with `training.parts`, of a batch larger than memory holds.

Gradient caching: the backbone embeds the batch part by part, keeping no activations; the losses see all of it and give
the gradient of every pooled embedding; each part then goes through the backbone again and takes its gradient back. The
sum is the gradient of the whole batch, for a third more time. What BatchNorm sees is one part, which has tracks of all
works.

References
----------
L. Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Training
from ..errors import ConfigError
from ..model.losses import batch_hard_triplet, supervised_contrastive
from .distributed import gather


def loss_terms(
    feature: Tensor, embedding: Tensor, classifier: nn.Linear, work: Tensor, training: Training
) -> dict[str, Tensor]:
    """The weighted terms of the loss, by name; their sum is what is minimised."""
    terms = {
        "cross_entropy": training.cross_entropy_weight
        * F.cross_entropy(classifier(embedding), work, label_smoothing=training.label_smoothing),
        "triplet": training.triplet_weight * batch_hard_triplet(feature, work, training.triplet_margin),
    }
    if training.contrastive_weight:
        contrastive = supervised_contrastive(embedding, work, training.temperature)
        terms["contrastive"] = training.contrastive_weight * contrastive
    return terms


def backward(
    fabric: Fabric, model: Any, cqt: Tensor, work: Tensor, classifier: nn.Linear, training: Training
) -> dict[str, Tensor]:
    """The terms of the loss of a batch, whose gradient is added to that of all parameters.

    Parameters
    ----------
    fabric : Fabric
    model : the `ByteCover2` that Fabric has set up
    cqt : Tensor [shape=(B / ranks, n_bins, T)]
    work : Tensor of int [shape=(B,)]
    classifier : nn.Linear
    training : Training

    Raises
    ------
    ConfigError
        If there are parts and several ranks.
    """
    if training.parts == 1:
        feature, embedding = (gather(fabric, rows, len(work)) for rows in model(cqt))
        terms = loss_terms(feature, embedding, classifier, work, training)
        fabric.backward(torch.stack(list(terms.values())).sum())
        return terms
    if fabric.world_size > 1:
        raise ConfigError("training.parts: several processes share a batch already; set it to 1")
    model.mark_forward_method("pooled")
    parts = [slice(part, None, training.parts) for part in range(min(training.parts, len(cqt)))]
    with torch.no_grad(), _statistics_kept(model):
        embedded = [model.pooled(cqt[part]) for part in parts]
    pooled = embedded[0].new_empty(len(cqt), embedded[0].shape[1])
    for part, rows in zip(parts, embedded, strict=True):
        pooled[part] = rows
    pooled.requires_grad_()
    feature, embedding = model.module.head(pooled)
    terms = loss_terms(feature, embedding, classifier, work, training)
    fabric.backward(torch.stack(list(terms.values())).sum())
    assert pooled.grad is not None
    for part in parts:
        rows = model.pooled(cqt[part])
        if rows.requires_grad:  # the backbone learns in this phase
            fabric.backward(rows, pooled.grad[part])
    return terms


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm in training does not add what it sees to its statistics: the same comes once more."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked
