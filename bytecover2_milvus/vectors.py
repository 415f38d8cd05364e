"""Rows with their embeddings in a Parquet file: a backup, or what another machine embedded.

Columns are the fields of ``schemas/tracks.collection.json`` under their names, in ascending order of `id`; `metadata`
is JSON text and `embedding` a list of float32. The model's id, the contract's version and how tracks are cut stand in
the file's own metadata under the names that they have in a collection's properties. Any Parquet reader reads it;
reading and writing take the memory of one page of rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .collection import TrackCollection
from .errors import CollectionError, CollectionMismatch, VectorsError
from .extras import why_not_imported
from .ingest import FLUSH_ROWS
from .properties import CONTRACT_VERSION, MODEL_ID, Model, model_properties, read_segments, segment_properties
from .row import FIELDS, STORED, Row, check_embedding, check_row, read_row
from .staging import Staging
from .storing import IngestRecord
from .writing import whole_file

if TYPE_CHECKING:
    import pyarrow

DIM = "bytecover2.dim"  # in the file's metadata
ROWS_PER_BATCH = 1_000

# A track's status is the last of these that any of its rows has.
_TELLING = ("skipped", "added", "updated", "failed")


def staging_for(path: str | Path, model: Model) -> Staging:
    """Where `ingest` stores what `write_vectors` then writes to `path`; it is beside that file.

    Raises
    ------
    VectorsError
        If Parquet cannot be written here: before hours of embedding.
    OutputError, CollectionMismatch
        As `Staging`.
    """
    path = Path(path)
    _pyarrow(path)
    return Staging(path.with_name(f"{path.name}.part.sqlite"), model)


def write_vectors(collection: TrackCollection | Staging, path: str | Path, filter: str = "") -> int:
    """Write the rows of `collection` that pass `filter`; how many they are.

    Rows that others store meanwhile may be in the file or not; each row in it is whole.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before stays.
    CollectionError
        If Milvus fails or does not understand the filter, or no row passes it.
    """
    path = Path(path)
    pa, parquet = _pyarrow(path)
    schema = _schema(pa, collection)
    n_rows = 0
    with whole_file(path) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        for page in collection.pages(["id", *STORED, "embedding"], filter):
            page.sort(key=lambda entity: entity["id"])
            for entity in page:
                entity["metadata"] = json.dumps(entity["metadata"], ensure_ascii=False)
            if page:
                writer.write_table(pa.Table.from_pylist(page, schema))
            n_rows += len(page)
        if filter and not n_rows:
            raise CollectionError(f"{collection.name}: no row passes {filter}; nothing was written")
    return n_rows


class Vectors:
    """A file of `write_vectors`, opened; `model_id`, `dim` and `contract_version` as an `Embedder` has them.

    Raises
    ------
    VectorsError
        If it cannot be read, is no Parquet, or lacks a column or the model's id.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        pa, parquet = _pyarrow(self.path)
        try:
            self._file = parquet.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            code = getattr(error, "errno", None)
            reason = os.strerror(code) if code else " ".join(str(error).split())
            raise VectorsError(f"{self.path}: not a readable Parquet file ({reason})") from error
        told = {key.decode(): value.decode() for key, value in (self._file.schema_arrow.metadata or {}).items()}
        lacking = sorted(set(FIELDS) - set(self._file.schema_arrow.names)) + [
            name for name in (MODEL_ID, CONTRACT_VERSION, DIM) if name not in told
        ]
        if lacking:
            raise VectorsError(
                f"{self.path}: it lacks {', '.join(lacking)}; collections export and embed write files that have them"
            )
        self.model_id = told[MODEL_ID]
        self.contract_version = int(told[CONTRACT_VERSION])
        self.dim = int(told[DIM])
        self.segments = read_segments(told)

    def count_tracks(self) -> int:
        """How many tracks there are; the rows of a track stand together.

        Raises
        ------
        VectorsError
            If the file is damaged.
        """
        pa, _ = _pyarrow(self.path)
        try:
            batches = self._file.iter_batches(ROWS_PER_BATCH, columns=["track_id"])
            return sum(1 for _ in groupby(name for batch in batches for name in batch.column(0).to_pylist()))
        except (OSError, pa.ArrowException) as error:
            raise VectorsError(f"{self.path}: {' '.join(str(error).split())}; export it again") from error

    def __iter__(self) -> Iterator[tuple[list[Row], NDArray[np.float32]]]:
        """Batches of rows and their embeddings (N, D), all of them fit for `TrackCollection.upsert`.

        Raises
        ------
        VectorsError
            If a row is none, or the file is damaged.
        """
        pa, _ = _pyarrow(self.path)
        try:
            for batch in self._file.iter_batches(ROWS_PER_BATCH, columns=[*STORED, "embedding"]):
                embeddings = np.asarray(batch.column("embedding").to_pylist(), dtype=np.float32)
                rows = [_row(values) for values in batch.drop_columns("embedding").to_pylist()]
                for row, embedding in zip(rows, embeddings, strict=True):
                    check_row(row)
                    check_embedding(embedding, self.dim)
                yield rows, embeddings
        except (OSError, pa.ArrowException, CollectionError, ValueError, TypeError) as error:
            raise VectorsError(f"{self.path}: {' '.join(str(error).split())}; export it again") from error


