"""The benchmark of adaptation: halves that share no work, and a whole run at the smallest scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from click.testing import CliRunner

from benchmarks.quality.adaptation import Excerpts, halves, main
from bytecover2_milvus.config import SAMPLE_RATE, Config, FrontEnd, Network, Training
from bytecover2_milvus.errors import ManifestError
from bytecover2_milvus.manifest import Track, read_manifest, write_manifest
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.training.checkpoint import Checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    """Options that name two recordings of 12 s of each of four works, and an untrained network."""
    folder = tmp_path_factory.mktemp("recordings")
    tracks = []
    for work in range(4):
        for take in range(2):
            path = folder / f"{work}-{take}.flac"
            soundfile.write(path, render(arrange(compose(200 + work), take), max_duration_s=12), SAMPLE_RATE)
            tracks.append(Track(path, path.stem, f"work {work}"))
    write_manifest(tracks, folder / "m.csv")
    config = Config(
        FrontEnd(time_pooling=20),
        Network(16, stage_blocks=(1, 1, 1, 1), base_width=8),
        Training(works_per_batch=4, tracks_per_work=2, crop_s=(8.0,)),
    )
    torch.manual_seed(0)
    Checkpoint(config, ByteCover2(config.network)).save(folder / "start.safetensors")
    options = ["--manifest", folder / "m.csv", "--init", folder / "start.safetensors", "--cache", folder / "cache"]
    return [str(word) for word in (*options, "--arrangements", 2, "--variants", 1, "--workers", 1, "--device", "cpu")]


def test_halves_share_no_work_and_leave_out_what_has_no_second_recording():
    tracks = [Track(Path(f"{i}.wav"), f"t{i}", f"w{i // 2}") for i in range(12)]
    tracks += [Track(Path("alone.wav"), "alone", "alone"), Track(Path("unknown.wav"), "unknown")]
    learned, scored = halves(tracks, seed=0)
    assert {t.work_id for t in learned} & {t.work_id for t in scored} == set()
    assert len(learned) == len(scored) == 6
    assert halves(tracks, seed=1) != (learned, scored) == halves(tracks, seed=0)
    with pytest.raises(ManifestError, match="3 works with two recordings"):
        halves(tracks[:6], seed=0)


def test_a_whole_run_scores_three_systems_on_recordings_and_guard(arguments, tmp_path):
    options = [*arguments, "--songs", "composed@0-2", "--guard", "composed@50-52", "--steps", "2"]
    done = CliRunner().invoke(main, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    systems = ["start", "without labels", "with labels"]
    assert [(row["set"], row["system"]) for row in rows] == [
        (name, system) for name in ("recordings", "composed@50-52") for system in systems
    ]
    for row in rows:
        assert row["map_low"] <= row["map"] <= row["map_high"] and row["queries"] == 4
        assert row["gain"] == pytest.approx(row["map"] - rows[0 if row["set"] == "recordings" else 3]["map"])
    assert rows[0]["gain"] == rows[3]["gain_low"] == 0


def test_excerpts_query_for_whole_recordings(arguments, tmp_path):
    options = [*arguments, "--steps", "1", "--songs", "composed@0-2", "--excerpt", "10", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 3
    cache = FeatureCache(arguments[arguments.index("--cache") + 1], FrontEnd(time_pooling=20))
    _, track = next(Corpus.of_manifest(read_manifest(arguments[1])).tracks())
    whole, middle = cache.load(track), Excerpts(cache, 10).load(track)
    assert middle.shape[1] == round(10 * SAMPLE_RATE / (512 * 20)) < whole.shape[1]
    start = (whole.shape[1] - middle.shape[1]) // 2
    assert (whole[:, start : start + middle.shape[1]] == middle).all()


def test_a_guard_that_is_learned_from_is_refused(arguments, tmp_path):
    options = [*arguments, "--songs", "composed@0-2", "--guard", "composed@1-3", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 1 and "composed-1: a song of --songs and of --guard" in done.stderr
