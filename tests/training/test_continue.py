"""A training that goes on for as long as it is let: killed, changed and started again, it keeps what it has saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bytecover2_milvus.config import SAMPLE_RATE, Config, FrontEnd, Network, Training
from bytecover2_milvus.errors import CheckpointError
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.training.checkpoint import LAST, Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.journal import JOURNAL, Journal
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import VALIDATION

SCRIPT = Path(__file__).parents[2] / "recipes" / "continue.sh"
CONFIG = Config(
    front_end=FrontEnd(time_pooling=20, scale="sqrt"),
    network=Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=8),
    training=Training(
        steps=4,
        works_per_batch=2,
        tracks_per_work=2,
        crop_s=(8.0,),
        optimizer="muon",
        averaging=0.5,
        hearings=2.0,
        learning_rate=1e-3,
        warmup_steps=0,
        final_rate=1.0,
        validate_every=2,
        save_every=2,
    ),
)


def recordings(folder: Path, numbers: range) -> Corpus:
    """Every recording, of ten seconds of random tones, and one copy of it with noise."""
    for number in numbers:
        if (folder / f"{number}.wav").exists():
            continue
        rng = np.random.default_rng(number)
        tones = np.repeat(110 * 2 ** (rng.integers(0, 36, 20) / 12), SAMPLE_RATE // 2)
        soundfile.write(folder / f"{number}.wav", 0.3 * np.sin(np.cumsum(2 * np.pi * tones / SAMPLE_RATE)), SAMPLE_RATE)
    return Corpus.of_recordings([folder / f"{number}.wav" for number in numbers], variants=1, kinds=["noise"])


def material(folder: Path) -> tuple[Corpus, Corpus, FeatureCache]:
    """To learn from, to validate on, and the cache of both."""
    cache = FeatureCache(folder / "cache", CONFIG.front_end)
    return recordings(folder, range(4)), recordings(folder, range(4, 7)), cache


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> tuple[Corpus, Corpus, FeatureCache]:
    torch.set_num_threads(1)
    return material(tmp_path_factory.mktemp("music"))


def run(config: Config, music: tuple[Corpus, Corpus, FeatureCache], out: Path, **options) -> Checkpoint:
    corpus, validation, cache = music
    train(config, corpus, cache, out, validation=validation, device="cpu", data_workers=0, **options)
    return load_checkpoint(out / LAST)


def with_training(**changes: object) -> Config:
    return replace(CONFIG, training=replace(CONFIG.training, **changes))


def journal(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    theirs = other.network.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.network.state_dict().items())


KILLED = """
import os, signal, sys
from pathlib import Path
from bytecover2_milvus import atomic
sys.path[:0] = {tests!r}
from test_continue import CONFIG, LAST, material, run

def replace(part, path, saves=[]):
    saves.append(path.name)
    if saves.count(LAST) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    os.rename(part, path)

