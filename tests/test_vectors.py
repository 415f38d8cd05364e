"""Collections to Parquet files and back, on Milvus Lite and on a real server."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from test_collection import EMBEDDINGS, MODEL, NASTY, row

from bytecover2_milvus.collection import TrackCollection
from bytecover2_milvus.errors import CollectionError, CollectionMismatch, OutputError, VectorsError
from bytecover2_milvus.naming import drop_collection
from bytecover2_milvus.row import FIELDS
from bytecover2_milvus.vectors import Vectors, ingest_vectors, write_vectors

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
    other = TrackCollection.create(client, name, SimpleNamespace(model_id="c3d4", dim=128, contract_version=1))
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
    with pytest.raises(VectorsError, match=r"bad.parquet: embedding of norm nan"):
        list(ingest_vectors(Vectors(tmp_path / "bad.parquet"), copy))
    assert copy.count() == 0


def test_a_place_that_cannot_be_written(filled: TrackCollection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/rows.parquet: cannot be written"):
        write_vectors(filled, tmp_path / "file" / "rows.parquet")
