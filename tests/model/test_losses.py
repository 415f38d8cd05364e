"""Losses against plain loops over the batch."""

from __future__ import annotations

import math

import pytest
import torch

from bytecover2_milvus.model.losses import batch_hard_triplet, supervised_contrastive

WORK = torch.tensor([0, 0, 1, 1, 2, 2, 2])


@pytest.fixture
def feature() -> torch.Tensor:
    return torch.randn(len(WORK), 5, generator=torch.Generator().manual_seed(3), requires_grad=True)


def test_triplet_equals_a_loop_over_anchors(feature):
    losses = []
    for i in range(len(WORK)):
        distances = [(feature[i] - feature[j]).norm().item() for j in range(len(WORK))]
        positive = max(distances[j] for j in range(len(WORK)) if WORK[j] == WORK[i] and j != i)
        negative = min(distances[j] for j in range(len(WORK)) if WORK[j] != WORK[i])
        losses.append(max(0.0, 0.3 + positive - negative))
    assert batch_hard_triplet(feature, WORK, 0.3).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_triplet_by_hand():
    """On a line: works at 0, 1 and at 5, 5.2. Anchors 0, 1: 0.3+1-5 < 0, 0.3+1-4 < 0; the others likewise: loss 0."""
    far = torch.tensor([[0.0], [1.0], [5.0], [5.2]])
    work = torch.tensor([0, 0, 1, 1])
    assert batch_hard_triplet(far, work, 0.3) == 0
    # Second work at 2, 2.2: anchor 0: 0.3+1-2 < 0; anchor 1: 0.3+1-1 = 0.3; anchor 2: 0.3+0.2-1 < 0; 2.2: likewise.
    near = torch.tensor([[0.0], [1.0], [2.0], [2.2]])
    assert batch_hard_triplet(near, work, 0.3).item() == pytest.approx(0.3 / 4)


def test_gradients_are_finite_where_two_tracks_coincide():
    feature = torch.zeros(4, 3, requires_grad=True)
    batch_hard_triplet(feature, torch.tensor([0, 0, 1, 1]), 0.3).backward()
    assert torch.isfinite(feature.grad).all()


def test_contrastive_equals_a_loop_over_anchors(feature):
    unit = torch.nn.functional.normalize(feature, dim=1)
    losses = []
    for i in range(len(WORK)):
        others = [j for j in range(len(WORK)) if j != i]
        total = sum(math.exp((unit[i] @ unit[j]).item() / 0.1) for j in others)
        positives = [j for j in others if WORK[j] == WORK[i]]
        terms = [-math.log(math.exp((unit[i] @ unit[j]).item() / 0.1) / total) for j in positives]
        losses.append(sum(terms) / len(terms))
    expected = sum(losses) / len(losses)
    assert supervised_contrastive(feature, WORK, 0.1).item() == pytest.approx(expected, rel=1e-4)
