"""The validation hears what it says it hears, once, and ranks what it says it ranks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import tiny_network

from benchmarks import held_out
from benchmarks.held_out import HELD_OUT, Work, works_of
from benchmarks.quality import validation
from benchmarks.quality.second_stage import by_scores
from benchmarks.quality.validation import CONDITIONS, USUAL, Heard, evaluation, hear, score, scores_of
from benchmarks.quality.validation_table import RANDOM, SHIPPED, ConditionScore, markdown
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import SongError
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.readers import song_paths
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont
from bytecover2_milvus.training.checkpoint import Checkpoint

RECIPE = Path(__file__).parents[2] / "recipes" / "bytecover2-128.sh"
CAN_PLAY = shutil.which("fluidsynth") and any(SOUNDFONTS.glob("*.sf2"))
plays = pytest.mark.skipif(not CAN_PLAY, reason="needs apt-get install fluidsynth timgm6mb-soundfont")


def scored(name: str, condition: str, system: str, heard: list[Heard], first: str = "") -> ConditionScore:
    others = evaluation(name, condition, first, heard) if first not in ("", system) else None
    return score(name, condition, system, evaluation(name, condition, system, heard), others)


def unit(*degrees: float) -> list[np.ndarray]:
    return [np.array([np.cos(angle), np.sin(angle)]) for angle in np.radians(degrees)]


def tone(duration_s: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 220 * np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_change_what_they_say_and_are_the_same_each_time(condition: str) -> None:
    waveform = tone(46.0)
    first, second = (CONDITIONS[condition](waveform, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.float32
    if condition in ("45 s", "20 s"):
        assert len(first) == int(condition[:2]) * SAMPLE_RATE
    assert np.array_equal(first, waveform) == (condition == "whole")
    short = CONDITIONS[condition](tone(5.0), np.random.default_rng(3))
    assert len(short) > 3 * SAMPLE_RATE


def test_a_transposed_track_keeps_its_length_and_a_retimed_one_its_pitch() -> None:
    rng = np.random.default_rng(0)
    transposed, retimed = (CONDITIONS[name](tone(20.0), rng) for name in ("transposed", "re-timed"))

    def semitones(waveform: np.ndarray) -> float:
        hz = np.argmax(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))) * SAMPLE_RATE / len(waveform)
        return 12 * np.log2(hz / 220)

    assert len(transposed) == 20 * SAMPLE_RATE
    assert 0.9 < abs(semitones(transposed)) < 5.1
    assert 0.07 < abs(len(retimed) / (20 * SAMPLE_RATE) - 1) < 0.35
    assert abs(semitones(retimed)) < 0.1


@plays
def test_a_work_is_heard_once_and_then_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LONGEST_S", 22.0)
    song = traditional_songs()[0]
    work = Work("traditional", song.song_id, song, 2)
    font = find_soundfont()
    heard = hear(work, {"traditional": USUAL}, ("",), font, tmp_path)
    assert [track.track_id for track in heard] == [f"traditional/{song.song_id}/{seed}" for seed in (0, 1)]
    assert all(set(track.embeddings) == {(condition, "") for condition in USUAL} for track in heard)
    files = {path.relative_to(tmp_path).as_posix(): path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    assert len(files) == 4  # two tracks, whole and degraded; excerpts are cut anew
    monkeypatch.setattr(held_out, "_waveform", lambda *_: pytest.fail("it is in the cache"))
    again = hear(work, {"traditional": USUAL}, ("",), font, tmp_path)
    assert files == {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")
    }
    for before, after in zip(heard, again, strict=True):
        for key, embedding in before.embeddings.items():
            assert np.array_equal(embedding, after.embeddings[key]), key


def test_an_unreadable_score_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "noise.mid"
    path.write_bytes(b"noise")
    assert hear(Work("cre", "noise", path, 2), {"cre": USUAL}, ("",), Path("none.sf2"), tmp_path) == []
    assert "noise.mid" in caplog.text


@pytest.mark.parametrize("duration_s", [3.0, 30.0])
def test_a_checkpoint_embeds_as_its_bundle_does(duration_s: float, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    Checkpoint(*tiny_network()).save(path)
    of_checkpoint, of_bundle = (
        validation.embedder_of(str(system))(tone(duration_s))[0] for system in (path, tiny_bundle)
    )
    np.testing.assert_allclose(of_checkpoint, of_bundle, atol=1e-4)


def test_changed_queries_meet_clean_candidates() -> None:
    clean, changed = unit(0, 30, 100, 140), unit(95, 35, 40, 150)  # as in test_metrics: AP 1/3, 1, 1/3, 1
    heard = [
        Heard("pop909", work_id, str(number), {("whole", "b"): clean[number], ("20 s", "b"): changed[number]})
        for number, work_id in enumerate("AABB")
    ]
    result = scored("pop909", "20 s", "b", heard)
    assert result.map == pytest.approx(2 / 3)
    assert (result.queries, result.candidates, result.mr1) == (4, 3, 2)
    assert scored("pop909", "whole", "b", heard).mr1 == 1


def test_a_system_is_compared_with_the_first_on_the_same_queries() -> None:
    good, bad = unit(0, 1, 90, 91), unit(0, 90, 1, 91)
    heard = [
        Heard("cre", work_id, str(number), {("whole", "good"): good[number], ("whole", "bad"): bad[number]})
        for number, work_id in enumerate("AABB")
    ]
    first, second = (scored("cre", "whole", system, heard, "bad") for system in ("bad", "good"))
    assert first.gain is None and second.gain == pytest.approx(second.map - first.map) and second.gain_low > 0
    assert second.mr1_low <= second.mr1 <= second.mr1_high
    random = scored("cre", "whole", RANDOM, heard)
    header, _, row = markdown([random, first, second]).splitlines()
    assert header == "| set | query | bad | good | gain of good | P@10 |"
    assert (
        f"random {random.map:.3f}" in row and f"| whole | {first.map:.3f} [" in row and f"| {second.gain:+.3f} [" in row
    )


def melody(seed: int, n_frames: int = 80) -> np.ndarray:
    """Levels (n_frames, 24) of a random melody, all notes and the lead alike."""
    pitch = np.repeat(np.random.default_rng(seed).integers(0, 12, n_frames // 2), 2)
    return np.tile(15 * np.eye(12, dtype=np.uint8)[pitch], 2)


def test_the_second_stage_finds_what_the_vector_confuses() -> None:
    vectors = unit(0, 40, 1, 41, 0.5, 40.5)  # every track is nearest to one of another work
    heard = [
        Heard("cre", work_id, str(number), {("whole", ""): vectors[number]}, {("whole", ""): levels})
        for number, (work_id, levels) in enumerate(
            zip("AABBCC", [melody(seed)[start:] for seed in range(3) for start in (0, 8)], strict=True)
        )
    ]
    first, alignment, both = scores_of("cre", "whole", [""], heard)
    assert [row.system for row in (first, alignment, both)] == [SHIPPED, f"{SHIPPED}, alignment", f"{SHIPPED}, both"]
    assert first.map < 0.6 and alignment.map == 1 and both.map > first.map
    assert first.gain is None and alignment.gain == pytest.approx(1 - first.map)


def test_scores_are_ranked_as_embeddings_are() -> None:
    embeddings, work_ids = np.stack(unit(0, 30, 100, 140, 10)), ["A", "A", "B", "B", ""]
    track_ids = ["4", "3", "2", "1", "0"]
    constant = np.tile([1.0, 0.0], (5, 1))  # embeddings that tell nothing
    judge = by_scores(embeddings @ embeddings.T, track_ids)
    scores, expected = (
        evaluate(constant, work_ids, track_ids, judge=judge),
        evaluate(embeddings, work_ids, track_ids),
    )
    assert (scores.map, scores.mr1, scores.precision_at_10) == (expected.map, expected.mr1, expected.precision_at_10)
    np.testing.assert_array_equal(scores.average_precisions, expected.average_precisions)
    np.testing.assert_array_equal(scores.query_work_ids, expected.query_work_ids)


def test_recordings_are_sought_among_the_tracks_of_all_sets() -> None:
    heard = [
        Heard("recordings", "R", "1", {("whole", "b"): unit(0)[0], ("noise", "b"): unit(60)[0]}),
        Heard("recordings", "R", "2", {("whole", "b"): unit(10)[0], ("noise", "b"): unit(10)[0]}),
        Heard("asap", "A", "3", {("whole", "b"): unit(70)[0]}),
        Heard("asap", "A", "4", {("whole", "b"): unit(71)[0]}),
    ]
    result = scored("recordings", "noise", "b", heard)
    # the query at 60 meets the two of asap before the recording at 10; the one at 10 meets the recording at 0 first
    assert (result.queries, result.candidates, result.mr1) == (2, 3, 2)
    assert scored("recordings", "whole", "b", heard).mr1 == 1
    assert 1 <= scored("recordings", "whole", RANDOM, heard).mr1 <= 3


def test_the_sets_are_what_is_held_out(shared_data: Path) -> None:
    for name, (start, stop) in HELD_OUT.items():
        works = works_of(name, shared_data, 40, 3)
        assert len(works) == 40
        files = [path.stem for path in song_paths(shared_data / name)]
        assert {work.work_id for work in works} <= set(files[start:stop])
        for first, last in re.findall(rf"/{name}@(\d+)-(\d+)", RECIPE.read_text(encoding="utf-8")):
            assert not {work.work_id for work in works} & set(files[int(first) : int(last)])
    asap = works_of("asap", shared_data, 1000, 3)
    assert all(2 <= work.n_tracks <= 3 for work in asap)
    assert len(works_of("traditional", shared_data, 1000, 3)) == 54  # one of the 55 is a lied, and trained on
    recordings = works_of("recordings", shared_data, 40, 3)
    assert [work.n_tracks for work in recordings] == [2] * 5


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"asap/manifest\.csv: cannot be read .*leave the set asap out"):
        works_of("asap", tmp_path, 40, 3)
    with pytest.raises(SongError, match="cre: no songs here"):
        works_of("cre", tmp_path, 40, 3)


@plays
def test_the_command_prints_json_and_a_table(shared_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    places = {"--scores": shared_data, "--cache": tmp_path, "--markdown": table, "--soundfont": find_soundfont()}
    arguments = [word for option, path in places.items() for word in (option, str(path))]
    choice = ["--sets", "recordings", "--works", "1", "--conditions", "noise", "--workers", "1"]
    done = CliRunner().invoke(validation.main, [*arguments, *choice])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    staged = ["bundle that ships", "bundle that ships, alignment", "bundle that ships, both"]
    assert [(row["condition"], row["system"]) for row in rows] == [
        ("whole", "random"),
        *(("whole", system) for system in staged),
        *(("noise", system) for system in staged),
    ]
    assert all(row["map"] == 1 for row in rows)  # one candidate, the twin
    assert table.read_text() in done.stderr
    assert table.read_text().count("\n") == 4  # two of the head, and one for each condition


def test_the_table_says_each_set_and_condition_once() -> None:
    embeddings = {(condition, "b"): unit(0)[0] for condition in ("whole", "20 s")}
    heard = [Heard("cre", "A", str(number), embeddings) for number in range(2)]
    rows = [scored("cre", *what, heard) for what in (("whole", RANDOM), ("whole", "b"), ("20 s", "b"))]
    found = "1.000 [1.000, 1.000] / 1.0 [1.0, 1.0] | 0.100 |"
    assert markdown(rows).splitlines()[2:] == [
        f"| cre: 2 queries, 1 candidates; random 1.000 / 1.0 | whole | {found}",
        f"|  | 20 s | {found}",
    ]
