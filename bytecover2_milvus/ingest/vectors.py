"""A Parquet file of embeddings, read. It may come from anywhere, so all of its contents are checked."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alignment.chroma import decode
from ..errors import ChromaError, CollectionError, ConfigError, VectorsError
from ..extras import why_not_imported
from ..milvus.properties import CHROMA_CHANNELS, CHROMA_ID, CONTRACT_VERSION, MODEL_ID, read_segments
from ..milvus.schema import (
    FIELDS,
    MAX_BYTES,
    SECOND_STAGE,
    Features,
    Row,
    check_features,
    check_row,
    read_features,
    read_row,
)
from ..untrusted import DAMAGED, TEXT_BYTES, open_regular, parse_json, shorten

if TYPE_CHECKING:
    import pyarrow

DIM = "bytecover2.dim"  # in the file's metadata
ROWS_PER_BATCH = 1_000
MOST_CHANNELS = 120  # of chroma
MOST_VALUES = 32_768  # of an embedding, Milvus' limit
_TEXTS = {name: limit for name, limit in MAX_BYTES.items() if name != "id"}  # column -> bytes of its longest text


class Vectors:
    """A file of `parquet.write_vectors`, opened; iteration gives its rows and their features, batch by batch.

    `model_id`, `contract_version`, `dim`, `chroma_id` and `chroma_channels` are as an `Embedder` has them, `segments`
    as a `TrackCollection`.

    Raises
    ------
    VectorsError
        If it cannot be read, is no Parquet, lacks a column or the model's id, or unpacks to more than rows may hold.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._pa, parquet = import_pyarrow(self.path)
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
            # With a dictionary, a text that many rows share is in memory once; `_batches` checks its length there.
            self._file = parquet.ParquetFile(self.path, read_dictionary=[*_TEXTS.keys() - {"chroma"}])
            self._columns = [name for name in FIELDS if name in schema.names]
            self.model_id = _id(told, MODEL_ID)
            self.contract_version = _whole_number(told, CONTRACT_VERSION, 1_000)
            self.dim = _whole_number(told, DIM, MOST_VALUES)
            has_chroma = bool(told.get(CHROMA_ID)) and set(SECOND_STAGE) <= set(schema.names)
            self.chroma_id = _id(told, CHROMA_ID) if has_chroma else ""
            self.chroma_channels = _whole_number(told, CHROMA_CHANNELS, MOST_CHANNELS) if has_chroma else 0
            self.segments = read_segments(told)
            self._check_types()
            self._check_sizes()

    def _check_types(self) -> None:
        """Refuse columns of other types than the fields of a row."""
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
        """Some columns, batch by batch; a `ValueError` if a text is longer than its field allows."""
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
        """Whatever reading a damaged file raises becomes a `VectorsError`: what it is, the reason, what to do."""
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


def _id(told: Mapping[str, str], name: str) -> str:
    """An id in the file's metadata; a `ValueError` if it cannot be one."""
    if not re.fullmatch(r"[\w.-]{1,100}", told[name]):
        raise ValueError(f"{name} is {shorten(repr(told[name]))}")
    return told[name]


def _whole_number(told: Mapping[str, str], name: str, limit: int) -> int:
    """A number in the file's metadata; a `ValueError` if it is none from 1 to `limit`."""
    if not re.fullmatch("[1-9][0-9]{0,8}", told[name]) or int(told[name]) > limit:
        raise ValueError(f"{name} is {shorten(repr(told[name]))}, not a number between 1 and {limit}")
    return int(told[name])


def import_pyarrow(path: Path) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`, to read or write `path`.

    Raises
    ------
    VectorsError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise VectorsError(f"{path}: Parquet needs pyarrow; {why_not_imported(error, 'parquet')}") from error
    return pyarrow, parquet
