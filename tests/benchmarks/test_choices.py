"""The benchmark of choices: one run per choice on songs, all scored on the same queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.quality.choices import AS_GIVEN, main
from bytecover2_milvus.config import Config, FrontEnd, Network, Training
from bytecover2_milvus.training.checkpoint import Checkpoint
from bytecover2_milvus.training.start import initial_network


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    config = Config(
        FrontEnd(time_pooling=20),
        Network(None, stage_blocks=(1, 1, 1, 1), base_width=8),
        Training(works_per_batch=2, tracks_per_work=2, crop_s=(8.0,), room_s=0.5),
    )
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    Checkpoint(config, initial_network(config, None)).save(path)
    return path


def _run(start: Path, out: Path, *choices: str) -> Result:
    options = ["--songs", "composed@0-2", "--validation-songs", "composed@50-52", "--arrangements", "2", "--steps", "2"]
    options += [word for choice in choices for word in ("--choice", choice)]
    options += ["--cache", str(start.parent / "cache"), "--workers", "1", "--device", "cpu", "--out", str(out)]
    return CliRunner().invoke(main, [str(start), *options])


def test_choices_are_compared_with_the_settings_as_given(start, tmp_path):
    done = _run(start, tmp_path, "training.room_s=0.5", "training.room_s=0 training.noise=0")
    assert done.exit_code == 0, done.output
    rows = {(row["choice"], row["set"]): row for row in map(json.loads, done.stdout.splitlines())}
    assert len(rows) == 6
    for name in ("played", "degraded"):
        assert rows[AS_GIVEN, name]["queries"] == 4
        assert rows["training.room_s=0.5", name] == rows[AS_GIVEN, name] | {"choice": "training.room_s=0.5"}
    assert (tmp_path / "training.room_s=0-training.noise=0" / "best.safetensors").exists()
    table = (tmp_path / "choices.md").read_text()
    assert "| start |" in table
    assert "| training.room_s=0 training.noise=0 |" in table


@pytest.mark.parametrize(
    ("choice", "message"),
    [("front_end.time_pooling=40", "only training"), ("training.rooms=0", "unknown key training.rooms")],
)
def test_a_choice_that_is_none_is_refused(start, tmp_path, choice, message):
    done = _run(start, tmp_path, choice)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