def ingest_vectors(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """Store the rows of a file; one record per track, given when Milvus has acknowledged its rows.

    A collection that cuts no tracks yet will cut those to come as the file's were cut.
    A row that is stored as it is in the file is skipped, so a run that was cut off goes on where it was. A track that
    is stored with other content fails: which of the two is wanted, only the user knows.

    Raises
    ------
    CollectionMismatch
        If the collection belongs to another model.
    VectorsError, CollectionError
        If the file or Milvus fails; all records given until then stay true.
    """
    if vectors.model_id != collection.model_id:
        raise CollectionMismatch(
            f"{collection.name}: holds embeddings of model {collection.model_id}, but {vectors.path} of"
            f" {vectors.model_id}; choose another collection"
        )
    of_tracks = groupby(_store_rows(vectors, collection), key=attrgetter("track_id"))
    return (max(of_rows, key=lambda record: _TELLING.index(record.status)) for _, of_rows in of_tracks)


def _store_rows(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """One record per row."""
    n_stored = 0
    if vectors.segments and not collection.segments:
        collection.cut_into(vectors.segments)
    for rows, embeddings in vectors:
        stored = {row.id: row for row in collection.rows_with([row.id for row in rows], fresh=True)}
        contents = {(row.track_id, row.content_hash) for row in collection.rows_of([row.track_id for row in rows])}
        tracks = {track_id for track_id, _ in contents}
        conflicts = {r.id for r in rows if r.track_id in tracks and (r.track_id, r.content_hash) not in contents}
        wanted = [i for i, row in enumerate(rows) if row.id not in conflicts and stored.get(row.id) != row]
        if wanted:
            collection.upsert([rows[i] for i in wanted], embeddings[wanted])
            n_stored += len(wanted)
        changed = set(wanted)
        for i, row in enumerate(rows):
            if row.id in conflicts:
                status = "failed"
                reason = f"track {row.track_id!r} is stored with other content; delete it first, or leave it as it is"
            elif i not in changed:
                status, reason = "skipped", ""
            else:
                status, reason = ("updated", "the row changed") if row.id in stored else ("added", "")
            yield IngestRecord(row.path, row.track_id, row.work_id, status, reason, duration_s=row.duration_s)
    if n_stored >= FLUSH_ROWS:
        collection.flush()
    if n_stored:
        collection.note_ingest()


def _row(values: dict[str, Any]) -> Row:
    return read_row(values | {"metadata": json.loads(values["metadata"])})


def _schema(pa: Any, collection: TrackCollection | Staging) -> pyarrow.Schema:
    types = {
        "VarChar": pa.string(),
        "Int64": pa.int64(),
        "Double": pa.float64(),
        "JSON": pa.string(),
        "FloatVector": pa.list_(pa.float32()),
    }
    columns = [(name, types[entry["dataType"]]) for name, entry in FIELDS.items()]
    facts = model_properties(collection) | {DIM: str(collection.dim)} | segment_properties(collection.segments)
    return pa.schema(columns, metadata=facts)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise VectorsError(f"{path}: Parquet needs pyarrow; {why_not_imported(error, 'parquet')}") from error
    return pyarrow, parquet
