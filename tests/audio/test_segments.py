"""Tracks and queries in segments, on Milvus Lite and on a real server."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import soundfile
from audio_files import write_melody
from band_embedder import BandEmbedder
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from stored_rows import DIM, row, unit_vectors

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.audio.segments import Segments, times_s
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import Query, embed_query
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.ingest.parquet import ingest_vectors, write_vectors
from bytecover2_milvus.ingest.pipeline import IngestRecord, ingest
from bytecover2_milvus.ingest.vectors import Vectors
from bytecover2_milvus.manifest import Track, tracks_in
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import WHOLE_TRACKS, Row

SEGMENTS = Segments(4.0, 2.0)


class CountingEmbedder(BandEmbedder):
    """Counts what it embeds."""

    def __init__(self) -> None:
        self.n_embedded = 0

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        self.n_embedded += 1
        return super().embed(waveform)


@pytest.fixture
def collection(scratch: TrackCollection) -> Iterator[TrackCollection]:
    """An empty collection that cuts tracks into `SEGMENTS`."""
    scratch.set_segmentation(SEGMENTS)
    yield scratch
    scratch.client.delete(scratch.name, filter='id != ""', timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.wav and b.wav of 9 s, and short.wav, no longer than a segment."""
    write_melody(tmp_path / "a.wav", 0)
    write_melody(tmp_path / "b.wav", 1)
    write_melody(tmp_path / "short.wav", 2, duration_s=4.0)
    return tmp_path


def run(
    tracks: list[Track], collection: TrackCollection, embedder: BandEmbedder | None = None
) -> dict[str, IngestRecord]:
    records = list(ingest(tracks, embedder or BandEmbedder(), collection, workers=0, batch_size=2))
    assert len(records) == len(tracks)
    return {record.track_id: record for record in records}


def again(tracks: list[Track], collection: TrackCollection) -> tuple[set[tuple[str, str]], int]:
    """What a run says, and how many waveforms it embedded."""
    embedder = CountingEmbedder()
    records = run(tracks, collection, embedder)
    return {(record.status, record.reason) for record in records.values()}, embedder.n_embedded


def times(collection: TrackCollection, track_id: str) -> list[tuple[float, float]]:
    return sorted((stored.start_s, stored.end_s) for stored in collection.rows_of([track_id]))


def assert_stored(collection: TrackCollection, track_id: str, path: Path, expected: list[tuple[float, float]]) -> None:
    """The track has these rows, each with the embedding of its part of the file at `path`."""
    rows = collection.rows_of([track_id])
    assert sorted((stored.start_s, stored.end_s) for stored in rows) == sorted(expected)
    waveform = load_audio(path)
    embeddings = collection.embeddings_of([stored.id for stored in rows])
    for stored in rows:
        assert (stored.path, stored.duration_s) == (str(path), len(waveform) / SAMPLE_RATE)
        part = waveform[round(stored.start_s * SAMPLE_RATE) : round(stored.end_s * SAMPLE_RATE)]
        np.testing.assert_allclose(embeddings[stored.id], BandEmbedder().embed(part), atol=1e-6)


NINE = [(0.0, 9.0), (0.0, 4.0), (2.0, 6.0), (4.0, 8.0), (5.0, 9.0)]  # of 9 s, in segments of 4 s every 2 s


def test_segments_are_of_one_length_and_reach_the_end() -> None:
    def seconds(segments: Segments, duration_s: float) -> list[tuple[float, float]]:
        spans = segments.spans(round(duration_s * SAMPLE_RATE))
        return [(start / SAMPLE_RATE, stop / SAMPLE_RATE) for start, stop in spans]

    assert seconds(SEGMENTS, 9.0) == NINE
    assert seconds(SEGMENTS, 8.0) == [(0.0, 8.0), (0.0, 4.0), (2.0, 6.0), (4.0, 8.0)]
    assert seconds(SEGMENTS, 4.0) == [(0.0, 4.0)]  # as long as a segment: the whole is one
    assert seconds(Segments(), 100.0) == [(0.0, 100.0)]
    assert not Segments() and SEGMENTS


