"""The throughput benchmark at toy size: what it counts and how its figures hang together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from benchmarks.speed.throughput import MATRIX_SIDE, Step, main, step_flops
from bytecover2_milvus.config import Config

TOML = """
[front_end]
time_pooling = 40
[network]
feature_dim = "none"
stage_blocks = [1, 1, 1, 1]
base_width = 8
[training]
works_per_batch = 4
tracks_per_work = 2
crop_s = [20.0]
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def toml(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return path


def test_flops_are_those_of_convolutions_and_classifier_forward_and_backward(toml):
    step = Step(Config.from_toml(toml), torch.device("cpu"))
    forward = []

    def count(layer: nn.Conv2d | nn.Linear, _inputs: object, output: torch.Tensor) -> None:
        # a multiplication and an addition for every weight that an output value sees
        forward.append(2 * output.numel() * layer.weight[0].numel())

    for layer in [*step.network.modules(), step.classifier]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    counted = step_flops(step)
    # backward costs two more, towards the weights and towards the input, which the first convolution does without
    assert counted == 3 * sum(forward) - forward[0]


def test_measures_training_and_what_feeds_it(toml, tone_folder, monkeypatch):
    monkeypatch.setitem(MATRIX_SIDE, "cpu", 512)
    arguments = ["--config", str(toml), "--songs", "2", "--seconds", "0.1", "--workers", "3", "--threads", "1"]
    result = CliRunner().invoke(main, [*arguments, "--device", "cpu", "--cache", str(tone_folder)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [line["precision"] for line in lines] == ["32-true", "bf16-mixed"]
    for line in lines:
        assert line["batch"] == 8 and line["frames"] == 22 and line["threads"] == 1  # 20 s of 0.93 s each
        reached = line["samples_per_s"] * line["sample_flops"]
        assert line["share_of_peak"] == pytest.approx(reached / line["peak_flops"])
        assert line["share_of_peak"] == pytest.approx(line["matrix_time_share"] * line["matrix_share_of_peak"])
        assert 0 < line["matrix_time_share"] + sum(line["other_time_shares"].values()) <= 1 + 1e-9
        assert line["idle_share"] == 0
        assert line["batches_per_sample"] == pytest.approx(3 * line["batches_samples_per_s"] / line["samples_per_s"])
        assert line["tracks_per_sample"] == pytest.approx(3 * line["drawn_tracks_per_s"] / line["samples_per_s"])
        assert line["tracks_per_sample"] * line["hearings_to_keep_up"] == pytest.approx(1)
        assert line["played_tracks_per_s"] > 0


def test_a_configuration_that_is_not_there_is_a_line(tmp_path):
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "none.toml"), "--device", "cpu"])
    assert result.exit_code == 1
    assert "none.toml: cannot be read" in result.stderr
