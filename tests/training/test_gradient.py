"""Gradient caching: a batch that goes through the backbone in parts learns what the whole batch would."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bytecover2_milvus.config import Network, Training
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.training.distributed import launch
from bytecover2_milvus.training.gradient import backward, loss_terms
from bytecover2_milvus.training.learner import set_phase

NETWORK = Network(feature_dim=12, stage_blocks=(1, 1, 1, 1), base_width=4)
TRAINING = Training(phase="joint", contrastive_weight=1.0, parts=3)
WORK = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])  # eight rows: parts of three, three and two


@pytest.fixture
def start() -> tuple[ByteCover2, nn.Linear, Tensor]:
    torch.manual_seed(0)
    network = ByteCover2(NETWORK)
    for name, parameter in network.named_parameters():
        if name.endswith("norm3.weight"):
            nn.init.ones_(parameter)  # blocks that are more than their shortcut
    return network, nn.Linear(12, 4, bias=False), torch.rand(8, 84, 16)


def learned(network: ByteCover2, classifier: nn.Linear) -> dict[str, Tensor]:
    named = {**dict(network.named_parameters()), "classifier": classifier.weight}
    return {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}


def cached(network, classifier, cqt, training: Training, logs: Path) -> tuple[ByteCover2, dict[str, Tensor], Tensor]:
    """The network after it, its gradients and the loss, by `backward`."""
    network, classifier = copy.deepcopy((network, classifier))
    fabric = launch("cpu", "32-true", logs)
    terms = backward(fabric, fabric.setup_module(network), cqt, WORK, classifier, training)
    return network, learned(network, classifier), sum(terms.values()).detach()


def test_the_gradient_of_parts_is_that_of_one_graph_of_all_parts(start, tmp_path):
    """In training mode, so that norms see one part at a time: rows 0, 3, 6, then 1, 4, 7, then 2, 5."""
    network, classifier, cqt = start
    set_phase(network, "joint")
    after, gradients, loss = cached(network, classifier, cqt, TRAINING, tmp_path)
    rows = [network.pooled(cqt[part::3]) for part in range(3)]
    pooled = torch.stack([rows[row % 3][row // 3] for row in range(8)])
    expected = sum(loss_terms(*network.head(pooled), classifier, WORK, TRAINING).values())
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    reference = learned(network, classifier)
    assert gradients.keys() == reference.keys()
    for name, gradient in reference.items():
        scale = gradient.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-4 * scale, msg=name)
    for name, value in network.state_dict().items():  # statistics that went in once
        torch.testing.assert_close(after.state_dict()[name], value, msg=name)


def test_with_norms_as_stored_it_is_that_of_the_whole_batch(start, tmp_path):
    network, classifier, cqt = start
    _, parts, loss = cached(network, classifier, cqt, TRAINING, tmp_path)
    _, whole, expected = cached(network, classifier, cqt, replace(TRAINING, parts=1), tmp_path)
    torch.testing.assert_close(loss, expected)
    assert parts.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-4 * gradient.abs().max().item(), msg=name)


def test_a_backbone_at_rest_takes_no_gradient(start, tmp_path):
    network, classifier, cqt = start
    set_phase(network, "frozen")
    _, gradients, _ = cached(network, classifier, cqt, replace(TRAINING, phase="frozen"), tmp_path)
    assert gradients.keys() == {"pca_fc.weight", "pca_fc.bias", "bnneck.weight", "classifier"}
