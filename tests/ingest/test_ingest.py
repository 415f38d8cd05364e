"""Ingest of real files into Milvus Lite and a real server: what is stored, what is not done again, what fails."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import write_tone
from band_embedder import BandEmbedder, NoEmbedder
from numpy.typing import NDArray

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import CollectionMismatch, InputRefused
from bytecover2_milvus.ingest.pipeline import IngestRecord, ingest
from bytecover2_milvus.ingest.sqlite import Staging
from bytecover2_milvus.manifest import Track, read_manifest, tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import Row

REMEDY = "give each its own in the manifest, or delete that track first"


@pytest.fixture
def collection(scratch: TrackCollection) -> Iterator[TrackCollection]:
    yield scratch
    scratch.client.delete(scratch.name, filter='id != ""', timeout=30)


def run(
    tracks: list[Track], collection: TrackCollection | Staging, embedder: BandEmbedder | None = None
) -> dict[str, IngestRecord]:
    """Records by track_id; one for each."""
    records = list(ingest(tracks, embedder or BandEmbedder(), collection, workers=0, batch_size=3))
    assert len(records) == len(tracks)
    return {record.track_id: record for record in records}


def statuses(records: dict[str, IngestRecord]) -> dict[str, str]:
    return {track_id: record.status for track_id, record in records.items()}


def assert_stored(collection: TrackCollection, paths: dict[str, Path]) -> None:
    """There is one row per track_id, with the embedding of the file at that path."""
    stored = collection.fetch()
    assert sorted(stored.track_ids) == sorted(paths)
    for track_id, path, embedding in zip(stored.track_ids, stored.paths, stored.embeddings, strict=True):
        assert path == str(paths[track_id])
        np.testing.assert_allclose(embedding, BandEmbedder().embed(load_audio(path)), atol=1e-6)


def test_a_folder_is_added_once(collection: TrackCollection, folder: Path) -> None:
    records = run(tracks_in([folder]), collection)
    assert statuses(records) == dict.fromkeys("abcd", "added")
    assert records["a"] == IngestRecord(str(folder / "a.wav"), "a", "", "added", duration_s=1.5)
    paths = {letter: folder / f"{letter}.wav" for letter in "abcd"}
    assert_stored(collection, paths)
    (matches,) = collection.search(BandEmbedder().embed(load_audio(paths["c"])), limit=1)
    assert (matches[0].track_id, matches[0].title, matches[0].start_s, matches[0].end_s) == ("c", "c", 0.0, 1.5)

    # Size and time of modification tell: other bytes behind them are not even looked at.
    status = paths["b"].stat()
    paths["b"].write_bytes(bytes(status.st_size))
    os.utime(paths["b"], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert statuses(run(tracks_in([folder]), collection, NoEmbedder())) == dict.fromkeys("abcd", "skipped")


def test_worker_processes_do_the_same(collection: TrackCollection, folder: Path) -> None:
    (folder / "noise.wav").write_bytes(b"no audio at all")
    records = list(ingest(tracks_in([folder]), BandEmbedder(), collection, workers=2))
    assert {record.track_id: record.status for record in records} == dict.fromkeys("abcd", "added") | {
        "noise": "failed"
    }
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abcd"})


def test_a_touched_file_is_not_embedded_again(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    os.utime(folder / "a.wav", ns=(1, 1))
    assert statuses(run(tracks_in([folder]), collection, NoEmbedder())) == dict.fromkeys("abcd", "skipped")
    (row,) = collection.rows_of(["a"])
    assert row.mtime_ns == 1  # so the next run needs not read it


def test_a_changed_file_replaces_its_row(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    write_tone(folder / "b.wav", seed=50, duration_s=2.0)
    records = run(tracks_in([folder]), collection)
    assert statuses(records) == {"a": "skipped", "b": "updated", "c": "skipped", "d": "skipped"}
    assert (records["b"].reason, records["b"].duration_s) == ("the file changed", 2.0)
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abcd"})


def test_what_a_manifest_says_is_updated_without_audio(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    track = Track(folder / "a.wav", "a", work_id="w", title="A 'song'", artist="Trad.", metadata={"year": "1850"})
    records = run([track], collection, NoEmbedder())
    assert records["a"].reason == "artist, metadata, title, work_id changed"
    assert statuses(records) == {"a": "updated"}
    assert statuses(run([track], collection, NoEmbedder())) == {"a": "skipped"}
    # The folder knows no works, titles and artists, and takes none away, even when the file has changed.
    assert statuses(run(tracks_in([folder]), collection, NoEmbedder())) == dict.fromkeys("abcd", "skipped")
    write_tone(folder / "a.wav", seed=51)
    assert run(tracks_in([folder]), collection)["a"].work_id == "w"
    (row,) = collection.rows_of(["a"])
    assert (row.work_id, row.title, row.artist, row.metadata) == ("w", "A 'song'", "Trad.", {"year": "1850"})
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abcd"})
    # What does not fit leaves the row as it is.
    records = run(
        [Track(folder / "a.wav", "a", title="x" * 5000), Track(folder / "b.wav", "b", work_id="v")], collection
    )
    assert statuses(records) == {"a": "failed", "b": "updated"}
    assert collection.rows_of(["a"]) == [row]


def test_moved_files_keep_their_embeddings(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    (folder / "a.wav").rename(folder / "e.wav")
    (folder / "b.wav").rename(folder / "swap")  # b and c change places
    (folder / "c.wav").rename(folder / "b.wav")
    (folder / "swap").rename(folder / "c.wav")
    os.utime(folder / "b.wav", ns=(2, 2))
    os.utime(folder / "c.wav", ns=(3, 3))
    records = run(tracks_in([folder]), collection, NoEmbedder())
    assert statuses(records) == {"b": "updated", "c": "updated", "d": "skipped", "e": "updated"}
    assert records["e"].reason == f"was track a at {folder / 'a.wav'}"
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "bcde"})
    assert set(statuses(run(tracks_in([folder]), collection, NoEmbedder())).values()) == {"skipped"}


def test_the_same_file_under_two_names_is_one_row(collection: TrackCollection, folder: Path) -> None:
    (folder / "z.wav").write_bytes((folder / "a.wav").read_bytes())
    for status in ("added", "skipped"):
        records = run(tracks_in([folder]), collection)
        assert statuses(records) == dict.fromkeys("abcd", status) | {"z": "skipped"}
        assert records["z"].reason == f"same content as {folder / 'a.wav'}"
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abcd"})
    # A copy does not take the row from a file that was only touched.
    os.utime(folder / "a.wav", ns=(1, 1))
    assert statuses(run(tracks_in([folder / "z.wav", folder / "a.wav"]), collection, NoEmbedder())) == {
        "z": "skipped",
        "a": "skipped",
    }
    # A stored track that becomes a copy of another one has no audio of its own any more.
    (folder / "d.wav").write_bytes((folder / "c.wav").read_bytes())
    assert run(tracks_in([folder]), collection, NoEmbedder())["d"].reason == f"same content as {folder / 'c.wav'}"
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abc"})


def test_a_track_id_belongs_to_one_file(collection: TrackCollection, folder: Path) -> None:
    tracks = [Track(folder / "a.wav", "x"), Track(folder / "b.wav", "x"), Track(folder / "a.wav", "x")]
    records = list(ingest(tracks, BandEmbedder(), collection, workers=0))
    assert {(record.status, record.reason) for record in records} == {
        ("added", ""),
        ("failed", f"{folder / 'b.wav'}: track_id 'x' is already that of {folder / 'a.wav'}; {REMEDY}"),
        ("skipped", "listed twice"),
    }
    assert_stored(collection, {"x": folder / "a.wav"})


def test_files_of_one_name_in_two_folders_are_two_tracks(collection: TrackCollection, tmp_path: Path) -> None:
    for number, album in enumerate(("first", "second")):
        (tmp_path / album).mkdir()
        for letter in "ab":
            write_tone(tmp_path / album / f"{letter}.wav", 2 * number + (letter == "b"))
    first, second = ([tmp_path / album / f"{letter}.wav" for letter in "ab"] for album in ("first", "second"))
    stored = {"a": first[0], "b": first[1], str(second[0]): second[0], str(second[1]): second[1]}
    assert set(statuses(run(tracks_in([tmp_path / "first"]), collection))) == {"a", "b"}
    assert statuses(run(tracks_in([tmp_path / "second"]), collection)) == dict.fromkeys(map(str, second), "added")
    # Whichever way they are listed, they are what they are stored as.
    for paths in ([tmp_path], [tmp_path / "second"], [second[0], first[1]], [tmp_path / "second", tmp_path / "first"]):
        records = run(tracks_in(paths), collection, NoEmbedder())
        assert set(statuses(records).values()) == {"skipped"} and records.keys() <= stored.keys()
    assert_stored(collection, stored)
    # Names that are written go before those that are stored, and stay.
    renamed = run([Track(second[0], "live", "work")], collection, NoEmbedder())
    assert renamed["live"].reason == f"was track {second[0]} at {second[0]}"
    assert statuses(run(tracks_in([tmp_path / "second"]), collection, NoEmbedder()))["live"] == "skipped"
    # A name whose file is gone is free for another one.
    first[0].unlink()
    (tmp_path / "third").mkdir()
    third = write_tone(tmp_path / "third" / "a.wav", 7)
    assert statuses(run(tracks_in([third]), collection)) == {"a": "updated"}


def test_names_that_clash_in_one_run_with_a_written_one(collection: TrackCollection, folder: Path) -> None:
    tracks = [Track(folder / "a.wav", "b"), *tracks_in([folder / "b.wav"])]
    assert statuses(run(tracks, collection)) == {"b": "added", str(folder / "b.wav"): "added"}
    both = [Track(folder / "a.wav", "named"), *tracks_in([folder / "a.wav"])]  # by a manifest and by its folder
    records = list(ingest(both, NoEmbedder(), collection, workers=0))
    assert [(record.track_id, record.status) for record in records] == [("b", "skipped"), ("named", "updated")]


def test_a_label_that_is_not_stored_is_warned_of(collection: TrackCollection, folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copy(folder / "a.wav", tmp_path / "again.wav"))
    tracks = [Track(folder / "a.wav", "a", "w1"), Track(again, "again", "w2"), Track(folder / "a.wav", "third", "w3")]
    for _ in range(2):  # in one run, then against what is stored
        warnings = {name: record.warning for name, record in run(tracks, collection).items()}
        assert warnings == {
            "a": "",
            "again": f"{again}: the same recording as {folder / 'a.wav'}, with work_id 'w1'; 'w2' is not stored, "
            "so say which is right",
            "third": f"{folder / 'a.wav'}: listed before, with work_id 'w1'; 'w3' is not stored, so say which is right",
        }
    assert [record.warning for record in run([Track(again, "again", "w1")], collection).values()] == [""]


def test_a_manifest_takes_a_work_back_and_a_folder_does_not(collection: TrackCollection, folder: Path) -> None:
    path = folder / "a.wav"
    for work_id, known in (("w", "w"), (None, "w"), ("", ""), (None, "")):
        (record,) = run([Track(path, "a", work_id)], collection).values()
        assert record.work_id == known
        assert [row.work_id for row in collection.rows_of(["a"])] == [known]


def test_what_is_slow_to_come_is_stored_before_a_batch_is_full(
    collection: TrackCollection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bytecover2_milvus.ingest.batch.STORE_AFTER_S", 0.0)
    records = ingest(tracks_in([folder]), BandEmbedder(), collection, workers=0)
    for n_rows, _ in enumerate(records, start=1):
        assert collection.count() == n_rows


def test_a_file_that_is_listed_twice_stays_the_first_track(collection: TrackCollection, folder: Path) -> None:
    for status in ("added", "skipped"):
        records = run([Track(folder / "a.wav", "x"), Track(folder / "a.wav", "y")], collection)
        assert statuses(records) == {"x": status, "y": "skipped"}
        assert records["y"].reason == "listed already as track x"
    assert_stored(collection, {"x": folder / "a.wav"})


def test_bad_files_fail_and_the_rest_goes_on(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder / "d.wav"]), collection)
    (folder / "d.wav").write_bytes(b"RIFF, but damaged")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "silent.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    write_tone(folder / "short.wav", 3, duration_s=0.2)
    write_tone(folder / "cut.flac", 4, duration_s=20.0)
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:-200_000])
    tracks = [
        *tracks_in([folder]),
        Track(folder / "missing.wav", "missing"),
        Track(write_tone(folder / "long.wav", 5), "long", title="x" * 5000),
        Track(write_tone(folder / "named.wav", 6), "not UTF-8 \udcff"),
    ]
    records = run(tracks, collection)
    failed = {track_id: record.reason for track_id, record in records.items() if record.status == "failed"}
    assert set(failed) == {"d", "empty", "silent", "short", "missing", "long", "not UTF-8 \udcff"}
    for track_id in ("d", "empty", "silent", "short", "missing"):
        assert str(folder / f"{track_id}.wav") in failed[track_id]
    assert "title has 5000 bytes; at most 4096 fit" in failed["long"]
    assert "not valid UTF-8" in failed["not UTF-8 \udcff"]
    assert not any("\n" in reason for reason in failed.values())
    assert "cut off or damaged" in records["cut"].warning and records["cut"].status == "added"
    # What is stored of a track stays when its file turns bad.
    assert sorted(collection.fetch().track_ids) == ["a", "b", "c", "cut", "d"]


ODD = {  # of a track: what neither Milvus nor orjson can hold
    "title": {"title": 5},
    "work": {"work_id": "\ud800"},
    "number": {"metadata": {"x": [{"y": 2**70}]}},
    "nan": {"metadata": {"x": float("nan")}},
    "key": {"metadata": {1: "x"}},
    "set": {"metadata": {"x": {1, 2}}},
    "none": {"metadata": None},
    "long": {"metadata": {"x": "y" * 70_000}},
}


def test_what_cannot_be_stored_of_a_track_fails_that_track(collection: TrackCollection, folder: Path) -> None:
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    odd = ODD | {"deep": {"metadata": {"x": deep}}}
    tracks = [
        *(
            Track(write_tone(folder / f"{name}.wav", seed), name, **facts)
            for seed, (name, facts) in enumerate(odd.items())
        ),
        Track(folder / "a.wav", 7),
        Track(Path("nul\0.wav"), "nul"),
        Track(folder, "folder"),
        Track(folder / ("x" * 300 + ".wav"), "name"),
        *tracks_in([folder / f"{letter}.wav" for letter in "bcd"]),
    ]
    records = run(tracks, collection, AddingEmbedder())
    assert statuses(records) == dict.fromkeys([*odd, 7, "nul", "folder", "name"], "failed") | dict.fromkeys(
        "bcd", "added"
    )
    assert all(str(track.path) in records[track.track_id].reason for track in tracks[:-3])
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "bcd"})


class AddingEmbedder(BandEmbedder):
    """Fails where a file is embedded that cannot be stored."""

    n_left = 3

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        self.n_left -= 1
        assert self.n_left >= 0
        return super().embed(waveform)


class OddEmbedder(BandEmbedder):
    """Gives NaN for what is longer than two seconds."""

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().embed(waveform) * np.float32("nan" if len(waveform) > 2 * SAMPLE_RATE else 1)


def test_an_embedding_that_is_none_fails_its_track(collection: TrackCollection, folder: Path) -> None:
    write_tone(folder / "odd.wav", 8, duration_s=3)
    records = run(tracks_in([folder]), collection, OddEmbedder())
    assert statuses(records) == dict.fromkeys("abcd", "added") | {"odd": "failed"}
    assert records["odd"].reason == f"{folder / 'odd.wav'}: embedding of norm nan; a finite unit vector is needed"


class StrictStaging(Staging):
    """Takes less than ours do, as another Milvus may: nothing of a track called c, in a filter or in a row."""

    asks = True

    def rows_of(self, track_ids: Sequence[str]) -> list[Row]:
        if self.asks and "c" in track_ids:
            raise InputRefused("no c in a filter")
        return super().rows_of(track_ids)

    def upsert(self, rows: Sequence[Row], *features: Any) -> None:
        if any(row.track_id == "c" for row in rows):
            raise InputRefused("no c in a row")
        super().upsert(rows, *features)


@pytest.mark.parametrize("asks", [True, False])
def test_whatever_a_store_refuses_is_refused_alone(folder: Path, tmp_path: Path, asks: bool) -> None:
    with StrictStaging(tmp_path / "staging", BandEmbedder()) as staging:
        staging.asks = asks
        for status in ("added", "skipped"):
            records = run(tracks_in([folder]), staging)
            assert statuses(records) == dict.fromkeys("abd", status) | {"c": "failed"}
            assert records["c"].reason == f"{folder / 'c.wav'}: no c in a {'filter' if asks else 'row'}"
        assert staging.count() == 3


def test_a_clock_that_is_centuries_off(collection: TrackCollection, folder: Path) -> None:
    os.utime(folder / "b.wav", (13_569_465_600, 13_569_465_600))  # in 2400, beyond 64 bits of nanoseconds
    for status in ("added", "skipped"):
        assert statuses(run(tracks_in([folder]), collection)) == dict.fromkeys("abcd", status)


def test_damage_stays_with_the_row_until_the_file_is_whole(collection: TrackCollection, folder: Path) -> None:
    whole = (folder / "a.wav").read_bytes()
    (folder / "a.wav").write_bytes(whole[:-20_000])
    track = Track(folder / "a.wav", "a", metadata={"year": 1850})
    first = run([track], collection)["a"]
    assert first.status == "added" and "cut off or damaged" in first.warning
    os.utime(folder / "a.wav", ns=(1, 1))
    for _ in range(2):  # read once more, then not even looked into
        record = run([track], collection, NoEmbedder())["a"]
        assert (record.status, record.warning) == ("skipped", first.warning)
    shutil.copy(folder / "a.wav", folder / "z.wav")
    assert run([Track(folder / "z.wav", "z")], collection, NoEmbedder())["z"].warning == first.warning
    (row,) = collection.rows_of(["a"])
    assert (row.metadata, row.warning) == ({"year": 1850}, first.warning)
    assert collection.tracks_with('metadata["bytecover2.warning"] > ""') == ["a"]
    assert run([dataclasses.replace(track, title="T")], collection, NoEmbedder())["a"].warning == first.warning
    (folder / "a.wav").write_bytes(whole)
    assert [run([track], collection)["a"].warning for _ in range(2)] == ["", ""]
    assert collection.tracks_with('metadata["bytecover2.warning"] > ""') == []


def test_a_pipe_is_no_track(collection: TrackCollection, folder: Path) -> None:
    os.mkfifo(folder / "pipe.wav")  # which would keep whoever opens it waiting
    records = run(tracks_in([folder / "pipe.wav", folder / "a.wav", Path("/dev/zero")]), collection)
    assert sorted(statuses(records).values()) == ["added", "failed", "failed"]
    assert (
        records["pipe"].reason
        == f"{folder / 'pipe.wav'}: a pipe or a device, no regular file; write it to a file first"
    )


def test_nasty_names(collection: TrackCollection, tmp_path: Path) -> None:
    names = [
        "it's",
        'say "when"',
        "back\\slash",
        "two\nlines",
        "\x01\x08\t\v\x1b[2J\x7f\x85\x9b\u2028",
        "\\u001b\\",
        "Für Elise 🎹",
        "שיר",
        "[x] %_ {y}",
    ]
    paths = {name: write_tone(tmp_path / f"{name}.wav", seed) for seed, name in enumerate(names)}
    assert statuses(run(tracks_in([tmp_path]), collection)) == dict.fromkeys(names, "added")
    assert_stored(collection, paths)
    assert statuses(run(tracks_in([tmp_path]), collection, NoEmbedder())) == dict.fromkeys(names, "skipped")


def test_a_run_that_stopped_between_storing_and_deleting_is_repaired(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    (row,) = collection.rows_of(["a"])
    outdated = dataclasses.replace(row, content_hash="0" * 64, mtime_ns=1)
    collection.upsert([outdated], np.eye(1, 128, dtype=np.float32))
    assert statuses(run(tracks_in([folder]), collection, NoEmbedder()))["a"] == "skipped"
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in "abcd"})


def test_records_given_are_stored_when_the_run_is_abandoned(collection: TrackCollection, folder: Path) -> None:
    records = ingest(tracks_in([folder]), BandEmbedder(), collection, workers=1, batch_size=2)
    given = [next(records).track_id, next(records).track_id]
    records.close()
    assert_stored(collection, {letter: folder / f"{letter}.wav" for letter in given})
    rest = statuses(run(tracks_in([folder]), collection))
    assert rest == dict.fromkeys("abcd", "added") | dict.fromkeys(given, "skipped")


def test_another_models_collection_is_refused_at_once(collection: TrackCollection, folder: Path) -> None:
    other = BandEmbedder()
    other.model_id = "other"
    with pytest.raises(CollectionMismatch, match="holds embeddings of model bands, not of other"):
        ingest(tracks_in([folder]), other, collection)


def test_a_filter_compares_numbers_of_a_csv(collection: TrackCollection, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "years.csv").write_text(f"path,work_id,year\n{folder / 'a.wav'},,1850\n{folder / 'b.wav'},,1950\n")
    run(read_manifest(tmp_path / "years.csv"), collection)
    assert collection.tracks_with('metadata["year"] < 1900') == [str(folder / "a")]
