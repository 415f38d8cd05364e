"""Collections on Milvus Lite and on a real server; every expectation comes from NumPy or from the rows put in."""

from __future__ import annotations

import dataclasses
import itertools
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from stored_rows import DIM, EMBEDDINGS, ESCAPES, MODEL, NASTY, ROWS, a_model, row, unit_vectors

from bytecover2_milvus.errors import (
    CollectionError,
    CollectionLocked,
    CollectionMismatch,
    CollectionMissing,
    MilvusUnavailable,
)
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.milvus.alias import drop_collection, has_collection, list_collections
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect, connected, embedded_folder, is_embedded
from bytecover2_milvus.milvus.evaluate import StoredTracks
from bytecover2_milvus.milvus.filters import quote
from bytecover2_milvus.milvus.index import await_index
from bytecover2_milvus.milvus.properties import CONTRACT_VERSION, MODEL_ID
from bytecover2_milvus.milvus.schema import (
    BODY,
    FEATURES,
    MAX_BYTES,
    PARTS,
    STORED,
    WHOLE_TRACKS,
    Features,
    collection_schema,
)
from bytecover2_milvus.milvus.search import ranked


@pytest.fixture(scope="module")
def covers(client) -> Iterator[TrackCollection]:
    """Filled once, for tests that only read."""
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", MODEL)
    collection.upsert(ROWS, EMBEDDINGS)
    yield collection
    drop_collection(client, collection.name)


@pytest.fixture(scope="module")
def scratch(client) -> Iterator[TrackCollection]:
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", MODEL)
    yield collection
    drop_collection(client, collection.name)


@pytest.fixture
def empty(scratch: TrackCollection) -> Iterator[TrackCollection]:
    """Emptied after each test; a new one would take a server three seconds."""
    yield scratch
    scratch.client.delete(scratch.name, filter='id != ""', timeout=30)


def test_search_is_brute_force(covers: TrackCollection) -> None:
    queries = unit_vectors(20, seed=1)
    similarity = queries @ EMBEDDINGS.T  # (20, 300)
    for matches, row_of in zip(covers.search(queries, limit=10), similarity, strict=True):
        best = np.argsort(-row_of)[:10]
        assert [match.track_id for match in matches] == [f"track-{number}" for number in best]
        assert [match.rank for match in matches] == list(range(1, 11))
        np.testing.assert_allclose([match.similarity for match in matches], row_of[best], atol=1e-5)


def test_a_work_counts_by_its_closest_track(covers: TrackCollection) -> None:
    queries = unit_vectors(5, seed=2)
    similarity = queries @ EMBEDDINGS.T
    for matches, row_of in zip(covers.search(queries, limit=100, group_by="work"), similarity, strict=True):
        works = {f"work-{work}": row_of[5 * work : 5 * work + 5].max() for work in range(50)}
        alone = {f"track-{number}": row_of[number] for number in range(250, 300)}
        expected = sorted((works | alone).items(), key=lambda item: -item[1])
        assert [match.work_id or match.track_id for match in matches] == [key for key, _ in expected]
        assert len(matches) == 100  # all groups there are: every row had to be fetched to find the last


def test_a_stored_track_finds_itself_first(covers: TrackCollection) -> None:
    (matches,) = covers.search(EMBEDDINGS[7], limit=2)
    assert (matches[0].track_id, matches[0].path, matches[0].end_s) == ("track-7", "/music/7.flac", 200.0)
    assert matches[0].similarity == pytest.approx(1.0, abs=1e-6) and matches[0].similarity <= 1.0


def test_a_filter_and_excluded_tracks_narrow_the_search(covers: TrackCollection) -> None:
    (matches,) = covers.search(EMBEDDINGS[7], limit=10, filter="size < 6 or size == 7", exclude=["track-7", "track-0"])
    expected = np.argsort(-(EMBEDDINGS[7] @ EMBEDDINGS[1:6].T)) + 1
    assert [match.track_id for match in matches] == [f"track-{number}" for number in expected]


