"""A checkpoint or a configuration that is damaged or made to harm is refused in a line, without taking memory."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_network
from safetensors import safe_open
from safetensors.torch import save_file

from bytecover2_milvus.config import Config
from bytecover2_milvus.errors import CheckpointError, ConfigError
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint, optimizer_tensors, restore_optimizer

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "whole.safetensors"
    Checkpoint(*tiny_network(), step=3, classifier=torch.ones(4, 128), facts={"Trained on": "songs"}).save(path)
    return path


def refused(whole: Path, path: Path, edit: Callable[[Tensors, dict[str, str]], Any]) -> str:
    with safe_open(whole, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 600
    return message


def configured(**network: Any) -> Callable[[Tensors, dict[str, str]], None]:
    def edit(tensors: Tensors, metadata: dict[str, str]) -> None:
        table = json.loads(metadata["config"])
        metadata["config"] = json.dumps(table | {"network": table["network"] | network})

    return edit


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("step", "three", "step is 'three'"),
        ("step", "-1", "step is '-1'"),
        ("step", "9" * 5_000, "step is '999"),
        ("facts", "[1]", r"facts are [1]"),
        ("facts", '{"a": {}}', "facts are {'a': {}}"),
        ("facts", "{", "Expecting property name"),
        ("config", "[]", "[]: the tables front_end, network"),
        ("config", "[" * 100_000, "nested more than"),
        ("config", '{"network": {"base_width": NaN}}', "NaN is no number of JSON"),
        ("config", '{"network": {"base_width": true}}', "network.base_width = True: int is needed"),
        ("config", '{"network": []}', "network = []: a table is needed"),
    ],
)
def test_damaged_fields_are_named(whole, tmp_path, field, text, reason):
    assert reason in refused(whole, tmp_path / "a.safetensors", lambda _, metadata: metadata.update({field: text}))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("network.backbone.conv1.weight", lambda value: value * torch.nan, "conv1.weight is not finite"),
        ("network.bnneck.running_var", lambda value: -value - 1, "running_var is negative"),
        ("network.gem.exponent", lambda value: -value, "an exponent of -3"),
        ("network.pca_fc.weight", lambda value: value.to(torch.int8), "pca_fc.weight is of torch.int8"),
        ("network.pca_fc.bias", lambda value: value[:5], "it calls for"),
        ("network.pca_fc.bias", lambda value: value.repeat(2), "size mismatch for pca_fc.bias"),
        ("classifier.weight", lambda value: value[:, :64].contiguous(), "a classifier of shape (4, 64)"),
    ],
)
def test_weights_that_no_embedding_comes_from_are_refused(whole, tmp_path, name, change, reason):
    edit = lambda tensors, _: tensors.update({name: change(tensors[name])})  # noqa: E731
    assert reason in refused(whole, tmp_path / "a.safetensors", edit)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"base_width": 10**6}, "base_width = 1000000: between 1 and 256"),
        ({"stage_blocks": [10**9] * 4}, "four groups of 1 to 64 blocks"),
        ({"stage_blocks": [1] * 10**5}, "four groups of 1 to 64 blocks"),
        ({"base_width": 256, "stage_blocks": [64] * 4}, "numbers, the file holds"),
        ({"gem_exponent": 1e300}, "gem_exponent = 1e+300: above 0, at most 100"),
        ({"transpositions": [0] * 1000}, "transpositions: between one and 24"),
    ],
)
def test_a_configuration_takes_no_more_memory_than_the_file_has_weights(whole, tmp_path, network, reason):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason in refused(whole, tmp_path / "a.safetensors", configured(**network))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB; the largest calls for 30 GB


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "a.safetensors"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"not a readable safetensors checkpoint .*a pipe or a device"):
        load_checkpoint(path)


class Trap:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_pickle_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (lambda path: path.write_bytes(pickle.dumps(Trap())), lambda path: torch.save(Trap(), path)):
        write(tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match="not a readable safetensors checkpoint"):
            load_checkpoint(tmp_path / "a.safetensors")
    assert not (tmp_path / "executed").exists()


def test_bytes_changed_at_random_are_refused_or_do_no_harm(whole, tmp_path):
    content, rng, path = whole.read_bytes(), np.random.default_rng(0), tmp_path / "a.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(60):
        changed = bytearray(content)
        for at in rng.integers(0, header, size=rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        try:
            assert torch.isfinite(load_checkpoint(path).network.embed(torch.ones(1, 84, 8))).all()
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ")


def test_moments_that_are_none_of_an_optimizer_are_refused():
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    moments = optimizer_tensors(optimizer, ["w"])
    restore_optimizer(optimizer, ["w"], moments)
    for changed, reason in (
        ({k: v for k, v in moments.items() if k != "w.exp_avg"}, "optimizer state of w is exp_avg_sq, step"),
        (moments | {"w.exp_avg": torch.ones(2, 3)}, r"w.exp_avg of shape \(2, 3\)"),
        (moments | {"w.step": torch.ones(2)}, r"w.step of shape \(2,\)"),
    ):
        with pytest.raises(CheckpointError, match=f"{reason}.*: the checkpoint is damaged"):
            restore_optimizer(optimizer, ["w"], changed)


# Configurations


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = " + "[" * 5_000, "not TOML"),
        ("[training]\nsteps = " + "9" * 5_000, "not TOML"),
        ("[training]\nsteps = " + "9" * 500, "training.steps = 999"),
        ("[training]\nlearning_rate = " + "9" * 400, "training.learning_rate = 999"),
        ("[training]\nsteps = 1979-05-27", "int is needed"),
        ("[training]\nlearning_rate = nan", "must be finite"),
        ("training = 3", "training = 3: a table is needed"),
        ("[[training]]\nsteps = 3", "a table is needed"),
        ("[front_end]\nn_octaves = 10000", "n_octaves = 10000: between 1 and 10"),
        ("[training]\n" + "x" * 10_000 + " = 1", "unknown key training.xxx"),
        ("#" * 100_000, "at most 65536 are read"),
        (".".join("a" * 5_000) + " = 1", "nested more than 100 deep"),
    ],
)
def test_toml_that_nobody_writes_is_refused_in_a_line(text, reason, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        Config.from_toml(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message and len(message) < 800


def test_settings_are_held_to_the_same(tmp_path):
    for setting in ("training.steps=" + "9" * 5_000, "a=" + "[" * 5_000, ".".join("a" * 3_000) + "=1"):
        with pytest.raises(ConfigError) as raised:
            Config().with_settings([setting])
        assert len(str(raised.value)) < 800


def test_the_command_says_it_in_a_line(whole, tmp_path):
    path = tmp_path / "a.safetensors"
    refused(whole, path, configured(base_width=10**6))
    command = [sys.executable, "-m", "bytecover2_milvus", "export", path, "--out", tmp_path / "bundle"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "base_width = 1000000" in done.stderr
    assert not (tmp_path / "bundle").exists()
