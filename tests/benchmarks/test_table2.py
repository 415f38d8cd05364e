"""The benchmark of a query at toy size: both ways give the same embedding, and every part is measured and compared."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.speed.query_pipelines import CLIP_RATE, CLIP_S, make_clips
from benchmarks.speed.table2 import FORMATS, PARTS, SECOND_STAGE, main
from bytecover2_milvus.audio.load import load_audio


@pytest.fixture(autouse=True)
def _keep_cores():
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


def test_clips_last_45_s_and_sound_the_same_as_wav_and_mp3(tmp_path):
    (wav,), (mp3,) = (make_clips(tmp_path, 1, suffix) for suffix in FORMATS)
    one, other = load_audio(wav), load_audio(mp3)
    assert wav.stat().st_size == pytest.approx(4 * CLIP_S * CLIP_RATE, rel=0.01)  # two channels of 16 bits
    assert len(one) / 22_050 == pytest.approx(CLIP_S) and len(other) / 22_050 == pytest.approx(CLIP_S, abs=0.1)


def test_measures_every_part_of_both_ways(tmp_path):
    songs = np.random.default_rng(0).standard_normal((40, 128)).astype(np.float32)
    np.save(tmp_path / "songs.npy", songs / np.linalg.norm(songs, axis=1, keepdims=True))
    arguments = ["--network", "bundle", "--tracks", "1000", "--queries", "2", "--clips", "1", "--milvus", "lite"]
    result = CliRunner().invoke(main, [*arguments, "--embeddings", str(tmp_path / "songs.npy")])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [(line["network"], line["dim"], line["format"]) for line in lines] == [("bundle", 128, f) for f in FORMATS]
    assert result.stderr.count("with second stage") == len(FORMATS)
    for line in lines:
        # Front end and network as two graphs are the bundle's one, but for weights that its checkpoint rounds.
        assert line["cosine_to_whole"] > 0.999
        assert line["cosine_to_reference"] > 0.99  # librosa and PyTorch hear the same
        assert line["same_tracks_found"] is True
        for way in ("ours", "reference"):
            total = line[way]["load"]["ms"] + line[way]["cqt"]["ms"] + line[way]["inference"]["ms"]
            assert line[way]["total"]["ms"] == pytest.approx(total + line[way]["retrieval"]["ms"])
        for part in (*PARTS, "preprocessing", "total"):
            for kind in ("ms", "cpu_ms"):
                ratio = line["reference"][part][kind] / line["ours"][part][kind]
                assert line["ratios"][kind][part] == pytest.approx(ratio)
        staged = line["second_stage"]  # a hundred candidates were aligned for a verdict
        assert line["judged"] == 100 and staged["rerank"]["cpu_ms"] > 1
        for kind in ("ms", "cpu_ms"):
            assert staged["total"][kind] == pytest.approx(sum(staged[part][kind] for part in SECOND_STAGE))
            ours = sum(line["ours"][part][kind] for part in ("load", "whole", "retrieval"))
            assert staged["more_ms"][kind] == pytest.approx(staged["total"][kind] - ours)
        assert line["limits"]["flat_bytes"] == 4 * 128 * 1_000
        assert line["limits"]["cqt_flops"] > 1e8 and line["limits"]["network_flops"] > 1e7