@pytest.mark.parametrize(
    ("length_s", "hop_s"), [(0.5, 0.5), (-1, -1), (60, 61), (60, 0), (60, -1), (0, 5), (np.nan, 1), (np.inf, 1)]
)
def test_cuts_that_are_none(length_s: float, hop_s: float) -> None:
    with pytest.raises(ConfigError, match=r"segments of|a hop of"):
        Segments(length_s, hop_s)


def test_no_two_segments_have_one_row_id() -> None:
    for extra in range(1, 60):  # samples
        spans = Segments(30.0, 15.0).spans(45 * SAMPLE_RATE + extra)
        assert spans[-1] == (15 * SAMPLE_RATE + extra, 45 * SAMPLE_RATE + extra)
        rows = [Row("x", "hash", 45.0, start_s, end_s) for start_s, end_s in map(times_s, spans)]
        assert len({row.id for row in rows}) == len(rows)


def test_a_query_of_several_embeddings_needs_no_times(collection: TrackCollection) -> None:
    assert collection.search([Query(unit_vectors(3, seed=1))]) == [[]]


def test_a_track_is_stored_whole_and_in_segments(collection: TrackCollection, folder: Path) -> None:
    assert {record.status for record in run(tracks_in([folder]), collection).values()} == {"added"}
    for name in "ab":
        assert_stored(collection, name, folder / f"{name}.wav", NINE)
    assert_stored(collection, "short", folder / "short.wav", [(0.0, 4.0)])
    assert again(tracks_in([folder]), collection) == ({("skipped", "")}, 0)
    described = collection.describe()
    assert (described["rows"], described["segments"]) == (11, 8)
    assert (described["segment_s"], described["hop_s"]) == (4.0, 2.0)
    # The collection remembers.
    assert TrackCollection.open(collection.client, collection.name).segments == SEGMENTS


