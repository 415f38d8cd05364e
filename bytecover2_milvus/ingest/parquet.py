"""Rows with their embeddings in a Parquet file: a backup, or what another machine embedded.

Columns are the fields of ``schemas/tracks.collection.json`` under their names, in ascending order of `id`; `metadata`
and `statistics` are JSON text and `embedding` a list of float32. The model's id, the contract's version, the note map's
id and how tracks are cut stand in the file's own metadata under the names that they have in a collection's properties.
Files of older versions lack `chroma` and `statistics`. Any Parquet reader reads it; reading and writing take the memory
of one page of rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_write
from ..errors import CollectionError, CollectionMismatch
from ..milvus.collection import TrackCollection
from ..milvus.properties import EmbeddingModel, model_properties, segment_properties
from ..milvus.schema import FEATURES, FIELDS, STORED, Features, Row, columns_of
from .batch import IngestRecord
from .cohort_statistics import renew_statistics
from .pipeline import FLUSH_ROWS
from .sqlite import Staging
from .vectors import DIM, Vectors, import_pyarrow

if TYPE_CHECKING:
    import pyarrow

_ABSENT = {"chroma": "", "statistics": {}}  # written where a collection has no second stage

# A track's status is the last of these that any of its rows has.
_STATUSES = ("skipped", "added", "updated", "failed")


def staging_for(path: str | Path, model: EmbeddingModel) -> Staging:
    """The `Staging` beside `path` that `ingest` fills and `write_vectors` then writes to `path`.

    Raises
    ------
    VectorsError
        If Parquet cannot be written here: before hours of embedding.
    OutputError, CollectionMismatch
        As `Staging`.
    """
    path = Path(path)
    import_pyarrow(path)
    return Staging(path.with_name(f"{path.name}.part.sqlite"), model)


def write_vectors(collection: TrackCollection | Staging, path: str | Path, filter: str = "") -> int:
    """Write the rows of `collection` that pass `filter`; returns their number.

    Rows that others store meanwhile may be in the file or not; each row in it is whole.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before stays.
    CollectionError
        If Milvus fails or does not understand the filter, or no row passes it.
    """
    path = Path(path)
    pa, parquet = import_pyarrow(path)
    schema = _schema(pa, collection)
    n_rows = 0
    with atomic_write(path) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        columns = [name for name in ("id", *STORED, *FEATURES) if name in collection.fields]
        for page in collection.pages(columns, filter):
            page = [_ABSENT | entity for entity in sorted(page, key=lambda entity: entity["id"])]
            for entity in page:
                for name in ("metadata", "statistics"):
                    entity[name] = json.dumps(entity[name], ensure_ascii=False)
            if page:
                writer.write_table(pa.Table.from_pylist(page, schema))
            n_rows += len(page)
        if filter and not n_rows:
            raise CollectionError(f"{collection.name}: no row passes {filter}; nothing was written")
    return n_rows


def ingest_vectors(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """Store the rows of a file; one record per track, given when Milvus has acknowledged its rows.

    A collection without segments takes over the file's segmentation, for tracks that are ingested later.

    A row that is stored as it is in the file is skipped, so a run that was cut off goes on where it was. Chroma that
    only the file has is added, chroma that only the collection has is kept. A track that is stored with other content
    fails, as only the user knows which of the two is wanted.

    Raises
    ------
    CollectionMismatch
        If the collection belongs to another model, or has chroma of another note map.
    VectorsError, CollectionError
        If the file or Milvus fails; all records given until then stay true.
    """
    if vectors.model_id != collection.model_id:
        raise CollectionMismatch(
            f"{collection.name}: holds embeddings of model {collection.model_id}, but {vectors.path} of"
            f" {vectors.model_id}; choose another collection"
        )
    collection.check_chroma_of(vectors)
    of_tracks = groupby(_store_rows(vectors, collection), key=attrgetter("track_id"))
    return (max(of_rows, key=lambda record: _STATUSES.index(record.status)) for _, of_rows in of_tracks)


def _store_rows(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """Store the rows of a file; one record per row."""
    n_stored = 0
    if vectors.segments and not collection.segments:
        collection.set_segmentation(vectors.segments)
    for rows, features in vectors:
        stored = {row.id: row for row in collection.rows_with([row.id for row in rows], fresh=True)}
        track_ids = [row.track_id for row in rows]
        contents = {(row.track_id, row.content_hash) for row in collection.rows_of(track_ids)}
        tracks = {track_id for track_id, _ in contents}
        conflicts = {r.id for r in rows if r.track_id in tracks and (r.track_id, r.content_hash) not in contents}
        lacking_chroma = collection.without_chroma(track_ids) if vectors.chroma_id else set()
        wanted = [
            i
            for i, (row, heard) in enumerate(zip(rows, features, strict=True))
            if row.id not in conflicts and (stored.get(row.id) != row or (row.id in lacking_chroma and heard.chroma))
        ]
        if wanted:
            _upsert([rows[i] for i in wanted], [features[i] for i in wanted], collection, stored)
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
    renew_statistics(collection, imported=n_stored > 0)
    if n_stored >= FLUSH_ROWS:
        collection.flush()
    if n_stored:
        collection.note_ingest()


def _upsert(
    rows: Sequence[Row], features: Sequence[Features], collection: TrackCollection, stored: Collection[str]
) -> None:
    """Store rows; those without chroma in the file keep the chroma that is stored of them."""
    there = [row.id for row in rows if row.is_whole and row.id in stored and collection.has_chroma]
    known = collection.features_of(there)
    features = [heard if heard.chroma else known.get(row.id, heard) for row, heard in zip(rows, features, strict=True)]
    collection.upsert(rows, *columns_of(features))


def _schema(pa: Any, collection: TrackCollection | Staging) -> pyarrow.Schema:
    """The columns of the file, and its metadata."""
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
