"""The benchmark of segments: it ranks what it says it ranks, and times what it says it times."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import held_out
from benchmarks.held_out import Work
from benchmarks.quality.segments import Embedded, Heard, hear, main, measure_search, rank, scores_of
from benchmarks.quality.segments_table import markdown
from bytecover2_milvus.audio.segments import WHOLE, Segments
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import Query
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont

CUT = Segments(10.0, 5.0)
CAN_PLAY = shutil.which("fluidsynth") and any(SOUNDFONTS.glob("*.sf2"))


def part(*degrees: float) -> Embedded:
    angles = np.radians(degrees)
    return Embedded(Query(np.stack([np.cos(angles), np.sin(angles)], axis=1), [(0.0, 20.0)] * len(degrees)), cpu_ms=1.0)


def test_the_closest_pair_ranks_and_the_own_track_does_not() -> None:
    stored = {"a": (0, 90), "b": (40, 50), "c": (80, 200), "d": (120, 300)}
    asked = {"a": (95,), "b": (45,), "c": (75, 210), "d": (310,)}
    tracks = [
        Heard(work, name, 20.0, {CUT: part(*stored[name])}, {(5.0, CUT): part(*asked[name])})
        for name, work in zip("abcd", "vwvw", strict=True)
    ]
    ranking = rank(tracks, CUT, (5.0, CUT))
    # a at 95: c 15 off (80), d 25, b 45: first. b at 45: a 45, c 35, d 75: third.
    # c at 75 or 210: a 15 (90), b 25, d 45: first. d at 310: a 50 (0), b 90, c 110: second.
    assert ranking.first_ranks.tolist() == [1, 3, 1, 2]
    assert ranking.average_precisions == pytest.approx([1, 1 / 3, 1, 1 / 2])
    assert ranking.own_first.tolist() == [True, True, True, True]  # 5 off, 5, 5 and 10
    assert ranking.work_ids == ["v", "w", "v", "w"]


@pytest.mark.skipif(not CAN_PLAY, reason="needs apt-get install fluidsynth timgm6mb-soundfont")
def test_two_works_are_heard_scored_and_searched(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "LONGEST_S", 22.0)
    kinds = [(8.0, WHOLE), (12.0, WHOLE), (12.0, CUT), (None, WHOLE), (None, CUT)]
    works = [Work("traditional", song.song_id, song, 2) for song in traditional_songs()[:2]]
    lengths, font = (8.0, 12.0, None), find_soundfont()
    heard = [track for work in works for track in hear(work, (WHOLE, CUT), lengths, str(tiny_bundle), font, tmp_path)]
    for track in heard:
        whole, cut = track.stored[WHOLE].parts, track.stored[CUT].parts
        assert len(whole.embeddings) == 1 and len(cut.embeddings) == 1 + len(
            CUT.spans(round(track.duration_s * SAMPLE_RATE))[1:]
        )
        assert np.array_equal(whole.embeddings[0], cut.embeddings[0])
        assert len(track.asked[12.0, CUT].parts.embeddings) == 3  # 12 s, and two parts of 10 s
        assert (8.0, CUT) not in track.asked and len(track.asked[8.0, WHOLE].parts.embeddings) == 1
        assert np.array_equal(track.asked[None, WHOLE].parts.embeddings, whole.embeddings)
    embedder = Embedder(tiny_bundle, device="cpu", threads=1)
    n_rows, times = measure_search(str(tmp_path / "x.db"), embedder, heard, CUT, kinds, catalogue=9, searches=2)
    assert n_rows >= 9 * 3 and list(times) == kinds
    assert all(time.cpu_ms > 0 and time.ms > 0 for time in times.values())

    heard.sort(key=lambda track: track.track_id)
    of_whole = {asked: times[asked] for asked in kinds if not asked[1]}
    scores = {
        (score.segment_s, score.query_s, score.query_cut): score
        for cut, its in ((WHOLE, of_whole), (CUT, times))
        for score in scores_of("traditional", heard, cut, n_rows, its)
    }
    assert len(scores) == 8

    names, works_of_names = [track.track_id for track in heard], [track.work_id for track in heard]
    wholes = np.concatenate([track.stored[WHOLE].parts.embeddings for track in heard])
    expected = evaluate(wholes, works_of_names, names)
    assert (scores[0, None, False].map, scores[0, None, False].mr1) == pytest.approx((expected.map, expected.mr1))
    counts = [len(track.stored[CUT].parts.embeddings) for track in heard]
    rows = np.concatenate([track.stored[CUT].parts.embeddings for track in heard])
    row_names, row_works = np.repeat(names, counts), np.repeat(works_of_names, counts)
    for cut, asking in ((False, np.repeat(wholes, counts, axis=0)), (True, rows)):
        expected, score = evaluate(rows, row_works, row_names, asking), scores[10, None, cut]
        assert (score.map, score.mr1, score.own_first) == pytest.approx((expected.map, expected.mr1, 1.0))
        assert score.gain == pytest.approx(score.map - scores[0, None, False].map)
        assert score.gain_low <= score.gain <= score.gain_high
    assert scores[0, 8.0, False].gain == 0
    table = markdown(list(scores.values()))
    assert "| 12 s | whole |" in table and "|  | 10 s every 5 s, query too |" in table and "search whole, ms" in table


def test_a_cut_that_is_none_is_wrong_usage() -> None:
    for cut in ("60", "30/60", "a/b"):
        result = CliRunner().invoke(main, ["--cut", cut])
        assert result.exit_code == 2 and "give seconds as 60/30" in result.output