@pytest.mark.parametrize("filter", ["title = 'x'", "nope == 1", "size == 'x'"])
def test_a_bad_filter_is_reported_in_one_line(covers: TrackCollection, filter: str) -> None:
    with pytest.raises(CollectionError, match=rf"search in collection {covers.name}: .+") as error:
        covers.search(EMBEDDINGS[0], filter=filter)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("filter", ESCAPES)
def test_a_filter_cannot_get_around_what_it_is_joined_with(empty: TrackCollection, filter: str) -> None:
    empty.upsert(ROWS[:20], EMBEDDINGS[:20])
    for ask in (
        lambda: empty.search(EMBEDDINGS[7], limit=10, filter=filter, exclude=["track-7"]),
        lambda: empty.tracks_with(filter),
        lambda: empty.fetch(filter),
        lambda: empty.count(filter),
    ):
        with pytest.raises(CollectionError) as error:
            ask()
        assert "\n" not in str(error.value)


def test_brackets_and_quotes_in_texts_are_texts(empty: TrackCollection) -> None:
    texts = ["a) or (b", "[", "it's", 'say "when")', "{", "\\", "\\'"]
    empty.upsert([row(number, title=text) for number, text in enumerate(texts)], EMBEDDINGS[: len(texts)])
    for number, text in enumerate(texts):
        for filter in (f"title == {quote(text)}", f"(title in [{quote(text)}])"):
            assert empty.tracks_with(filter) == [f"track-{number}"]
            assert empty.count(filter) == 1
    assert empty.tracks_with("title == '\\') or size >= 0 or (title == '") == []  # one text, no bracket in it


def test_bad_queries_are_refused(covers: TrackCollection) -> None:
    with pytest.raises(CollectionError, match="between 1 and 16384"):
        covers.search(EMBEDDINGS[0], limit=0)
    with pytest.raises(CollectionError, match="choose track or work"):
        covers.search(EMBEDDINGS[0], group_by="album")
    with pytest.raises(CollectionError, match=r"shape \(1, 12\)"):
        covers.search(np.ones(12))
    with pytest.raises(CollectionError, match="finite"):
        covers.search(np.full(DIM, np.nan))


def test_equal_similarities_are_ordered_by_track() -> None:
    def hit(track_id: str, distance: float) -> dict:
        stored = dict.fromkeys(("work_id", "title", "artist", "path"), "") | {"track_id": track_id}
        return {"distance": distance, "entity": stored | {"start_s": 0.0, "end_s": 1.0, "duration_s": 1.0}}

    hits = [hit("b", 0.5), hit("c", 1.0000001), hit("a", 0.5)]
    for order in itertools.permutations(hits):
        matches = ranked(order, limit=3, group_by="track")
        assert [(match.rank, match.track_id, match.similarity) for match in matches] == [
            (1, "c", 1.0),
            (2, "a", 0.5),
            (3, "b", 0.5),
        ]


def test_fetch_gives_back_what_was_stored(covers: TrackCollection) -> None:
    stored = covers.fetch()
    order = np.argsort([int(track_id.removeprefix("track-")) for track_id in stored.track_ids])
    np.testing.assert_allclose(stored.embeddings[order], EMBEDDINGS, atol=1e-6)
    assert [stored.work_ids[i] for i in order] == [stored_row.work_id for stored_row in ROWS]
    assert [stored.paths[i] for i in order] == [stored_row.path for stored_row in ROWS]
    assert covers.fetch("size < 10").embeddings.shape == (10, DIM)
    assert covers.fetch("size < 0").embeddings.shape == (0, DIM)


def test_description(covers: TrackCollection, client) -> None:
    description = covers.describe()
    assert description == {
        "collection": covers.name,
        "aliases": [],
        "previous": None,
        "model_id": "a1b2",
        "contract_version": 1,
        "dim": DIM,
        "rows": 300,
        "chroma_id": None,
        "rows_with_chroma": 0,
        "segments": 0,
        "warnings": 0,
        "segment_s": 0.0,
        "hop_s": 0.0,
        "index_type": "FLAT" if is_embedded(client) else "HNSW",
        "index_state": "Finished",
        "indexed_rows": 0,
        "load_state": "Loaded",
        "memory_bytes": 0,
        "last_ingest": None,
    } | {name: description[name] for name in ("indexed_rows", "memory_bytes")}
    assert 0 <= description["indexed_rows"] <= 300
    vectors_bytes = 300 * 4 * (DIM if is_embedded(client) else DIM + 32)  # and 2 M = 32 links of HNSW
    assert vectors_bytes + 300 * 128 < description["memory_bytes"] < vectors_bytes + 300 * 400  # two hashes and more
    assert covers.name in list_collections(client)