folder = Path({folder!r})
atomic.os = type("os", (), dict(vars(os), replace=staticmethod(replace)))
run(CONFIG, material(folder), folder / "run")
"""


def test_a_run_killed_while_it_saves_goes_on_from_the_save_before(tmp_path):
    program = KILLED.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[1])], folder=str(tmp_path))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = tmp_path / "run"
    assert len(list(out.glob(f"{LAST}.*.part"))) == 1  # all of the second save, which never took the place of the first
    assert load_checkpoint(out / LAST).step == 2
    assert [line["step"] for line in journal(out)] == [2, 4]

    music = material(tmp_path)
    steps = []
    resumed = run(CONFIG, music, out, report=lambda progress: steps.append(progress.step))
    assert steps == [3, 4]
    assert [(line["step"], line["samples"]) for line in journal(out)] == [(2, 8), (4, 16)]  # that of step 4 came again
    whole = run(CONFIG, music, tmp_path / "whole")
    assert equal(resumed, whole) and resumed.samples == whole.samples == 16


def test_a_run_goes_on_with_other_settings_works_and_validation(music, tmp_path):
    first = run(CONFIG, music, tmp_path)
    corpus, validation, cache = music
    fewer = Corpus(dict(list(corpus.works.items())[:3])), Corpus(dict(list(validation.works.items())[:2])), cache
    changed = with_training(steps=6, learning_rate=5e-4, averaging=0.6)
    with pytest.raises(CheckpointError, match="another configuration"):
        run(changed, fewer, tmp_path)
    progress = []
    last = run(changed, fewer, tmp_path, go_on=True, report=progress.append)
    assert [each.step for each in progress] == [4, 5, 6] and last.samples == 24
    assert progress[0].validation is not None and np.isnan(progress[0].loss)  # by the new validation
    assert last.classifier.shape == (3, 256) and first.classifier.shape == (4, 256)
    reached = [each.validation.map for each in progress if each.validation]
    assert len(reached) == 2 and float(last.facts[VALIDATION]) == pytest.approx(max(reached), abs=1e-5)
    assert [line["step"] for line in journal(tmp_path)] == [2, 4, 4, 6]


def test_what_has_not_changed_goes_on_exactly(music, tmp_path):
    """The moments of the optimizer and the weights in training, beside their average, are those that were saved."""
    run(CONFIG, music, tmp_path / "parts")
    parts = run(with_training(steps=6), music, tmp_path / "parts", go_on=True)
    assert equal(parts, run(with_training(steps=6), music, tmp_path / "whole"))


def test_a_run_does_not_go_on_with_another_network(music, tmp_path):
    run(with_training(steps=2), music, tmp_path)
    wider = replace(CONFIG, network=replace(CONFIG.network, base_width=16))
    with pytest.raises(CheckpointError, match=r"another network \(network.base_width 8 -> 16\)"):
        run(wider, music, tmp_path, go_on=True)


def test_a_journal_drops_what_was_never_saved_and_counts_on(tmp_path):
    path = tmp_path / JOURNAL
    one = Journal(path)
    for samples in (10, 20):
        one.samples = samples
        one.write(samples // 10, map=0.12345)
    with path.open("a") as file:
        file.write('{"step": 3, "hou')  # killed while it wrote
    two = Journal(path, samples=10, seconds=7200)
    two.samples = 20
    two.write(2, map=0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"step": 1, "hours": 0.0, "samples": 10, "map": 0.1235},
        {"step": 2, "hours": 2.0, "samples": 20, "map": 0.5},
    ]


def test_the_script_goes_on_where_it_was_killed(tmp_path):
    """From a small network, on three composed songs; killed after a validation, ended by SIGTERM after another."""
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    Checkpoint(CONFIG, ByteCover2(CONFIG.network)).save(start)
    small = [
        'precision="32-true"',
        "works_per_batch=2",
        "tracks_per_work=2",
        "crop_s=[8.0]",
        "validate_every=2",
        "save_every=1",
    ]
    environment = os.environ | {
        "INIT": str(start),
        "SONGS": "composed@0-3",
        "HELD_OUT": "composed@8-9",
        "SETTINGS": " ".join(f"training.{setting}" for setting in small),
        "HEARINGS": "50.0",
        "SPECTRAL": "0",  # no tones to measure
        "NICE": "0",
        "WORKERS": "1",
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    for name in ("SOUND_FONT", "SCORES", "RATE"):
        environment.pop(name, None)
    out = tmp_path / "run"

    def start_until(lines: int, ending: signal.Signals) -> int:
        process = subprocess.Popen([SCRIPT, out], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            until = time.monotonic() + 300
            while not (out / JOURNAL).exists() or len(journal(out)) < lines:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(ending)
            return process.wait(60)
        finally:
            process.kill()
            process.stderr.close()

    assert start_until(2, signal.SIGKILL) == -signal.SIGKILL  # after the first, of what it starts from
    saved = load_checkpoint(out / LAST)
    assert saved.step > 0 and saved.samples == 4 * saved.step
    start.unlink()  # the run's own weights come first
    assert start_until(4, signal.SIGTERM) == -signal.SIGTERM
    assert [line["samples"] for line in journal(out)] == [0, 8, 16, 24]
    assert not list(out.rglob("*.part"))
