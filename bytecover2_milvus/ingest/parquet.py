"""Rows with their embeddings in a Parquet file: a backup, or what another machine embedded.

Columns are the fields of ``schemas/tracks.collection.json`` under their names, in ascending order of `id`; `metadata`
and `statistics` are JSON text and `embedding` a list of float32. The model's id, the contract's version, the note map's
id and how tracks are cut stand in the file's own metadata under the names that they have in a collection's properties.
Files of older versions lack `chroma` and `statistics`. Any Parquet reader reads it; reading and writing take the memory
of one page of rows.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alignment.chroma import decode
from ..atomic import atomic_write
from ..errors import ChromaError, CollectionError, CollectionMismatch, ConfigError, VectorsError
from ..extras import why_not_imported
from ..milvus.collection import TrackCollection
from ..milvus.properties import (
    CHROMA_CHANNELS,
    CHROMA_ID,
    CONTRACT_VERSION,
    MODEL_ID,
    EmbeddingModel,
    model_properties,
    read_segments,
    segment_properties,
)
from ..milvus.schema import (
    FEATURES,
    FIELDS,
    MAX_BYTES,
    SECOND_STAGE,
    STORED,
    Features,
    Row,
    check_features,
    check_row,
    columns_of,
    read_features,
    read_row,
)
from ..untrusted import DAMAGED, TEXT_BYTES, open_regular, parse_json, shorten
from .batch import IngestRecord
from .cohort_statistics import renew_statistics
from .pipeline import FLUSH_ROWS
from .sqlite import Staging

if TYPE_CHECKING:
    import pyarrow

DIM = "bytecover2.dim"  # in the file's metadata
ROWS_PER_BATCH = 1_000
MOST_CHANNELS = 120  # of chroma
MOST_VALUES = 32_768  # of an embedding, Milvus' limit
_TEXTS = {name: limit for name, limit in MAX_BYTES.items() if name != "id"}  # column -> bytes of its longest text
_ABSENT = {"chroma": "", "statistics": {}}  # what stands for them where a collection, or a file, has none

# A track's status is the last of these that any of its rows has.
_TELLING = ("skipped", "added", "updated", "failed")


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


class Vectors:
    """A file of `write_vectors`, opened; `model_id`, `dim` and `contract_version` as an `Embedder` has them.

    Raises
    ------
    VectorsError
        If it cannot be read, is no Parquet, lacks a column or the model's id, or unpacks to more than rows may hold.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._pa, parquet = _pyarrow(self.path)
        with self._errors("not a readable Parquet file", "collections export and embed write those that are read"):
            with open_regular(self.path, sys.maxsize):
                pass
            schema = parquet.read_schema(self.path)
            told = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
            lacking = sorted(set(FIELDS) - set(SECOND_STAGE) - set(schema.names)) + [
                name for name in (MODEL_ID, CONTRACT_VERSION, DIM) if name not in told
            ]
            if lacking:
                names = ", ".join(lacking)
                raise VectorsError(
                    f"{self.path}: it lacks {names}; collections export and embed write files that have them"
                )
            # A text that many rows share stays one in memory, until its length is known.
            self._file = parquet.ParquetFile(self.path, read_dictionary=[*_TEXTS.keys() - {"chroma"}])
            self.model_id = told[MODEL_ID]
            if not re.fullmatch(r"[\w.-]{1,100}", self.model_id):
                raise ValueError(f"{MODEL_ID} is {shorten(repr(self.model_id))}")
            self.contract_version = _whole_number(told, CONTRACT_VERSION, 1_000)
            self.dim = _whole_number(told, DIM, MOST_VALUES)
            self.chroma_id = told.get(CHROMA_ID, "") if set(SECOND_STAGE) <= set(schema.names) else ""
            self.chroma_channels = _whole_number(told, CHROMA_CHANNELS, MOST_CHANNELS) if self.chroma_id else 0
            if self.chroma_id and not re.fullmatch(r"[\w.-]{1,100}", self.chroma_id):
                raise ValueError(f"{CHROMA_ID} is {shorten(repr(self.chroma_id))}")
            self._columns = [name for name in FIELDS if name in schema.names]
            self.segments = read_segments(told)
            self._check_types()
            self._check_sizes()

    def _check_types(self) -> None:
        types = self._pa.types
        fits = {
            "VarChar": (types.is_string, types.is_large_string),
            "JSON": (types.is_string, types.is_large_string),
            "Int64": (types.is_integer,),
            "Double": (types.is_floating, types.is_integer),
            "FloatVector": (types.is_list, types.is_large_list, types.is_fixed_size_list),
        }
        for name, entry in ((name, FIELDS[name]) for name in self._columns):
            found = self._file.schema_arrow.field(name).type
            kind = found.value_type if types.is_dictionary(found) else found
            inner = kind.value_type if entry["dataType"] == "FloatVector" and types.is_nested(kind) else None
            if not any(fit(kind) for fit in fits[entry["dataType"]]) or (inner and not types.is_floating(inner)):
                raise ValueError(f"column {name} is of type {shorten(found)}, not {entry['dataType']}")

    def _check_sizes(self) -> None:
        """Refuse a file that would unpack to more than its rows may hold: values that repeat take hardly any space."""
        metadata = self._file.metadata
        if metadata.num_rows > self.path.stat().st_size:  # no two rows have one embedding, which takes bytes
            raise ValueError(f"{metadata.num_rows} rows, more than its bytes")
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                name = column.path_in_schema.partition(".")[0]
                if name == "embedding" and column.num_values != group.num_rows * self.dim:
                    raise ValueError(f"{column.num_values} values in {group.num_rows} embeddings of {self.dim}")
                limit = group.num_rows * (_TEXTS.get(name, 8 * self.dim) + 64) + TEXT_BYTES
                if name in FIELDS and column.total_uncompressed_size > limit:
                    raise ValueError(f"column {name} unpacks to {column.total_uncompressed_size} bytes")

    def _batches(self, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
        from pyarrow import compute

        for batch in self._file.iter_batches(ROWS_PER_BATCH, columns=columns):
            for name in _TEXTS.keys() & set(columns):
                texts = batch.column(name)
                texts = texts.dictionary if self._pa.types.is_dictionary(texts.type) else texts
                longest = compute.max(compute.binary_length(texts)).as_py() or 0
                if longest > _TEXTS[name]:
                    raise ValueError(f"a {name} of {longest} bytes; at most {_TEXTS[name]} fit")
            yield batch

    @contextmanager
    def _errors(self, what: str, hint: str) -> Iterator[None]:
        """Whatever a file is damaged by, in one line."""
        try:
            yield
        except VectorsError:
            raise
        except (*DAMAGED, self._pa.ArrowException, ChromaError, CollectionError, ConfigError) as error:
            code = getattr(error, "errno", None)
            known = isinstance(error, OSError) and code and code not in (errno.EINVAL, errno.EFBIG)
            reason = os.strerror(int(code or 0)) if known else getattr(error, "strerror", None) or shorten(error)
            raise VectorsError(f"{self.path}: {what} ({reason}); {hint}") from error

    def count_tracks(self) -> int:
        """The number of tracks; the rows of a track stand together.

        Raises
        ------
        VectorsError
            If the file is damaged.
        """
        with self._errors("damaged", "export it again"):
            batches = self._batches(["track_id"])
            return sum(1 for _ in groupby(name for batch in batches for name in batch.column(0).to_pylist()))

    def __iter__(self) -> Iterator[tuple[list[Row], list[Features]]]:
        """Batches of rows and their features, all of them fit for `TrackCollection.upsert`.

        Raises
        ------
        VectorsError
            If a row is none, or the file is damaged.
        """
        with self._errors("damaged", "export it again"):
            for batch in self._batches(self._columns):
                rows, features = [], []
                for values in batch.to_pylist():
                    values = self._values(values)
                    rows.append(read_row(values))
                    features.append(read_features(values))
                    check_row(rows[-1])
                    check_features(features[-1], self.dim)
                    if features[-1].chroma:
                        decode(features[-1].chroma, self.chroma_channels, rows[-1].track_id)
                yield rows, features

    def _values(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of a row as Milvus would give them; no second stage where the file has none."""
        if not self.chroma_id:
            values |= {"chroma": "", "statistics": "{}"}
        for name in ("metadata", "statistics"):
            values[name] = parse_json(values[name])
            if not isinstance(values[name], dict):
                raise ValueError(f"{name} is of type {type(values[name]).__name__}, not an object of JSON")
        return values


def ingest_vectors(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """Store the rows of a file; one record per track, given when Milvus has acknowledged its rows.

    A collection that cuts no tracks yet will cut those to come as the file's were cut.
    A row that is stored as it is in the file is skipped, so a run that was cut off goes on where it was. Chroma that
    only the file has is added; that only the collection has, stays. A track that is stored with other content fails:
    which of the two is wanted, only the user knows.

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
    return (max(of_rows, key=lambda record: _TELLING.index(record.status)) for _, of_rows in of_tracks)


def _store_rows(vectors: Vectors, collection: TrackCollection) -> Generator[IngestRecord, None, None]:
    """One record per row."""
    n_stored = 0
    if vectors.segments and not collection.segments:
        collection.set_segmentation(vectors.segments)
    for rows, features in vectors:
        stored = {row.id: row for row in collection.rows_with([row.id for row in rows], fresh=True)}
        track_ids = [row.track_id for row in rows]
        contents = {(row.track_id, row.content_hash) for row in collection.rows_of(track_ids)}
        tracks = {track_id for track_id, _ in contents}
        conflicts = {r.id for r in rows if r.track_id in tracks and (r.track_id, r.content_hash) not in contents}
        unheard = collection.without_chroma(track_ids) if vectors.chroma_id else set()
        wanted = [
            i
            for i, (row, heard) in enumerate(zip(rows, features, strict=True))
            if row.id not in conflicts and (stored.get(row.id) != row or (row.id in unheard and heard.chroma))
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
    """Store rows; those without chroma in the file keep what is `stored` of it."""
    there = [row.id for row in rows if row.is_whole and row.id in stored and collection.has_chroma]
    known = collection.features_of(there)
    features = [heard if heard.chroma else known.get(row.id, heard) for row, heard in zip(rows, features, strict=True)]
    collection.upsert(rows, *columns_of(features))


def _whole_number(told: Mapping[str, str], name: str, limit: int) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", told[name]) or int(told[name]) > limit:
        raise ValueError(f"{name} is {shorten(repr(told[name]))}, not a number between 1 and {limit}")
    return int(told[name])


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