def test_upsert_twice_is_once(empty: TrackCollection) -> None:
    rows, embeddings = ROWS[:20], EMBEDDINGS[:20]
    empty.upsert(rows, embeddings)
    empty.upsert(rows + rows[:5], np.concatenate([embeddings, embeddings[:5]]))
    assert empty.count() == 20
    assert empty.rows_of([]) == empty.rows_with([]) == [] and empty.delete_tracks([]) == 0
    assert {stored.track_id for stored in empty.rows_of([f"track-{i}" for i in range(30)])} == {
        stored.track_id for stored in rows
    }


def test_of_an_id_given_twice_the_last_counts(empty: TrackCollection) -> None:
    empty.upsert([row(1, title="first"), row(1, title="second")], EMBEDDINGS[:2])
    assert [stored.title for stored in empty.rows_of(["track-1"])] == ["second"]


def test_more_rows_than_a_server_answers_with_at_once(empty: TrackCollection, client) -> None:
    n_rows = 3_000 if is_embedded(client) else 17_000  # above 16384, a limit that Milvus Lite does not have
    rows = [row(number, size=number) for number in range(n_rows)]
    embeddings = np.tile(unit_vectors(1_000, seed=3), (n_rows // 1_000, 1))
    empty.upsert(rows, embeddings)
    stored = empty.fetch()
    assert len(set(stored.track_ids)) == len(stored.track_ids) == n_rows

    # Few rows pass, or are left: an approximate index that is not finished finds a tenth of them.
    (matches,) = empty.search(embeddings[3], limit=10, filter="size < 10")
    assert [match.track_id for match in matches] == [
        f"track-{number}" for number in np.argsort(-(embeddings[:10] @ embeddings[3]))
    ]
    assert empty.delete_tracks([stored_row.track_id for stored_row in rows[500:]]) == n_rows - 500
    assert empty.count() == 500
    (matches,) = empty.search(embeddings[3], limit=500)
    assert len(matches) == 500


def test_nasty_texts_are_stored_found_and_deleted(empty: TrackCollection) -> None:
    rows = [
        row(number, track_id=text, work_id=text, title=text, artist=text, path=f"/{text}", metadata={text: [text, 1.5]})
        for number, text in enumerate(NASTY)
    ]
    empty.upsert(rows, EMBEDDINGS[: len(rows)])
    for number, text in enumerate(NASTY):
        assert empty.rows_of([text]) == [rows[number]]
        (matches,) = empty.search(EMBEDDINGS[number], limit=1, filter=f"title == {quote(text)}")
        assert [(match.track_id, match.path) for match in matches] == [(text, f"/{text}")]
        (others,) = empty.search(EMBEDDINGS[number], limit=20, exclude=[text])
        assert {match.track_id for match in others} == set(NASTY) - {text}
    assert empty.delete_tracks(NASTY[:5], keep=[rows[5].id]) == 5
    assert empty.delete_tracks(NASTY[5:], keep=[row.id for row in rows]) == 0
    assert {stored.track_id for stored in empty.rows_of(NASTY)} == set(NASTY[5:])


def test_segments_are_reduced_to_tracks(empty: TrackCollection) -> None:
    whole = [row(number) for number in range(3)]
    halves = [
        dataclasses.replace(stored, start_s=start, end_s=start + 100.0) for stored in whole for start in (0.0, 100.0)
    ]
    embeddings = EMBEDDINGS[: len(whole) + len(halves)]
    empty.upsert(whole + halves, embeddings)
    assert empty.count() == 9 and empty.describe()["segments"] == 6
    assert empty.rows_per_track(["track-1", "track-2", "none"]) == {"track-1": 3, "track-2": 3}
    second_half_of_track_1 = len(whole) + 3
    (matches,) = empty.search(embeddings[second_half_of_track_1], limit=3)
    assert (matches[0].track_id, matches[0].start_s, matches[0].end_s) == ("track-1", 100.0, 200.0)
    assert {match.track_id for match in matches} == {"track-0", "track-1", "track-2"}


def test_whole_tracks_are_the_same_to_rows_filters_and_fetches(empty: TrackCollection) -> None:
    spans = [(0.0, 200.0), (0.0, 199.0), (1.0, 200.0), (0.0, 201.0), (0.1 + 0.2, 0.7)]
    rows = [dataclasses.replace(row(number), start_s=start, end_s=end) for number, (start, end) in enumerate(spans)]
    rows.append(dataclasses.replace(row(len(spans)), end_s=0.1 + 0.2, duration_s=0.1 + 0.2))  # to the last bit
    empty.upsert(rows, EMBEDDINGS[: len(rows)])
    whole = {stored.track_id for stored in rows if stored.is_whole}
    assert whole == {"track-0", "track-5"}
    assert set(empty.tracks_with(WHOLE_TRACKS)) == whole
    assert set(empty.tracks_with(PARTS)) == {stored.track_id for stored in rows} - whole
    fetched = empty.fetch()
    assert {name for name, is_whole in zip(fetched.track_ids, fetched.whole, strict=True) if is_whole} == whole


def test_rows_that_milvus_lite_would_wrongly_take_are_refused(empty: TrackCollection) -> None:
    good, nan, zero = EMBEDDINGS[0], EMBEDDINGS[0].copy(), np.zeros(DIM, np.float32)
    nan[3] = np.nan
    refused = [
        (row(1), nan, "norm nan"),
        (row(1), zero, "norm 0"),
        (row(1), 2 * good, "norm 2"),
        (row(1), good[:64], r"shape \(64,\); the collection holds \(128,\)"),
        (row(1, title="ä" * 3000), good, "title has 6000 bytes; at most 4096 fit"),
        (row(1, path="/a\udcff.wav"), good, "path is not valid UTF-8"),
        (row(1, content_hash="abc"), good, "content_hash 'abc' is not SHA-256"),
        (row(1, metadata={"loudness": float("nan")}), good, "metadata is not JSON"),
        (row(1, metadata={"notes": "x" * MAX_BYTES["metadata"]}), good, "metadata has"),
    ]
    for bad, embedding, reason in refused:
        with pytest.raises(CollectionError, match=reason):
            empty.upsert([row(2), bad], np.stack([good[: len(embedding)], embedding]))
    assert empty.count() == 0


def test_what_describes_a_collection_outlives_the_note_of_an_ingest(empty: TrackCollection, client) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    alias = f"{empty.name}_live"
    client.create_alias(empty.name, alias, timeout=10)
    try:
        TrackCollection.open(client, alias).note_ingest()
    finally:
        client.drop_alias(alias, timeout=10)
    noted = TrackCollection.open(client, empty.name, "a1b2").describe()["last_ingest"]
    assert before <= datetime.fromisoformat(noted) <= datetime.now(UTC)


def test_deleting_touches_one_collection(empty: TrackCollection, covers: TrackCollection) -> None:
    empty.upsert(ROWS[:5], EMBEDDINGS[:5])
    assert sorted(empty.tracks_with("size >= 0")) == [f"track-{number}" for number in range(5)]
    assert empty.delete_tracks(empty.tracks_with("size >= 0")) == 5
    assert (empty.count(), covers.count()) == (0, 300)


def test_another_models_collection_is_refused(covers: TrackCollection, client) -> None:
    other = a_model("c3d4")
    with pytest.raises(CollectionMismatch, match=f"{covers.name}: holds embeddings of model a1b2, not of c3d4"):
        TrackCollection.open(client, covers.name, other.model_id)
    with pytest.raises(CollectionMismatch, match="not of c3d4"):
        TrackCollection.open_or_create(client, covers.name, other)
    assert TrackCollection.open(client, covers.name).model_id == "a1b2"
    assert TrackCollection.open_or_create(client, covers.name, MODEL).count() == 300


def test_missing_foreign_and_badly_named_collections(client, name: str) -> None:
    with pytest.raises(CollectionMissing, match=name):
        TrackCollection.open(client, name)
    with pytest.raises(CollectionError, match="only letters, digits and _"):
        TrackCollection.open(client, "bad-name")
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    client.create_collection(name, schema=schema, timeout=30)
    for refused in (TrackCollection.open, drop_collection):
        with pytest.raises(CollectionMismatch, match=r"not a collection of bytecover2-milvus, it lacks artist"):
            refused(client, name)
    assert name not in list_collections(client)


def test_a_name_that_is_too_long_is_called_that(client) -> None:
    with pytest.raises(CollectionError, match=r"a name of 256 letters is too long; 255 at most"):
        TrackCollection.open(client, "a" * 256)
    with pytest.raises(
        CollectionError, match=r"^a+\.\.\.: a name of 243 letters is too long; 235 at most, as 20 of the"
    ):
        TrackCollection.open_or_create(client, "a" * 243, MODEL)
    with pytest.raises(CollectionMissing):
        TrackCollection.open(client, "a" * 255)


def test_who_asks_for_what_is_not_there_is_told_what_is(client, name: str) -> None:
    TrackCollection.open_or_create(client, name, MODEL)
    TrackCollection.create(client, f"{name}_by_hand", MODEL)
    with pytest.raises(
        CollectionMissing, match=r"_gone: no collection of that name; there are .*; ingest makes another"
    ) as told:
        TrackCollection.open(client, f"{name}_gone")
    there = str(told.value).partition("there are ")[2].partition(";")[0].split(", ")
    assert {name, f"{name}_by_hand"} <= set(there) and f"{name}_a1b2" not in there


def test_writers_that_start_together_get_one_collection(client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TrackCollection.open_or_create(client, name, MODEL)
    asked: list[str] = []

    def not_yet(client: object, wanted: str) -> bool:
        """As another writer saw it before the first one was done."""
        asked.append(wanted)
        return len(asked) > 3 and has_collection(client, wanted)

    monkeypatch.setattr("bytecover2_milvus.milvus.collection.has_collection", not_yet)
    assert TrackCollection.open_or_create(client, name, MODEL).name == first.name
    # Lite refuses the second creation, which is then found to be done; a server takes the same one twice.
    assert asked[:3] == [name, first.name, first.name]


def test_an_alias_is_a_name(covers: TrackCollection, client) -> None:
    alias = f"{covers.name}_live"
    client.create_alias(covers.name, alias, timeout=10)
    try:
        assert TrackCollection.open(client, alias, "a1b2").search(EMBEDDINGS[3], limit=1)[0][0].track_id == "track-3"
    finally:
        client.drop_alias(alias, timeout=10)


def test_rows_that_were_just_flushed_are_waited_for(client, name: str) -> None:
    """A server of 2.3 says at once that it has finished, with none of them in the index."""
    collection = TrackCollection.create(client, name, MODEL)
    for _ in range(2):  # the second time the rows are replaced: the flushed ones are twice as many
        collection.upsert(
            [dataclasses.replace(ROWS[0], content_hash=f"{number:064x}") for number in range(2_500)],
            np.repeat(EMBEDDINGS[:1], 2_500, axis=0),
        )
    collection.flush()
    await_index(client, name)
    assert collection.describe()["indexed_rows"] == 2_500


def test_a_database_holds_collections_of_its_own(client, milvus_uri: str, name: str) -> None:
    client.create_database(name, timeout=30)
    inside = connect(milvus_uri, database=name)
    try:
        TrackCollection.create(inside, "covers", MODEL).upsert(ROWS[:3], EMBEDDINGS[:3])
        assert list_collections(inside) == ["covers"] and "covers" not in list_collections(client)
        drop_collection(inside, "covers")
    finally:
        close(inside)
        client.drop_database(name, timeout=30)
    with pytest.raises(CollectionError, match=f"list_collections: .*{name}"):
        list_collections(connect(milvus_uri, database=name))


def test_a_create_that_was_cut_off_is_completed(client, name: str) -> None:
    properties = {MODEL_ID: "a1b2", CONTRACT_VERSION: "1"}
    client.create_collection(name, schema=collection_schema(DIM), properties=properties, timeout=30)  # but no index
    assert TrackCollection.open(client, name, "a1b2").search(EMBEDDINGS[0]) == [[]]


def test_a_collection_made_from_the_schema_alone_is_adopted_while_it_is_empty(client, name: str) -> None:
    client.create_collection(name, schema=collection_schema(DIM), timeout=30)
    wide = a_model("wide", 1536)
    for model in (None, wide):
        with pytest.raises(CollectionMismatch, match=r"it lacks the property bytecover2.model_id"):
            TrackCollection.open(client, name) if model is None else TrackCollection.open_or_create(client, name, wide)
    adopted = TrackCollection.open_or_create(client, name, MODEL)
    adopted.upsert(ROWS[:3], EMBEDDINGS[:3])
    assert TrackCollection.open(client, name, "a1b2").count() == 3
    with pytest.raises(CollectionMismatch, match="not of c3d4"):
        TrackCollection.open_or_create(client, name, a_model("c3d4"))


def test_rows_of_no_known_model_are_not_adopted(client, name: str) -> None:
    client.create_collection(name, schema=collection_schema(DIM), timeout=30)
    client.insert(name, [ROWS[0].entity(Features(EMBEDDINGS[0]))], timeout=30)
    with pytest.raises(CollectionMismatch, match=r"it lacks the property bytecover2.model_id"):
        TrackCollection.open_or_create(client, name, MODEL)


def test_a_wide_collection_from_creation_to_drop(client, name: str) -> None:
    collection = TrackCollection.create(client, name, a_model("wide", 1536))
    with pytest.raises(CollectionError, match="exists already"):
        TrackCollection.create(client, name, MODEL)
    embedding = np.full(1536, 1536**-0.5, np.float32)
    collection.upsert([row(1)], embedding[None])
    assert collection.search(embedding, limit=1)[0][0].track_id == "track-1"
    assert collection.rows_with([row(1).id, row(2).id]) == [row(1)]
    np.testing.assert_allclose(collection.embeddings_of([row(1).id])[row(1).id], embedding, atol=1e-7)
    drop_collection(client, name)
    for lost in (collection.count, lambda: collection.upsert([row(1)], embedding[None])):
        with pytest.raises(CollectionMissing, match=name):
            lost()
    with pytest.raises(CollectionMissing, match=name):
        drop_collection(client, name)


IN_ANOTHER_PROCESS = """
import sys
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.milvus.connection import connect
try:
    collection = TrackCollection.open(connect(sys.argv[1]), sys.argv[2], "a1b2")
    print(collection.count(), collection.search(collection.fetch("track_id == 'track-5'").embeddings, 1)[0][0].track_id)
except BytecoverError as error:
    print(type(error).__name__, error)
"""


def in_another_process(uri: str, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, uri, name], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_another_process_reads_what_this_one_stored(covers: TrackCollection, client, milvus_uri: str) -> None:
    if is_embedded(client):  # a folder is one process's at a time
        assert in_another_process(milvus_uri, covers.name).startswith(f"CollectionLocked {milvus_uri}")
    else:
        assert in_another_process(milvus_uri, covers.name) == "300 track-5"


def test_a_folder_goes_from_process_to_process(tmp_path: Path) -> None:
    uri = str(tmp_path / "a folder.db")
    client = connect(uri)
    collection = TrackCollection.create(client, "covers", MODEL)
    collection.upsert(ROWS[:50], EMBEDDINGS[:50])
    assert in_another_process(uri, "covers").startswith(f"CollectionLocked {uri}: open in another process")
    second = connect(uri)
    close(client)
    assert TrackCollection.open(second, "covers").count() == 50  # closing one client leaves the other its Milvus
    close(second)
    assert in_another_process(uri, "covers") == "50 track-5"
    assert in_another_process(uri, "covers") == "50 track-5"
    again = connect(tmp_path / "a folder.db")
    assert TrackCollection.open(again, "covers").count() == 50
    assert embedded_folder(again) == tmp_path / "a folder.db"
    close(again)


@pytest.mark.parametrize("before", [True, False])
def test_a_client_from_elsewhere_keeps_its_milvus(tmp_path: Path, before: bool) -> None:
    uri = str(tmp_path / "shared.db")
    own = MilvusClient(uri) if before else None
    with connected(uri) as client:
        own = own or MilvusClient(uri)
        TrackCollection.create(client, "covers", MODEL)
    assert own.list_collections(timeout=10) == ["covers"]
    own.close()
    with connected(uri) as client:
        assert list_collections(client) == ["covers"]


def test_a_certificate_needs_an_encrypted_connection(tmp_path: Path) -> None:
    with pytest.raises(MilvusUnavailable, match=r"http://localhost:1: nothing is encrypted at http://.*; use https://"):
        connect("http://localhost:1", server_pem=tmp_path / "any.pem")


def test_a_half_written_index_file_is_built_again(tmp_path: Path) -> None:
    uri = str(tmp_path / "milvus.db")
    client = connect(uri)
    collection = TrackCollection.create(client, "covers", MODEL)
    collection.upsert(ROWS, EMBEDDINGS)
    collection.flush()
    close(client)
    (index_file,) = Path(uri).glob("**/*.idx")
    index_file.write_bytes(index_file.read_bytes()[:1000])
    client = connect(uri)
    assert TrackCollection.open(client, "covers").search(EMBEDDINGS[9], limit=1)[0][0].track_id == "track-9"
    close(client)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:1", "nothing listens on port 1"),
        ("http://no-such-host.invalid:19530", "the host name no-such-host.invalid is not known"),
        ("http://user:secret@127.0.0.1:1", r"^http://127.0.0.1:1: "),
        ("ftp://127.0.0.1", "not an address like http://host:19530"),
        ("http://127.0.0.1:99999", "not an address like"),
        ("covers", "neither a server's address .* nor an embedded folder, whose name ends in .db"),
    ],
)
def test_an_address_without_milvus_fails_in_seconds(uri: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(MilvusUnavailable, match=reason) as error:
        connect(uri)
    assert time.monotonic() - started < 10
    assert "secret" not in str(error.value)


def test_a_port_that_stays_silent_fails_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(MilvusUnavailable, match=f"port {port} is open, but no Milvus answers"):
            connect(f"http://127.0.0.1:{port}", timeout_s=1.0)


def test_folders_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="the folder above it does not exist"):
        connect(tmp_path / "missing" / "milvus.db")
    (tmp_path / "file.db").write_bytes(b"SQLite format 3")
    with pytest.raises(CollectionError, match="a file, not a folder"):
        connect(tmp_path / "file.db")
    with pytest.raises(CollectionError, match=r"cannot be opened \(.+\)") as error:
        connect(f"/proc/{tmp_path.name}.db")  # no one may write there, not even root
    assert not isinstance(error.value, CollectionLocked)


def test_milvus_lite_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "milvus_lite.exceptions", raising=False)
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MilvusUnavailable, match=r'milvus_lite\S* is not installed: pip install "milvus-lite'):
        connect(tmp_path / "milvus.db")


def test_the_schema_is_a_body_of_milvus_rest_api() -> None:
    assert {"collectionName", "schema", "indexParams"} <= set(BODY)
    for field in BODY["schema"]["fields"]:
        assert {"fieldName", "dataType", "elementTypeParams"} <= set(field)
    stored = {*STORED, *FEATURES, "id"}
    assert [field["fieldName"] for field in BODY["schema"]["fields"] if field.get("isPrimary")] == ["id"]
    assert {field["fieldName"] for field in BODY["schema"]["fields"]} == stored


def test_the_tracks_of_a_manifest_are_known_by_path_or_else_by_name(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    stored = StoredTracks(["x", "b", "c"], ["", "", ""], paths, np.eye(3, dtype=np.float32), np.ones(3, dtype=bool))
    listed = [Track(tmp_path / "a.wav", "a", "w"), Track(tmp_path / "moved" / "b.wav", "b", "w"), Track(tmp_path, "d")]
    chosen = stored.only(listed)
    assert (chosen.track_ids, chosen.work_ids, chosen.paths) == (["x", "b"], ["w", "w"], paths[:2])
    result = chosen.evaluate()
    assert (result.queries, result.tracks, result.map) == (2, 2, 1.0)
