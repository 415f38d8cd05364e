"""Rows with their embeddings in one SQLite file: what `ingest` fills where no Milvus is, before Parquet is written.

It holds what a collection holds, so that an ingest into it resumes, updates and finds the same content under two names
as in Milvus, in the memory of one batch. A batch is stored whole or not at all, and is on disk when its records are
given.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.qmax import ALIGNMENT
from ..audio.segments import Segments
from ..errors import BytecoverError, CollectionMismatch, OutputError
from ..milvus.cohort import SIZE, CohortTrack, cohort_tracks
from ..milvus.properties import (
    CHROMA_CHANNELS,
    CHROMA_ID,
    MODEL_ID,
    EmbeddingModel,
    SecondStage,
    model_properties,
    read_segments,
    segment_properties,
)
from ..milvus.schema import (
    FEATURES,
    STORED,
    Features,
    Row,
    check_features,
    check_row,
    features_of,
    read_row,
    stored_fields,
)

ROWS_PER_PAGE = 1_000

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    id TEXT PRIMARY KEY, track_id TEXT NOT NULL, row TEXT NOT NULL, embedding BLOB NOT NULL,
    chroma TEXT NOT NULL DEFAULT '', statistics TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS rows_by_track ON rows (track_id);
"""
_FEATURES = ", ".join(FEATURES)
_SECOND_STAGE = {"chroma": "''", "statistics": "'{}'"}  # columns that older versions' files lack, and their defaults


