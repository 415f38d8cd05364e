"""Collections to Parquet files and back, on Milvus Lite and on a real server."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from stored_rows import EMBEDDINGS, MODEL, NASTY, a_model, row

from bytecover2_milvus.errors import CollectionError, CollectionMismatch, OutputError, VectorsError
from bytecover2_milvus.ingest.parquet import ingest_vectors, staging_for, write_vectors
from bytecover2_milvus.ingest.vectors import Vectors
from bytecover2_milvus.milvus.alias import drop_collection
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import FIELDS

ROWS = [
    *[row(n, track_id=text, title=text, path=f"/{text}", metadata={text: [text, 1.5]}) for n, text in enumerate(NASTY)],
    row(100, start_s=0.0, end_s=60.0),
    row(100, start_s=30.0, end_s=90.0),
]


@pytest.fixture(scope="module")
def filled(client) -> Iterator[TrackCollection]:
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", MODEL)
    collection.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
    yield collection
    drop_collection(client, collection.name)


def statuses(vectors: Vectors, collection: TrackCollection) -> Counter[str]:
    return Counter(record.status for record in ingest_vectors(vectors, collection))


def test_what_is_exported_comes_back_as_it_was(filled: TrackCollection, client, name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    assert write_vectors(filled, file) == len(ROWS)
    vectors = Vectors(file)
    n_tracks = len(ROWS) - 1  # one of them has two rows
    told = (vectors.model_id, vectors.dim, vectors.contract_version, vectors.count_tracks())
    assert told == ("a1b2", 128, 1, n_tracks)
    copy = TrackCollection.create(client, name, vectors)
    assert statuses(vectors, copy) == {"added": n_tracks}
    by_id = {stored.id: stored for stored in copy.rows_with([stored.id for stored in ROWS])}
    assert by_id == {stored.id: stored for stored in ROWS}
    embeddings = copy.embeddings_of(list(by_id))
    for stored, embedding in zip(ROWS, EMBEDDINGS, strict=False):
        np.testing.assert_array_equal(embeddings[stored.id], embedding)
    assert copy.describe()["last_ingest"]

    assert statuses(vectors, copy) == {"skipped": n_tracks}
    copy.upsert([dataclasses.replace(ROWS[3], title="another")], EMBEDDINGS[3:4])
    copy.delete_tracks([ROWS[5].track_id])
    assert statuses(vectors, copy) == {"added": 1, "updated": 1, "skipped": n_tracks - 2}
    copy.delete_tracks([ROWS[0].track_id])
    copy.upsert([row(200, track_id=ROWS[0].track_id)], EMBEDDINGS[20:21])  # the file behind the track was replaced
    (failed,) = [record for record in ingest_vectors(vectors, copy) if record.status != "skipped"]
    assert failed.status == "failed" and "stored with other content" in failed.reason
    assert copy.count() == len(ROWS)


def test_any_reader_of_parquet_reads_it_and_the_same_rows_are_the_same_file(
    filled: TrackCollection, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for file in (first, second):
        write_vectors(filled, file)
    assert first.read_bytes() == second.read_bytes()
    table = parquet.read_table(first)
    assert table.column_names == list(FIELDS)
    assert table["id"].to_pylist() == sorted(stored.id for stored in ROWS)
    assert {len(embedding) for embedding in table["embedding"].to_pylist()} == {128}


def test_a_filter_chooses_rows_and_what_chooses_none_writes_nothing(filled: TrackCollection, tmp_path: Path) -> None:
    file = tmp_path / "some.parquet"
    assert write_vectors(filled, file, "start_s > 0.0") == 1
    assert [rows for rows, _ in Vectors(file)] == [[ROWS[-1]]]
    for filter, message in (("start_s > 1000.0", "no row passes start_s > 1000.0"), ("no_field == 1", "no_field")):
        with pytest.raises(CollectionError, match=message):
            write_vectors(filled, file, filter)
    assert len(list(Vectors(file))) == 1 and [path.name for path in tmp_path.iterdir()] == ["some.parquet"]


def test_another_models_file_is_refused(filled: TrackCollection, client, name: str, tmp_path: Path) -> None:
    write_vectors(filled, tmp_path / "rows.parquet")
    other = TrackCollection.create(client, name, a_model("c3d4"))
    with pytest.raises(CollectionMismatch, match=r"holds embeddings of model c3d4, but .*rows.parquet of a1b2"):
        ingest_vectors(Vectors(tmp_path / "rows.parquet"), other)
    assert other.count() == 0


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match=r"none.parquet: not a readable Parquet file \(No such file"):
        Vectors(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("track_id,embedding\n")
    with pytest.raises(VectorsError, match=r"text.parquet: not a readable Parquet file"):
        Vectors(tmp_path / "text.parquet")
    parquet.write_table(pyarrow.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(VectorsError, match=r"other.parquet: it lacks artist, .*, bytecover2.model_id"):
        Vectors(tmp_path / "other.parquet")


def test_a_file_that_was_tampered_with_stores_nothing_wrong(
    filled: TrackCollection, client, name: str, tmp_path: Path
) -> None:
    write_vectors(filled, tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    rows = table.to_pylist()
    rows[4]["embedding"] = [float("nan")] * 128
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), tmp_path / "bad.parquet")
    copy = TrackCollection.create(client, name, MODEL)
    with pytest.raises(VectorsError, match=r"bad.parquet: damaged \(embedding of norm nan"):
        list(ingest_vectors(Vectors(tmp_path / "bad.parquet"), copy))
    assert copy.count() == 0


def test_a_place_that_cannot_be_written(filled: TrackCollection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/rows.parquet: cannot be written"):
        write_vectors(filled, tmp_path / "file" / "rows.parquet")


# Files that are damaged or made to harm


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pyarrow.Table:
    """Three rows, as they are written without Milvus."""
    file = tmp_path_factory.mktemp("rows") / "rows.parquet"
    with staging_for(file, MODEL) as staging:
        staging.upsert(ROWS[:3], EMBEDDINGS[:3])
        write_vectors(staging, file)
    return parquet.read_table(file)


def refused(table: pyarrow.Table, path: Path, **options: Any) -> str:
    """Why the file of `table` is refused; in a line."""
    parquet.write_table(table, path, **options)
    with pytest.raises(VectorsError) as raised:
        vectors = Vectors(path)
        vectors.count_tracks()
        list(vectors)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_s": float("nan")}, "from nan to"),
        ({"end_s": float("inf")}, "is no part of a recording"),
        ({"duration_s": -1.0}, "is no part of a recording"),
        ({"content_hash": "x"}, "is not SHA-256"),
        ({"metadata": "[" * 5_000}, "nested more than 100 deep"),
        ({"metadata": "9" * 5_000}, "digits"),
        ({"metadata": '{"a": NaN}'}, "NaN is no number of JSON"),
        ({"metadata": "[1]"}, "metadata is of type list"),
        ({"metadata": None}, "the JSON object must be str"),
        ({"title": None}, "title is of type NoneType"),
        ({"title": "x" * 100_000}, "a title of 100000 bytes"),
        ({"size": None}, "size is of type NoneType"),
        ({"embedding": [float("inf")] * 128}, "embedding of norm inf"),
        ({"embedding": None}, "values in 3 embeddings of 128"),
        ({"embedding": [0.5] * 64}, "values in 3 embeddings of 128"),
    ],
)
def test_a_row_of_another_kind_is_refused(table, change, reason, tmp_path):
    rows = table.to_pylist()
    rows[1] |= change
    assert reason in refused(pyarrow.Table.from_pylist(rows, table.schema), tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bytecover2.dim", b"128.5", "bytecover2.dim is '128.5'"),
        ("bytecover2.dim", b"1000000", "not a number between 1 and 32768"),
        ("bytecover2.dim", b"9" * 5_000, "bytecover2.dim is '9999"),
        ("bytecover2.dim", b"64", "384 values in 3 embeddings of 64"),
        ("bytecover2.contract_version", b"-1", "bytecover2.contract_version is '-1'"),
        ("bytecover2.model_id", b"\xff", "can't decode"),
        ("bytecover2.model_id", b"a\nb", "bytecover2.model_id is 'a\\nb'"),
        ("bytecover2.segment_s", b"long", "could not convert string to float"),
        ("bytecover2.segment_s", b"nan", "segments of nan s"),
    ],
)
def test_facts_of_another_kind_are_refused(table, name, value, reason, tmp_path):
    told = table.replace_schema_metadata(table.schema.metadata | {name.encode(): value})
    assert reason in refused(told, tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("name", "kind"), [("title", pyarrow.int64()), ("start_s", pyarrow.string()), ("embedding", pyarrow.string())]
)
def test_columns_of_another_type_are_refused(table, name, kind, tmp_path):
    column = pyarrow.array([None] * 3, kind)
    other = table.set_column(table.schema.get_field_index(name), name, column)
    assert f"column {name} is of type {kind}" in refused(other, tmp_path / "rows.parquet")


@pytest.mark.parametrize("dictionary", [True, False], ids=["shared", "plain"])
def test_texts_that_take_no_space_are_not_unpacked(table, dictionary, tmp_path):
    """Kilobytes that stand for gigabytes."""
    n_rows = 4_000 if dictionary else 64
    many = table.take([0] * n_rows)
    titles = pyarrow.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), ["x" * 2_000_000])
    titles = titles if dictionary else titles.cast(pyarrow.string())
    many = many.set_column(many.schema.get_field_index("title"), "title", titles)
    path = tmp_path / "rows.parquet"
    message = refused(many, path, compression="zstd", use_dictionary=dictionary, row_group_size=n_rows)
    assert path.stat().st_size < 200_000 and ("a title of 2000000 bytes" in message or "title unpacks to" in message)


def test_an_embedding_of_a_billion_zeros_is_not_unpacked(table, tmp_path):
    zeros = pyarrow.array([np.zeros(10_000_000, np.float32)] * 3, pyarrow.list_(pyarrow.float32()))
    other = table.set_column(table.schema.get_field_index("embedding"), "embedding", zeros)
    assert "30000000 values in 3 embeddings of 128" in refused(other, tmp_path / "rows.parquet", compression="zstd")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "rows.parquet"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises(VectorsError, match=r"rows.parquet: not a readable Parquet file \(.*(pipe|directory)"):
        Vectors(path)


def test_bytes_changed_at_random_are_refused_or_do_no_harm(table, tmp_path):
    path, rng = tmp_path / "rows.parquet", np.random.default_rng(0)
    parquet.write_table(table, path)
    whole = path.read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), size=rng.integers(1, 6)):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            vectors = Vectors(path)
            assert sum(len(rows) for rows, _ in vectors) <= 3
        except VectorsError as error:
            assert str(error).startswith(f"{path}: ")
