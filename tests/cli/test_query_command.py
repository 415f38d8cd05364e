"""``query`` with a second stage, as a user meets it: real files, a real bundle and a real collection."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile
from calibrated import VERDICT, with_calibration
from click.testing import CliRunner, Result
from written_tune import played, slower, tune

from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.milvus.cohort import Cohort
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected


@pytest.fixture(scope="module")
def bundle(tiny_notes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_calibration(tiny_notes_bundle, tmp_path_factory.mktemp("bundle") / "calibrated", VERDICT.to_json())


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    (folder / "catalogue").mkdir()
    for seed in range(6):
        soundfile.write(folder / "catalogue" / f"song-{seed}.wav", played(tune(seed, 40)), SAMPLE_RATE)
    inside = played([*tune(20, 10), *tune(3, 40)])
    soundfile.write(folder / "inside.wav", inside, SAMPLE_RATE)
    soundfile.write(folder / "short.wav", inside[: 3 * SAMPLE_RATE // 2], SAMPLE_RATE)
    soundfile.write(folder / "again.flac", np.round(played(tune(3, 40)) * 500) / 500, SAMPLE_RATE)
    soundfile.write(folder / "stranger.wav", played(slower(tune(77, 40), 1.3)), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def db(music: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("milvus") / "music.db"
    files = [music / "catalogue", music / "again.flac"]
    result = CliRunner().invoke(main, ["ingest", *map(str, files), "--uri", str(folder), "--bundle", str(bundle)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def query(db: Path, bundle: Path):
    def run(*arguments: object) -> Result:
        options = ["--uri", str(db), *([] if "--bundle" in arguments else ["--bundle", str(bundle)])]
        return CliRunner().invoke(main, ["query", *map(str, arguments), *options])

    return run


def lines(result: Result) -> list[dict]:
    form = json.loads(files("bytecover2_milvus.schemas").joinpath("match.schema.json").read_text(encoding="utf-8"))
    matches = [json.loads(line) for line in result.stdout.splitlines()]
    for match in matches:
        jsonschema.validate(match, form)
    return matches


def test_a_cover_is_shown_with_where_it_runs(query, music):
    result = query(music / "inside.wav", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    matches = lines(result)
    assert {match["title"] for match in matches} == {"song-3", "again"}
    for match in matches:
        assert match["probability"] > 0.5 and match["transposition"] == 0
        assert match["tempo_ratio"] == pytest.approx(1.0, abs=0.01)
        assert match["query_start_s"] - match["start_s"] == pytest.approx(9.75, abs=1.5)
    table = query(music / "inside.wav").stdout
    for column in ("probability", "of the query", "in the track", "semitones", "tempo", "song-3"):
        assert column in table


def test_one_recording_in_two_encodings_is_shown_once(query, music):
    (match,) = lines(query(music / "inside.wav", "--json", "--distinct"))
    assert match["title"] in ("song-3", "again")


def test_a_stranger_has_no_cover_and_the_nearest_on_request(query, music):
    for extra in ((), ("--json",)):
        result = query(music / "stranger.wav", *extra)
        assert result.exit_code == 0
        assert ("stranger.wav: no cover found; the nearest is " in result.stdout) == (not extra)
        assert ("stranger.wav: no cover found; the nearest is " in result.stderr) == bool(extra)
    nearest = lines(query(music / "stranger.wav", "--json", "--nearest", "--limit", 3))
    assert [match["rank"] for match in nearest] == [1, 2, 3]
    assert all(match["probability"] < 0.5 for match in nearest)
    assert lines(query(music / "stranger.wav", "--json", "--min-probability", 0, "--limit", 3)) == nearest
    mixed = query(music / "stranger.wav", music / "inside.wav")
    assert "stranger.wav: no cover found" in mixed.stdout and "song-3" in mixed.stdout


def test_a_query_that_is_too_short_is_ranked_by_its_embedding_and_says_so(query, music):
    result = query(music / "short.wav", "--json")
    assert result.exit_code == 0
    assert "short.wav: 1.4 s are too short to be aligned, 1.9 s are needed" in result.stderr
    matches = lines(result)
    assert len(matches) == 7 and all(match["score"] is match["probability"] is None for match in matches)


def test_without_a_second_stage_it_is_as_before_and_says_so_once(query, music, tiny_notes_bundle):
    without = query(music / "stranger.wav", music / "inside.wav", "--json", "--rerank", 0)
    assert without.stderr == "note: --rerank 0: ranked by similarity alone, without a verdict\n"
    assert len(lines(without)) == 14
    assert all(match["score"] is match["probability"] is None for match in lines(without))
    plain = query(music / "stranger.wav", music / "inside.wav", "--json", "--bundle", tiny_notes_bundle)
    assert plain.stdout == without.stdout
    assert (
        plain.stderr
        == "note: this bundle has a note map but no calibration.json for this alignment, and so no second stage\n"
    )
    refused = query(music / "inside.wav", "--distinct", "--rerank", 0)
    assert refused.exit_code == 2 and "--distinct needs the second stage" in refused.stderr


def test_explain_tells_the_score_and_the_probability_that_query_does(query, music, db, bundle, tmp_path):
    match = next(match for match in lines(query(music / "inside.wav", "--json")) if match["title"] == "song-3")

    def explain(track: object) -> str:
        out = ["--out", str(tmp_path / "page.html"), "--no-audio", "--uri", str(db), "--bundle", str(bundle)]
        result = CliRunner().invoke(main, ["explain", str(music / "inside.wav"), str(track), *out])
        assert result.exit_code == 0, result.output
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "Probability of one work" in page and "Score, log odds" in page
        return result.stderr

    told = f"Score {match['score']:+.2f}, probability {match['probability']:.3f}, beside "
    assert told + "the tracks of tracks.\n" in explain(match["track_id"])
    alone = explain(music / "catalogue" / "song-3.wav")
    assert "beside typical tracks.\n" in alone and told not in alone


def test_the_statistics_of_an_ingest_count_the_background_of_the_bundle(db):
    with connected(str(db)) as client:
        collection = TrackCollection.open(client, "tracks")
        tracks = collection.cohort()
        stored = collection.stored_chroma([track.track_id for track in tracks])
    expected = Cohort(tracks, VERDICT.backgrounds).statistics_in_turn(tracks)
    assert len(tracks) == 7
    for track, statistics in zip(tracks, expected, strict=True):
        assert stored[track.track_id].statistics == statistics


def test_a_page_has_the_matches_of_every_query(query, music, tmp_path):
    page = tmp_path / "pages" / "matches.html"
    result = query(music / "inside.wav", music / "stranger.wav", "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "1 of 2 queries found a track" in text and "A version</b> of inside" in text
    assert "No track found · no cover found; the nearest is " in text
    refused = query(music / "inside.wav", "--html", music)
    assert refused.exit_code != 0 and "is a directory" in refused.stderr


def test_a_stored_file_does_not_find_itself_if_it_is_left_out(query, music):
    stored = music / "catalogue" / "song-3.wav"
    assert {match["title"] for match in lines(query(stored, "--json"))} == {"song-3", "again"}
    (other,) = lines(query(stored, "--json", "--exclude-self"))
    assert other["title"] == "again"  # the same recording in another file
    copied = music / "copied.wav"
    copied.write_bytes(stored.read_bytes())  # the same bytes elsewhere
    assert [match["title"] for match in lines(query(copied, "--json", "--exclude-self"))] == ["again"]
    copied.unlink()
