"""Judgements: appended whole, read back, and made a manifest that ingest and evaluate read."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from audio_files import write_tone
from band_embedder import BandEmbedder
from click.testing import CliRunner

from bytecover2_milvus.cli import main
from bytecover2_milvus.errors import ManifestError, OutputError
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.labels import Label, LabelsFile, labelled_tracks, read_labels
from bytecover2_milvus.manifest import read_manifest, tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.training.data.corpus import Corpus


def label(query: str, track: str, same: bool, work_id: str = "", time: str = "2030-01-01T00:00:00+00:00") -> Label:
    return Label(query, hashlib.sha256(query.encode()).hexdigest(), track, f"/m/{track}.wav", work_id, same, 0.5, time)


def works(labels: list[Label], *queries: str) -> set[frozenset[str]]:
    """The sets of recordings that have one work_id."""
    files = {label(name, "", True).content_hash: Path(f"/q/{name}.wav") for name in queries}
    found: dict[str | None, set[str]] = {}
    for track in labelled_tracks(labels, files).tracks:
        found.setdefault(track.work_id, set()).add(track.path.stem)
    return {frozenset(names) for names in found.values()}


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.jsonl"
    given = [label(f"q{i}\u2028\n", f"t{i}", i % 2 == 0, "w") for i in range(40)]
    file = LabelsFile(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(file.append, given))
    assert sorted(read_labels([path]), key=str) == sorted(given, key=str)
    assert len(path.read_text().splitlines()) == 40


def test_of_one_pair_the_latest_judgement_counts(tmp_path: Path) -> None:
    first, other = LabelsFile(tmp_path / "a.jsonl"), LabelsFile(tmp_path / "b.jsonl")
    later = label("q", "t", True, time="2031-01-01T00:00:00+00:00")
    first.append(later)
    other.append(label("q", "t", False))
    assert read_labels([first.path, other.path]) == [later] == read_labels([other.path, first.path])


def test_a_line_that_was_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"query": "q')
    LabelsFile(path).append(label("q", "t", True))
    assert json.loads(path.read_text().splitlines()[1])["track_id"] == "t"
    with pytest.raises(ManifestError, match=r"labels\.jsonl, line 1: not JSON .* delete the line"):
        read_labels([path])
    path.write_text('{"path": "a.wav", "work_id": "w"}\n')
    with pytest.raises(ManifestError, match=r"line 1: no label .* is it a labels file\?"):
        read_labels([path])
    with pytest.raises(OutputError, match="cannot be written"):
        LabelsFile(path / "below" / "labels.jsonl")


def test_one_work_spreads_over_what_was_judged_the_same() -> None:
    labels = [label("q", "a", True), label("q", "b", True), label("q", "c", False), label("r", "c", True)]
    assert works(labels, "q", "r") == {frozenset("qab"), frozenset("rc")}
    assert works(labels) == {frozenset("ab"), frozenset("c")}  # files of queries are not there
    assert labelled_tracks(labels, {}).missing == ["q", "r"]


def test_stored_works_keep_their_names_and_hold_their_tracks_together() -> None:
    labels = [label("q", "a", True, "greensleeves"), label("r", "b", True, "greensleeves"), label("r", "c", False)]
    assert works(labels, "q", "r") == {frozenset("qarb"), frozenset("c")}
    ids = {track.track_id: track.work_id for track in labelled_tracks(labels, {}).tracks}
    assert ids == {"a": "greensleeves", "b": "greensleeves", "c": "labelled-c"}


def test_contradictions_are_told_and_left_out() -> None:
    wrong = label("r", "a", False)
    labels = [label("q", "a", True), label("q", "b", True), label("r", "b", True), wrong, label("s", "d", True)]
    assert works(labels, "q", "r", "s") == {frozenset("sd")}
    assert labelled_tracks(labels, {}).contradictions == [wrong]


def test_a_query_that_is_a_stored_track_is_listed_once() -> None:
    labels = [label("q", "a", True), label("q", "b", True)]
    files = {labels[0].content_hash: Path("/m/a.wav")}
    assert [track.track_id for track in labelled_tracks(labels, files).tracks] == ["a", "b"]


def test_the_manifest_is_read_by_ingest_evaluate_and_training(folder: Path, tmp_path: Path) -> None:
    """a.wav and b.wav are one work with the query, c.wav is another."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    write_tone(inbox / "renamed since.wav", 9)
    digest = hashlib.sha256((inbox / "renamed since.wav").read_bytes()).hexdigest()
    uri, out = str(tmp_path / "catalogue.db"), tmp_path / "labelled.csv"
    with connected(uri) as client:
        collection = TrackCollection.open_or_create(client, "tracks", BandEmbedder())
        assert [record.status for record in ingest(tracks_in([folder]), BandEmbedder(), collection, workers=0)]
        file = LabelsFile(tmp_path / "labels.jsonl")
        for row in collection.rows_of(["a", "b", "c"]):
            judged = label("query.wav", row.track_id, row.track_id != "c")
            file.append(replace(judged, content_hash=digest, path=row.path))
        command = ["labels", str(file.path), "--queries", str(inbox), "--out", str(out)]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0 and done.stderr == f"{out} has 4 tracks of 2 works, by 3 judgements\n", done.output
        tracks = read_manifest(out)
        corpus = Corpus.of_manifest(tracks)
        assert sorted(len(of_work) for of_work in corpus.works.values()) == [3]  # a single track teaches nothing
        assert {record.status for record in ingest(tracks, BandEmbedder(), collection, workers=0)} <= {
            "added",
            "updated",
            "skipped",
        }
        evaluation = collection.fetch().only(tracks).evaluate()
        assert (evaluation.queries, evaluation.tracks, evaluation.works) == (3, 4, 2)


def test_labels_that_contradict_each_other_end_the_command_with_1(tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.jsonl")
    for judged in (label("q", "a", True), label("q", "b", True), label("r", "a", False), label("r", "b", True)):
        file.append(judged)
    done = CliRunner().invoke(main, ["labels", str(file.path), "--out", str(tmp_path / "m.csv")])
    assert done.exit_code == 1 and "r and a are not the same work" in done.stderr
    assert not (tmp_path / "m.csv").exists()
