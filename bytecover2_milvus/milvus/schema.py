"""A row of the collection, and the schema that every row obeys: ``schemas/tracks.collection.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.segments import Span, span_at, times_s
from ..errors import InputRefused

if TYPE_CHECKING:
    from pymilvus import CollectionSchema

BODY: dict[str, Any] = json.loads(
    files("bytecover2_milvus.schemas").joinpath("tracks.collection.json").read_text(encoding="utf-8")
)
FIELDS: dict[str, dict[str, Any]] = {entry["fieldName"]: entry for entry in BODY["schema"]["fields"]}
MAX_BYTES: dict[str, int] = {
    name: entry["elementTypeParams"]["max_length"] for name, entry in FIELDS.items() if entry["dataType"] == "VarChar"
} | {"metadata": 65_536}  # of its JSON, Milvus' limit
SECOND_STAGE = ("chroma", "statistics")  # fields that collections made by older versions lack
RESERVED = {  # fields of a row that are keys of its metadata
    "warning": "bytecover2.warning",
    "audio_hash": "bytecover2.audio_hash",
    "from_file": "bytecover2.from_file",
}
DAMAGED = f'metadata["{RESERVED["warning"]}"] > ""'
WHOLE_TRACKS = "start_s == 0.0 and end_s == duration_s"  # filters that say what `is_whole` says
PARTS = "start_s != 0.0 or end_s != duration_s"
NORM_TOLERANCE = 1e-3
MAX_DEPTH = 64  # of lists and objects within each other in metadata: those who read it are recursive
INT64 = range(-(2**63), 2**63)
JSON_INT = range(-(2**63), 2**64)  # what the orjson of pymilvus takes


def is_whole(start_s: float, end_s: float, duration_s: float) -> bool:
    """True of a row of the whole track, and of no segment."""
    return (start_s, end_s) == (0.0, duration_s)


@dataclass(frozen=True, eq=False, slots=True)
class Features:
    """The features that the collection stores of one segment."""

    embedding: NDArray[np.float32]  # (D,), of unit norm
    chroma: str = ""  # as `alignment.chroma.encode` gives it; "" of a segment, and where none was computed
    statistics: Mapping[str, Any] = field(default_factory=dict)  # as `Cohort.statistics` gives them, {} without chroma


@dataclass(frozen=True, slots=True)
class Row:
    """The fields that the collection stores beside the `Features` of one segment; a whole track is one segment."""

    track_id: str
    content_hash: str  # SHA-256 of the file's bytes, hexadecimal
    duration_s: float  # of the whole track
    start_s: float  # of the segment
    end_s: float
    work_id: str = ""  # "" where the work is not known
    title: str = ""
    artist: str = ""
    path: str = ""
    size: int = 0  # bytes
    mtime_ns: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    # Stored in the metadata, where there is something to say:
    warning: str = ""  # of damaged audio
    audio_hash: str = ""  # of the audio without tags; see `Decoded`
    from_file: tuple[str, ...] = ()  # title, artist and keys of the metadata that have what the file's tags say

    @property
    def is_whole(self) -> bool:
        """True if it is of the whole track, and of no segment."""
        return is_whole(self.start_s, self.end_s, self.duration_s)

    @property
    def span(self) -> Span:
        """The part of the track that it is of, in samples."""
        return span_at(self.start_s, self.end_s)

    @property
    def id(self) -> str:
        """The primary key: content and segment decide it, so the same file is never stored twice."""
        if self.is_whole:
            return self.content_hash
        return f"{self.content_hash}:{self.start_s:.3f}:{self.end_s:.3f}"

    def whole(self) -> Row:
        """The row of the whole track."""
        return replace(self, start_s=0.0, end_s=self.duration_s)

    def part(self, span: Span) -> Row:
        """The row of another part of the track."""
        start_s, end_s = times_s(span)
        return replace(self, start_s=start_s, end_s=end_s)

    def entity(self, features: Features) -> dict[str, Any]:
        """The row as Milvus takes it."""
        stored = {name: getattr(features, name) for name in FEATURES}
        return {"id": self.id, **stored_fields(self), **stored}


STORED = [entry.name for entry in fields(Row) if entry.name in FIELDS]
FEATURES = [entry.name for entry in fields(Features)]


def stored_fields(row: Row) -> dict[str, Any]:
    """The values of `STORED`; `read_row` reads them."""
    values = asdict(row)
    told = {key: values.pop(name) for name, key in RESERVED.items()}
    values["metadata"] |= {key: value for key, value in told.items() if value}
    return values


def read_row(entity: Mapping[str, Any]) -> Row:
    """The row in what Milvus gave; other fields of `entity` are left aside."""
    values = {name: entity[name] for name in STORED}
    values["metadata"] = dict(values["metadata"])
    told = {name: values["metadata"].pop(key) for name, key in RESERVED.items() if key in values["metadata"]}
    if isinstance(told.get("from_file"), list):
        told["from_file"] = tuple(told["from_file"])
    return Row(**values, **told)


def read_features(entity: Mapping[str, Any]) -> Features:
    """The features in what Milvus gave, without a second stage where there is none."""
    values = {name: entity[name] for name in FEATURES if name in entity}
    return Features(**(values | {"embedding": np.asarray(entity["embedding"], dtype=np.float32)}))


def features_of(
    embeddings: NDArray[np.float32], chromas: Sequence[str] | None, statistics: Sequence[Mapping[str, Any]] | None
) -> list[Features]:
    """The features of rows, one by one; without a second stage where it is not given."""
    embeddings = np.asarray(embeddings, dtype=np.float32)
    n = len(embeddings)
    columns = (embeddings, [""] * n if chromas is None else chromas, [{}] * n if statistics is None else statistics)
    return [Features(*values) for values in zip(*columns, strict=True)]


def columns_of(
    features: Sequence[Features],
) -> tuple[NDArray[np.float32], list[str], list[Mapping[str, Any]]]:
    """Embeddings (n, D), chroma and statistics of several rows, as `features_of` takes them."""
    embeddings = np.stack([heard.embedding for heard in features])
    return embeddings, [heard.chroma for heard in features], [heard.statistics for heard in features]


def check_row(row: Row) -> None:
    """Refuse what a Milvus server would refuse and Milvus Lite would wrongly take.

    Raises
    ------
    InputRefused
        If the content hash is none, a field is of another type, a number is out of range or no time of a recording, a
        text is not UTF-8 or too long, or the metadata is not JSON.
    """
    who = ascii(row.track_id[:80] if isinstance(row.track_id, str) else type(row.track_id).__name__)
    for name, types, what in _TYPES:
        value = getattr(row, name)
        if not isinstance(value, types) or isinstance(value, bool):
            raise InputRefused(f"{who}: {name} is of type {type(value).__name__}, not {what}")
        if types is int and value not in INT64:
            raise InputRefused(f"{who}: {name} is beyond 64 bits")
    if not re.fullmatch("[0-9a-f]{64}", row.content_hash):  # reading by ranges of keys depends on it
        raise InputRefused(f"{who}: content_hash {row.content_hash[:80]!a} is not SHA-256 in hexadecimal")
    if not 0 <= row.start_s < row.end_s < math.inf or not 0 < row.duration_s < math.inf:  # NaN neither
        raise InputRefused(f"{who}: from {row.start_s} to {row.end_s} of {row.duration_s} s is no part of a recording")
    try:
        _check_json(row.metadata)
    except ValueError as error:
        raise InputRefused(f"{who}: its metadata is not JSON that Milvus holds: {error}") from error
    for name in ("warning", "audio_hash"):
        if not isinstance(getattr(row, name), str):
            raise InputRefused(f"{who}: {name} is of type {type(getattr(row, name)).__name__}, not a text")
    if not (isinstance(row.from_file, tuple) and all(isinstance(name, str) for name in row.from_file)):
        raise InputRefused(f"{who}: from_file is not a list of texts")
    metadata = json.dumps(stored_fields(row)["metadata"], ensure_ascii=False)
    for name, limit in MAX_BYTES.items():
        if name in SECOND_STAGE:
            continue
        text = metadata if name == "metadata" else getattr(row, name)
        try:
            n_bytes = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise InputRefused(f"{who}: its {name} is not valid UTF-8; rename it") from error
        if n_bytes > limit:
            raise InputRefused(f"{who}: its {name} has {n_bytes} bytes; at most {limit} fit")


_KINDS: dict[str, tuple[Any, str]] = {
    "VarChar": (str, "a text"),
    "Int64": (int, "a whole number"),
    "Double": ((int, float), "a number"),
    "JSON": (dict, "an object of JSON"),
}
_TYPES = [(name, *_KINDS[entry["dataType"]]) for name, entry in FIELDS.items() if name in STORED]


def _check_json(value: Any, depth: int = 0) -> None:
    """Refuse what is not JSON or more than Milvus and orjson hold.

    Raises
    ------
    ValueError
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {str(key)[:80]!a} is not a text")
            _check_json(entry, depth + 1)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check_json(entry, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not JSON")
    elif isinstance(value, int):
        if value not in JSON_INT:
            raise ValueError("a whole number beyond 64 bits; write it as text")
    elif value is not None and not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is not JSON")


def check_features(features: Features, dim: int) -> None:
    """Refuse an embedding that is no finite unit vector of `dim` values (Milvus Lite takes NaN), and wrong texts.

    Raises
    ------
    InputRefused
    """
    embedding = features.embedding
    if embedding.shape != (dim,):
        raise InputRefused(f"embedding of shape {embedding.shape}; the collection holds ({dim},)")
    norm = float(np.linalg.norm(embedding))
    if not abs(norm - 1.0) <= NORM_TOLERANCE:  # NaN fails too
        raise InputRefused(f"embedding of norm {norm:.4g}; a finite unit vector is needed")
    chroma = features.chroma
    if not (isinstance(chroma, str) and chroma.isascii() and len(chroma) <= MAX_BYTES["chroma"]):
        raise InputRefused(f"chroma that is no text of base 85 of at most {MAX_BYTES['chroma']} characters")
    try:
        _check_json(features.statistics)
    except ValueError as error:
        raise InputRefused(f"statistics that are no JSON: {error}") from error


def collection_schema(dim: int) -> CollectionSchema:
    """The schema file as pymilvus wants it, for embeddings of `dim` values."""
    from pymilvus import DataType, MilvusClient

    types = {
        "VarChar": DataType.VARCHAR,
        "Int64": DataType.INT64,
        "Double": DataType.DOUBLE,
        "JSON": DataType.JSON,
        "FloatVector": DataType.FLOAT_VECTOR,
    }
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name, entry in FIELDS.items():
        params = dict(entry["elementTypeParams"])
        if "dim" in params:
            params["dim"] = dim
        schema.add_field(name, types[entry["dataType"]], is_primary=entry.get("isPrimary", False), **params)
    return schema
