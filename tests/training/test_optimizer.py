"""Muon's steps: orthogonal, of Adam's length; and Adam's own for what is no kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bytecover2_milvus.config import Training
from bytecover2_milvus.training.optimizer import make_optimizer, orthogonal

RATE = 1e-2


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_orthogonal_keeps_singular_vectors_and_evens_out_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    made = u.T @ orthogonal(matrix) @ vh.T
    sound = values > 0.02 * values.max()
    assert ((made.diagonal()[sound] > 0.6) & (made.diagonal()[sound] < 1.3)).all()
    assert (made - made.diagonal().diag()).abs().max() < 0.1


def moved(name: str, parameters: list[nn.Parameter], steps: int, decay: float = 1e-3) -> list[torch.Tensor]:
    """How far an optimizer moves copies of the parameters, given the same random gradients."""
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    optimizer = make_optimizer(copies, Training(optimizer=name, learning_rate=RATE, weight_decay=decay))
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in copies:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [(after - before).detach() for after, before in zip(copies, parameters, strict=True)]


def test_muon_moves_vectors_and_matrices_as_adam_does_and_kernels_as_far():
    parameters = [nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(5, 3)), nn.Parameter(torch.zeros(32, 16, 3, 3))]
    adam, muon = moved("adam", parameters, steps=3), moved("muon", parameters, steps=3)
    torch.testing.assert_close(muon[0], adam[0])
    torch.testing.assert_close(muon[1], adam[1])
    (step,) = moved("muon", parameters[2:], steps=1)
    assert step.square().mean().sqrt() == pytest.approx(0.2 * RATE, rel=0.25)
    values = torch.linalg.svdvals(step.flatten(1))
    assert values.max() < 2 * values.min()


def test_kernels_decay_by_the_rate_whatever_their_gradient():
    kernel = nn.Parameter(torch.ones(8, 4, 3, 3))
    (kept,), (decayed,) = moved("muon", [kernel], 1, decay=0.0), moved("muon", [kernel], 1, decay=0.5)
    torch.testing.assert_close(decayed, kept - RATE * 0.5)


def test_the_order_of_a_kernels_values_in_memory_changes_nothing():
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    (plain,) = moved("muon", [kernel], steps=2)
    (channels_last,) = moved("muon", [nn.Parameter(kernel.to(memory_format=torch.channels_last))], steps=2)
    torch.testing.assert_close(channels_last, plain)