def test_an_excerpt_finds_its_place(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    excerpt = load_audio(folder / "b.wav")[2 * SAMPLE_RATE : 6 * SAMPLE_RATE]
    (matches,) = collection.search([embed_query(excerpt, BandEmbedder(), SEGMENTS)], limit=3)
    best = matches[0]
    assert (best.track_id, best.start_s, best.end_s) == ("b", 2.0, 6.0)
    assert (best.query_start_s, best.query_end_s) == (0.0, 4.0)
    assert best.similarity == pytest.approx(1.0, abs=1e-5)
    assert [match.track_id for match in matches].count("b") == 1 and len(matches) == 3


def test_a_long_query_is_cut_too(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    a, b = (load_audio(folder / f"{name}.wav") for name in "ab")
    medley = np.concatenate([a[: 2 * SAMPLE_RATE], b[4 * SAMPLE_RATE : 8 * SAMPLE_RATE], a[: 2 * SAMPLE_RATE]])
    (matches,) = collection.search([embed_query(medley, BandEmbedder(), SEGMENTS)], limit=1)
    best = matches[0]
    assert (best.track_id, best.start_s, best.end_s, best.query_start_s, best.query_end_s) == ("b", 4.0, 8.0, 2.0, 6.0)
    assert best.similarity == pytest.approx(1.0, abs=1e-5)


def test_segments_are_found_as_by_brute_force(collection: TrackCollection) -> None:
    rng = np.random.default_rng(3)
    n_parts = rng.integers(1, 40, 60)  # of 60 tracks, 3 of each work
    rows, track = [], np.repeat(np.arange(60), n_parts)
    for number, parts in enumerate(n_parts):
        whole = row(number, duration_s=400.0, end_s=400.0, work_id=f"work-{number // 3}")
        rows += [whole, *(dataclasses.replace(whole, start_s=5.0 * i, end_s=5.0 * i + 10) for i in range(1, parts))]
    # All parts of a track are alike, so that a few tracks take all first places.
    vectors = unit_vectors(60, seed=1)[track] + 0.5 * unit_vectors(len(rows), seed=2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    collection.upsert(rows, vectors)
    queries = [Query(unit_vectors(n, seed=10 + n), [(float(i), i + 1.0) for i in range(n)]) for n in (1, 2, 7)] + [
        Query(vectors[-3:], [(0.0, 9.0), (1.0, 2.0), (2.0, 3.0)])
    ]
    works = [f"work-{number // 3}" for number in range(60)]
    for group_by, name_of in (("track", [f"track-{number}" for number in range(60)]), ("work", works)):
        for query, matches in zip(queries, collection.search(queries, limit=12, group_by=group_by), strict=True):
            pairs = query.embeddings @ vectors.T  # (n, n_rows)
            names = np.array(name_of)[track]
            closest = {name: pairs[:, names == name].max() for name in set(name_of)}
            expected = sorted(closest, key=closest.get, reverse=True)[:12]
            assert [getattr(match, f"{group_by}_id") for match in matches] == expected
            np.testing.assert_allclose([m.similarity for m in matches], [closest[name] for name in expected], atol=1e-5)
            for match in matches:
                here = [i for i, stored in enumerate(rows) if stored.track_id == match.track_id]
                part, where = np.unravel_index(pairs[:, here].argmax(), (len(pairs), len(here)))
                assert (match.start_s, match.end_s) == (rows[here[where]].start_s, rows[here[where]].end_s)
                assert (match.query_start_s, match.query_end_s) == query.times_s[part]


def test_a_track_behind_many_segments_of_another_is_not_missed(collection: TrackCollection) -> None:
    axes = np.eye(DIM, dtype=np.float32)

    def near(axis: int, similarity: float, other: int) -> NDArray[np.float32]:
        return similarity * axes[axis] + np.sqrt(1 - similarity**2) * axes[other]

    crowd = row(0, duration_s=900.0, end_s=900.0)
    rows = [
        crowd,
        *(dataclasses.replace(crowd, start_s=10.0 * i, end_s=10.0 * i + 20) for i in range(80)),
        row(1),
        row(2),
    ]
    vectors = [*(near(0, 0.9, 10 + i) for i in range(81)), near(0, 0.8, 2), near(1, 0.3, 3)]
    collection.upsert(rows, np.stack(vectors))
    query = Query(axes[:2], [(0.0, 10.0), (5.0, 10.0)])
    # The second embedding meets another track at once, the first one 81 segments of one track before the next track.
    for limit in (1, 2, 3):
        (matches,) = collection.search([query], limit=limit)
        found = [(match.track_id, round(match.similarity, 3)) for match in matches]
        assert found == [("track-0", 0.9), ("track-1", 0.8), ("track-2", 0.3)][:limit]


def test_an_embedding_alone_has_no_place(collection: TrackCollection) -> None:
    collection.upsert([row(0)], unit_vectors(1, seed=0))
    (matches,) = collection.search(unit_vectors(1, seed=0))
    assert (matches[0].query_start_s, matches[0].query_end_s) == (None, None)
    assert collection.search([]) == []


def test_other_segments_are_cut_anew_and_nothing_twice(collection: TrackCollection, folder: Path) -> None:
    tracks = tracks_in([folder])
    run(tracks, collection)
    collection.set_segmentation(Segments(4.0, 4.0))
    # Fewer are wanted and all of them are there: nothing is decoded.
    for name in "ab":
        status = (folder / f"{name}.wav").stat()
        (folder / f"{name}.wav").rename(folder / f"{name}.kept")
        (folder / f"{name}.wav").write_bytes(bytes(status.st_size))
        os.utime(folder / f"{name}.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert again(tracks, collection) == ({("updated", "segments changed"), ("skipped", "")}, 0)
    for name in "ab":
        (folder / f"{name}.kept").rename(folder / f"{name}.wav")
        assert_stored(collection, name, folder / f"{name}.wav", [(0.0, 9.0), (0.0, 4.0), (4.0, 8.0), (5.0, 9.0)])
    collection.set_segmentation(SEGMENTS)  # only what is missing is embedded
    assert again(tracks, collection) == ({("updated", "segments changed"), ("skipped", "")}, 2)
    assert_stored(collection, "a", folder / "a.wav", NINE)
    collection.set_segmentation(Segments(5.0, 5.0))  # the whole stays
    assert again(tracks, collection) == ({("updated", "segments changed"), ("skipped", "")}, 4)
    assert_stored(collection, "a", folder / "a.wav", [(0.0, 9.0), (0.0, 5.0), (4.0, 9.0)])
    assert again(tracks, collection) == ({("skipped", "")}, 0)
    collection.set_segmentation(Segments())
    assert again(tracks, collection) == ({("updated", "segments changed"), ("skipped", "")}, 0)
    assert collection.count() == 3


def test_a_changed_file_replaces_all_rows(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    write_melody(folder / "a.wav", 7, duration_s=6.0)
    (record,) = run(tracks_in([folder / "a.wav"]), collection).values()
    assert (record.status, record.reason, record.duration_s) == ("updated", "the file changed", 6.0)
    assert_stored(collection, "a", folder / "a.wav", [(0.0, 6.0), (0.0, 4.0), (2.0, 6.0)])
    assert_stored(collection, "b", folder / "b.wav", NINE)


def test_facts_and_names_change_in_all_rows_without_audio(collection: TrackCollection, folder: Path) -> None:
    run(tracks_in([folder]), collection)
    embedder = CountingEmbedder()
    track = Track(folder / "a.wav", "a", work_id="w", title="A song", metadata={"year": "1850"})
    (record,) = run([track], collection, embedder).values()
    assert (record.status, record.reason) == ("updated", "metadata, title, work_id changed")
    (folder / "b.wav").rename(folder / "c.wav")
    (record,) = run(tracks_in([folder / "c.wav"]), collection, embedder).values()
    assert (record.status, record.reason) == ("updated", f"was track b at {folder / 'b.wav'}")
    assert embedder.n_embedded == 0
    assert {(r.work_id, r.title, r.metadata["year"]) for r in collection.rows_of(["a"])} == {("w", "A song", "1850")}
    assert_stored(collection, "a", folder / "a.wav", NINE)
    assert_stored(collection, "c", folder / "c.wav", NINE)
    assert collection.count() == 11
    # A file under another name in a collection that cuts otherwise by now: nothing of it is left behind.
    collection.set_segmentation(Segments(5.0, 5.0))
    (folder / "c.wav").rename(folder / "d.wav")
    for _ in range(2):
        run(tracks_in([folder / "d.wav"]), collection)
    assert_stored(collection, "d", folder / "d.wav", [(0.0, 9.0), (0.0, 5.0), (4.0, 9.0)])
    assert collection.rows_of(["c"]) == []


def test_a_run_that_was_cut_off_in_mid_track_is_completed(collection: TrackCollection, folder: Path) -> None:
    track = Track(folder / "a.wav", "a", title="new")
    run([track], collection)
    rows = sorted(collection.rows_of(["a"]), key=lambda stored: stored.start_s - stored.end_s)
    embeddings = collection.embeddings_of([stored.id for stored in rows])
    for lost in (rows[0], rows[3]):  # the whole, then a segment
        collection.client.delete(collection.name, filter=f'id == "{lost.id}"', timeout=30)
        assert again([track], collection) == ({("updated", "segments changed")}, 1)
        assert_stored(collection, "a", folder / "a.wav", NINE)
    # Some rows were told of a new title, others not yet.
    old = [dataclasses.replace(stored, title="old", size=1) for stored in rows[2:]]
    collection.upsert(old, np.stack([embeddings[stored.id] for stored in old]))
    assert again([track], collection)[1] == 0
    assert {stored.title for stored in collection.rows_of(["a"])} == {"new"}
    assert again([track], collection) == ({("skipped", "")}, 0)


def test_silent_segments_are_left_out_once_and_for_all(collection: TrackCollection, tmp_path: Path) -> None:
    path = write_melody(tmp_path / "hidden.wav", 3, duration_s=14.0, silent=(3.9, 10.5))
    run(tracks_in([path]), collection)
    expected = [(0.0, 14.0), (0.0, 4.0), (2.0, 6.0), (8.0, 12.0), (10.0, 14.0)]
    assert_stored(collection, "hidden", path, expected)
    assert again(tracks_in([path]), collection) == ({("skipped", "")}, 0)
    query = embed_query(load_audio(path), BandEmbedder(), SEGMENTS)
    assert query.times_s == expected


def test_tracks_with_segments_are_exported_restored_and_deleted(
    collection: TrackCollection, client, name: str, folder: Path, tmp_path: Path
) -> None:
    run(tracks_in([folder]), collection)
    file = tmp_path / "rows.parquet"
    assert write_vectors(collection, file) == 11
    copy = TrackCollection.open_or_create(client, name, Vectors(file))
    assert {record.status for record in ingest_vectors(Vectors(file), copy)} == {"added"}
    assert copy.segments == SEGMENTS
    assert_stored(copy, "a", folder / "a.wav", NINE)
    assert again(tracks_in([folder]), copy) == ({("skipped", "")}, 0)
    assert copy.delete_tracks(["a"]) == 5
    assert sorted(set(copy.fetch().track_ids)) == ["b", "short"]
    assert TrackCollection.open(client, name).segments == SEGMENTS


def test_an_evaluation_is_what_queries_find(collection: TrackCollection, folder: Path) -> None:
    works = {"a": "v", "b": "w", "short": "w"}
    run([Track(folder / f"{name}.wav", name, work_id) for name, work_id in works.items()], collection)
    stored = collection.fetch()
    asking = stored.asking()
    for track_id, embedding in zip(stored.track_ids, asking, strict=True):
        waveform = load_audio(folder / f"{track_id}.wav")
        np.testing.assert_allclose(embedding, BandEmbedder().embed(waveform), atol=1e-6)
    result = evaluate(stored.embeddings, stored.work_ids, stored.track_ids, asking)
    assert (result.queries, result.tracks, result.works) == (2, 3, 2)
    whole = collection.fetch(WHOLE_TRACKS)
    assert sorted(whole.track_ids) == sorted(works) and whole.whole.all() and not stored.whole.all()
    assert np.array_equal(whole.asking(), whole.embeddings)
    assert collection.fetch("size < 0").asking().shape == (0, DIM)
    # What a query finds is what is evaluated.
    queries = [embed_query(load_audio(folder / f"{name}.wav"), BandEmbedder()) for name in ("b", "short")]
    (of_b,) = collection.search([queries[0]], exclude=["b"])
    (of_short,) = collection.search([queries[1]], exclude=["short"])
    ranks = [next(m.rank for m in matches if m.work_id == "w") for matches in (of_b, of_short)]
    assert result.first_ranks.tolist() == ranks


def test_segments_share_calls_of_the_session_and_are_what_each_is_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    embedder = Embedder(tiny_bundle, device="cpu", threads=1)
    shapes, session = [], embedder._session

    def counted(outputs: list[str], inputs: dict[str, NDArray[np.float32]], *_: object) -> list[NDArray[np.float32]]:
        shapes.extend(value.shape for value in inputs.values())
        return session.run(outputs, inputs)

    embedder._session = SimpleNamespace(run=counted)
    waveform = load_audio(write_melody(tmp_path / "x.wav", 5, duration_s=24.0))
    query = embed_query(waveform, embedder, Segments(6.0, 3.0))
    assert query.embeddings.shape == (8, DIM)
    assert sorted(shapes) == [(1, 24 * SAMPLE_RATE), (7, 6 * SAMPLE_RATE)]
    for embedding, (start_s, end_s) in zip(query.embeddings, query.times_s, strict=True):
        part = waveform[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        np.testing.assert_allclose(embedding, embedder.embed(part), atol=1e-6)


def lines(result: Result, schema: str) -> list[dict]:
    """The JSON lines on stdout, each valid against its schema."""
    form = json.loads(files("bytecover2_milvus.schemas").joinpath(f"{schema}.schema.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for line in rows:
        jsonschema.validate(line, form)
    return rows


def test_from_the_command_line(milvus_uri: str, tiny_bundle: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    works = ["v", "w", "w"]
    for seed in range(3):
        write_melody(music / f"{seed}.wav", seed, duration_s=12.0)
    (music / "m.csv").write_text("path,work_id\n" + "".join(f"{i}.wav,{work}\n" for i, work in enumerate(works)))
    excerpt = tmp_path / "excerpt.wav"
    soundfile.write(excerpt, load_audio(music / "1.wav")[3 * SAMPLE_RATE : 9 * SAMPLE_RATE], SAMPLE_RATE)
    name = f"test_{uuid.uuid4().hex}"
    options = ["--collection", name, "--bundle", str(tiny_bundle), "--device", "cpu"]

    def invoke(*words: object) -> Result:
        return CliRunner().invoke(main, [*map(str, words)], env={"BYTECOVER2_URI": milvus_uri})

    assert invoke("ingest", music, "--hop", 3, *options).exit_code == 2
    refused = invoke("ingest", music, "--segment", 6, "--hop", 9, *options)
    assert refused.exit_code == 2 and "a hop of 9 s: between 1 s and the 6 s of a segment" in refused.stderr
    assert invoke("ingest", "--vectors", tmp_path / "x.parquet", "--segment", 6, *options).exit_code == 2
    ingested = invoke("ingest", "--manifest", music / "m.csv", "--segment", 6, "--workers", 0, *options)
    assert ingested.exit_code == 0 and f"3 added; 12 rows in {name}" in ingested.stderr, ingested.output
    once_more = invoke("ingest", "--manifest", music / "m.csv", "--workers", 0, *options)
    assert f"3 skipped; 12 rows in {name}" in once_more.stderr
    (described,) = lines(invoke("collections", "describe", name, "--json"), "collection")
    assert (described["rows"], described["segments"], described["segment_s"], described["hop_s"]) == (12, 9, 6.0, 3.0)

    matches = lines(invoke("query", excerpt, music / "0.wav", "--json", *options), "match")
    assert len(matches) == 6 and [match["rank"] for match in matches] == [1, 2, 3] * 2
    assert {key: matches[0][key] for key in ("track_id", "start_s", "end_s", "query_start_s", "query_end_s")} == {
        "track_id": "1",
        "start_s": 3.0,
        "end_s": 9.0,
        "query_start_s": 0.0,
        "query_end_s": 6.0,
    }
    table = invoke("query", excerpt, "--limit", 1, *options).stdout
    assert "in the track" in table and "0:03-0:09" in table and "0:00-0:06" in table
    (whole,) = lines(invoke("query", music / "0.wav", "--limit", 1, "--json", *options), "match")
    assert (whole["query_start_s"], whole["query_end_s"]) == (0.0, 12.0)
    assert whole["similarity"] == pytest.approx(1, abs=1e-5)
    among_wholes = lines(invoke("query", excerpt, "--whole", "--json", *options), "match")
    assert [(match["start_s"], match["end_s"]) for match in among_wholes] == [(0.0, 12.0)] * 3
    medley = tmp_path / "medley.wav"
    parts = [load_audio(music / f"{number}.wav")[: 6 * SAMPLE_RATE] for number in (2, 0)]
    soundfile.write(medley, np.concatenate(parts), SAMPLE_RATE)
    found = lines(invoke("query", medley, "--segment", 6, "--hop", 6, "--json", *options), "match")
    assert {match["track_id"]: match["query_start_s"] for match in found[:2]} == {"2": 0.0, "0": 6.0}
    assert all(match["similarity"] > 0.999 for match in found[:2])
    for flag in ([], ["--whole"]):
        (score,) = lines(invoke("evaluate", "--collection", name, "--json", *flag), "evaluation")
        assert (score["queries"], score["tracks"], score["works"]) == (2, 3, 2)
    deleted = lines(invoke("collections", "delete-tracks", name, "1", "--yes", "--json"), "deletion")
    assert [(line["track_id"], line["rows"]) for line in deleted] == [("1", 4)]
    again = invoke("ingest", "--manifest", music / "m.csv", "--segment", 0, "--workers", 0, *options)
    assert f"1 added, 2 updated; 3 rows in {name}" in again.stderr
    assert invoke("collections", "drop", name, "--yes").exit_code == 0