class Staging:
    """Rows of one model's embeddings in a SQLite file; what `ingest` needs of a `TrackCollection` is here as there.

    Raises
    ------
    CollectionMismatch
        If the file holds embeddings of another model, or chroma of another note map.
    OutputError
        If it cannot be written or is something else, also in every method.
    """

    fields = ("id", *STORED, *FEATURES)
    has_full_cohort = False  # it is looked up in no time

    def __init__(self, path: str | Path, model: EmbeddingModel) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.model_id = model.model_id
        self.contract_version = model.contract_version
        self.dim = model.dim
        with self._sqlite_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Its name is known beforehand, and others may write into the folder: no link is followed.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))
            self._db = sqlite3.connect(self.path, timeout=0.0)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # two runs would write the same Parquet files
            self._db.executescript(_TABLES)
            there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(rows)")}
            for name, default in _SECOND_STAGE.items():
                if name not in there:
                    self._db.execute(f"ALTER TABLE rows ADD COLUMN {name} TEXT NOT NULL DEFAULT {default}")
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", model_properties(model).items())
            facts = dict(self._db.execute("SELECT name, value FROM facts"))
            odd = self._db.execute("SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchall()
        with self._damage():
            if odd:
                raise ValueError(f"{odd[0][0]} is none of its tables")
            self.segments = read_segments(facts)
            stored = facts[MODEL_ID]
            self.chroma_id, self.chroma_channels = facts.get(CHROMA_ID, ""), int(facts.get(CHROMA_CHANNELS, 0))
        if stored != model.model_id:
            self.close()
            raise CollectionMismatch.of_model(self.name, stored, model.model_id)
        if model.chroma_id not in ("", self.chroma_id):
            self.close()
            raise CollectionMismatch(
                f"{self.name}: holds chroma of note map {self.chroma_id}, not of {model.chroma_id}; use that map's"
                " bundle, or another place"
            )

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def delete(self) -> None:
        """Close and delete the file: its rows are somewhere else now."""
        self.close()
        self.path.unlink(missing_ok=True)

    def count(self) -> int:
        with self._sqlite_errors():
            return int(self._db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def set_segmentation(self, segments: Segments) -> None:
        """Let `ingest` cut tracks into these segments, as `TrackCollection.set_segmentation`."""
        told = segment_properties(segments).items()
        with self._sqlite_errors(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", told)
        self.segments = segments

    def rows_of(self, track_ids: Sequence[str]) -> list[Row]:
        """The rows of these tracks."""
        return self._rows_where("track_id", track_ids)

    def rows_at(self, paths: Sequence[str]) -> list[Row]:
        """All rows of the tracks that a file at one of these absolute paths has a row of."""
        with self._sqlite_errors():
            found = self._db.execute(
                "SELECT DISTINCT track_id FROM rows"
                " WHERE json_extract(row, '$.path') IN (SELECT value FROM json_each(?))",
                [json.dumps(list(paths))],
            ).fetchall()
        return self.rows_of([track_id for (track_id,) in found])

    def rows_with(self, ids: Sequence[str], *, fresh: bool = False) -> list[Row]:
        """The rows with these primary keys; always `fresh`."""
        return self._rows_where("id", ids)

    @property
    def has_chroma(self) -> bool:
        """True if its tracks have chroma."""
        return bool(self.chroma_id)

    def check_chroma_of(self, model: SecondStage) -> None:
        """Nothing: it was opened for that model."""

    def features_of(self, ids: Sequence[str]) -> dict[str, Features]:
        """The features of rows by primary key."""
        found = self._execute(
            f"SELECT id, {_FEATURES} FROM rows WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))]
        )
        return {id: self._read_features(*stored) for id, *stored in found}

    def without_chroma(self, track_ids: Sequence[str]) -> set[str]:
        """The ids of the rows of these whole tracks that have no chroma."""
        found = self._execute(
            "SELECT row FROM rows WHERE chroma = '' AND track_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(track_ids))],
        )
        rows = (self._read_row(row) for (row,) in found)
        return {row.id for row in rows if row.is_whole}

    def count_chroma(self) -> int:
        """The number of tracks that have chroma."""
        return int(self._execute("SELECT count(*) FROM rows WHERE chroma != ''")[0][0])

    def note_full_cohort(self) -> None:
        """Nothing: it is looked up each time."""

    def with_old_statistics(self, n: float) -> list[str]:
        """The ids of the rows whose statistics are of a cohort of less than `n` tracks or of another alignment."""
        current = "json_extract(statistics, '$.n') >= ? AND json_extract(statistics, '$.alignment') = ?"
        found = self._execute(
            f"SELECT id FROM rows WHERE chroma != '' AND ({current}) IS NOT TRUE ORDER BY id", [n, ALIGNMENT]
        )
        return [id for (id,) in found]

    def cohort(self) -> list[CohortTrack]:
        """The cohort of the rows, as `TrackCollection.cohort` gives it."""
        found = self._execute(f"SELECT id, track_id, {_FEATURES} FROM rows WHERE chroma != '' ORDER BY id LIMIT {SIZE}")
        rows = ((id, track_id, self._read_features(*stored)) for id, track_id, *stored in found)
        return cohort_tracks(rows, self.chroma_channels)

    def upsert(
        self,
        rows: Sequence[Row],
        embeddings: NDArray[np.float32],
        chromas: Sequence[str] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Store rows over those with the same id, as `TrackCollection.upsert`."""
        stored = []
        for row, features in zip(rows, features_of(embeddings, chromas, statistics), strict=True):
            check_row(row)
            check_features(features, self.dim)
            told = (json.dumps(stored_fields(row)), features.embedding.tobytes())
            stored.append((row.id, row.track_id, *told, features.chroma, json.dumps(features.statistics)))
        with self._sqlite_errors(), self._db:
            self._db.executemany(
                f"INSERT OR REPLACE INTO rows (id, track_id, row, {_FEATURES}) VALUES (?, ?, ?, ?, ?, ?)", stored
            )

    def delete_tracks(self, track_ids: Sequence[str], *, keep: Sequence[str] = ()) -> int:
        """Delete the rows of these tracks, but those with an id in `keep`; how many there were."""
        with self._sqlite_errors(), self._db:
            return self._db.execute(
                "DELETE FROM rows WHERE track_id IN (SELECT value FROM json_each(?))"
                " AND id NOT IN (SELECT value FROM json_each(?))",
                [json.dumps(list(track_ids)), json.dumps(list(keep))],
            ).rowcount

    def keep_only(self, track_ids: Sequence[str]) -> None:
        """Delete the rows of all other tracks."""
        with self._sqlite_errors(), self._db:
            self._db.execute(
                "DELETE FROM rows WHERE track_id NOT IN (SELECT value FROM json_each(?))", [json.dumps(list(track_ids))]
            )

    def flush(self) -> None:
        """Do nothing: stored rows are on disk already."""

    def note_ingest(self) -> None:
        """Do nothing: only a collection tells when its last ingest was."""

    def pages(self, output_fields: Sequence[str], filter: str = "") -> Iterator[list[dict[str, Any]]]:
        """All rows as entities with these fields, page by page, in ascending order of their keys.

        There is no Milvus here that understands a `filter`: it must be empty.
        """
        assert not filter
        with self._sqlite_errors():
            found = self._db.execute(f"SELECT id, row, {_FEATURES} FROM rows ORDER BY id")
            while page := found.fetchmany(ROWS_PER_PAGE):
                entities = (self._read_row(row).entity(self._read_features(*data)) for _, row, *data in page)
                yield [{name: _value(entity[name]) for name in output_fields} for entity in entities]

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._sqlite_errors():
            return self._db.execute(statement, values).fetchall()

    def _rows_where(self, column: str, values: Iterable[str]) -> list[Row]:
        with self._sqlite_errors():
            found = self._db.execute(
                f"SELECT row FROM rows WHERE {column} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))]
            )
            return [self._read_row(row) for (row,) in found]

    def _read_row(self, text: str) -> Row:
        with self._damage():
            row = read_row(json.loads(text))
            check_row(row)
            return row

    def _read_features(self, embedding: bytes, chroma: str, statistics: str) -> Features:
        with self._damage():
            features = Features(np.frombuffer(embedding, dtype=np.float32), chroma, json.loads(statistics))
            check_features(features, self.dim)
            return features

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Errors for contents that are not as we wrote them, in one line."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, BytecoverError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise OutputError(f"{self.path}: damaged ({reason}); delete it, and run again from the start") from error

    @contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        """SQLite's errors in one line."""
        try:
            yield
        except sqlite3.Error as error:
            hint = "another run is using it" if "locked" in str(error) else "choose another place"
            raise OutputError(f"{self.path}: cannot be written ({error}); {hint}") from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error


def _value(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
