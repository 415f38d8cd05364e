"""The network against what the paper fixes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bytecover2_milvus.config import Network
from bytecover2_milvus.model.network import IBN, Bottleneck, ByteCover2, GeM
from bytecover2_milvus.training.data.augment import transpose

TINY = Network(feature_dim=16, stage_blocks=(1, 1, 1, 1), base_width=8)


@pytest.fixture(scope="module")
def full() -> ByteCover2:
    torch.manual_seed(0)
    return ByteCover2(Network())


@pytest.mark.parametrize("n_frames", [8, 33, 65, 129])
def test_backbone_keeps_six_frequency_rows_and_an_eighth_of_the_frames(full, n_frames):
    with torch.inference_mode():
        assert full.backbone(torch.rand(1, 84, n_frames)).shape == (1, 2048, 6, math.ceil(n_frames / 8))


@pytest.mark.parametrize(("feature_dim", "expected"), [(128, 128), (1536, 1536), (None, 2048)])
def test_one_class_for_every_dimension(feature_dim, expected):
    with torch.inference_mode():
        network = ByteCover2(Network(feature_dim=feature_dim))
        embedding = network.embed(torch.rand(2, 84, 16))
    assert embedding.shape == (2, expected)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_parameter_count(full):
    """ResNet-50 without classifier has 23 508 032 parameters; one input channel, not three, saves 2 * 64 * 7 * 7."""
    assert sum(p.numel() for p in full.backbone.parameters()) == 23_508_032 - 2 * 64 * 49
    assert sum(p.numel() for p in full.pca_fc.parameters()) == 2048 * 128 + 128


def test_ibn_sits_after_the_first_convolution_of_groups_one_to_three(full):
    assert [len(group) for group in full.backbone.groups] == [3, 4, 6, 3]
    for index, group in enumerate(full.backbone.groups):
        for block in group:
            assert isinstance(block, Bottleneck)
            assert isinstance(block.norm1, IBN if index < 3 else nn.BatchNorm2d)
            assert isinstance(block.norm2, nn.BatchNorm2d) and isinstance(block.norm3, nn.BatchNorm2d)
    assert isinstance(full.backbone.norm1, nn.BatchNorm2d)
    assert all(module.bias is None for module in full.backbone.modules() if isinstance(module, nn.Conv2d))


def test_ibn_normalises_the_first_half_by_instance_and_the_second_by_batch():
    ibn = IBN(8).train()
    x = torch.randn(4, 8, 5, 6) * 3 + 2
    y = ibn(x)
    assert y[:, :4].mean(dim=(2, 3)).abs().max() < 1e-5  # each track's own mean is gone
    assert y[:, 4:].mean(dim=(0, 2, 3)).abs().max() < 1e-5  # only the batch's mean is gone
    assert y[:, 4:].mean(dim=(2, 3)).abs().max() > 1e-2
    assert ibn.instance_norm.affine and not ibn.instance_norm.track_running_stats


def test_gem_is_the_formula_in_float32_even_under_autocast():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    expected = (x**3).mean(dim=(2, 3)) ** (1 / 3)
    torch.testing.assert_close(GeM(3.0, 1e-6)(x).double(), expected, atol=1e-6, rtol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = GeM(3.0, 1e-6)(torch.full((1, 1, 2, 2), 1e-5, dtype=torch.bfloat16))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(1e-5, rel=1e-2)  # 1e-15 is zero in half precision


def test_gem_exponent_is_learned_and_bnneck_bias_is_frozen():
    network = ByteCover2(TINY)
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert "gem.exponent" in trainable and "bnneck.weight" in trainable
    assert "bnneck.bias" not in trainable and not network.bnneck.bias.any()


def test_two_tracks_together_equal_each_alone():
    network = ByteCover2(TINY)
    cqt = torch.rand(2, 84, 40)
    together = network.embed(cqt)
    torch.testing.assert_close(together, torch.cat([network.embed(row[None]) for row in cqt]), atol=1e-6, rtol=1e-5)


def test_more_blocks_are_the_same_function_until_they_learn():
    network = ByteCover2(TINY)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    deeper = network.adapted(replace(TINY, stage_blocks=(2, 3, 1, 2)))
    assert [len(group) for group in deeper.backbone.groups] == [2, 3, 1, 2]
    cqt = torch.rand(2, 84, 40)
    with torch.inference_mode():
        torch.testing.assert_close(deeper.embed(cqt), network.embed(cqt))


def test_what_is_embedded_is_the_mean_over_transpositions_and_what_is_learned_from_is_not():
    network = ByteCover2(replace(TINY, transpositions=(-3, 0, 5)))
    cqt = torch.rand(2, 84, 40)
    moved = [torch.from_numpy(np.stack([transpose(row, bins) for row in cqt.numpy()])) for bins in (-3, 0, 5)]
    with torch.inference_mode():
        mean = torch.stack([network.pooled(one) for one in moved]).mean(dim=0)
        torch.testing.assert_close(network.mean_pooled(cqt), mean)
        torch.testing.assert_close(network.embed(cqt), nn.functional.normalize(network.head(mean)[1]))
        torch.testing.assert_close(network(cqt)[0], network.head(network.pooled(cqt))[0])


def test_without_pca_fc_the_backbone_stays_and_bnneck_is_new():
    network = ByteCover2(TINY)
    network.bnneck.running_mean.fill_(3)
    backbone = network.adapted(replace(TINY, feature_dim=None))
    cqt = torch.rand(2, 84, 40)
    with torch.inference_mode():
        feature, embedding = backbone(cqt)
        torch.testing.assert_close(feature, network.pooled(cqt))
        torch.testing.assert_close(embedding, feature)


def test_a_network_fits_a_deeper_one_one_without_pca_fc_and_no_other():
    network, deeper = ByteCover2(TINY), replace(TINY, stage_blocks=(1, 2, 6, 1))
    free = {"feature_dim": None, "transpositions": (-3, 0, 3)}
    for config in (TINY, deeper, replace(TINY, **free), replace(deeper, **free)):
        assert network.fits(config)
    assert not ByteCover2(deeper).fits(TINY) and not network.fits(replace(TINY, base_width=16))
    assert not network.fits(replace(TINY, feature_dim=8))
    assert not ByteCover2(replace(TINY, feature_dim=None)).fits(TINY)
