"""What becomes of a track in an ingest, and the batches in which it is stored before that is said."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InputRefused
from .row import Row
from .segments import Segments

STORE_AFTER_S = 2.0  # a batch that has waited so long is stored as it is: who watches, or stops, has its tracks


@dataclass(frozen=True, slots=True)
class IngestRecord:
    """What became of one track."""

    path: str
    track_id: str
    work_id: str
    status: str  # added, updated, skipped or failed
    reason: str = ""  # why it was updated, skipped or failed
    warning: str = ""  # of a damaged file, or of a label that is not stored
    duration_s: float | None = None  # None where it is not known


class Store(Protocol):
    """Where an ingest stores rows: a `TrackCollection`, or a `Staging` where no Milvus is."""

    name: str
    model_id: str
    segments: Segments

    def rows_of(self, track_ids: Sequence[str]) -> list[Row]: ...

    def rows_at(self, paths: Sequence[str]) -> list[Row]: ...

    def rows_with(self, ids: Sequence[str]) -> list[Row]: ...

    def embeddings_of(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]: ...

    def upsert(self, rows: Sequence[Row], embeddings: NDArray[np.float32]) -> None: ...

    def delete_tracks(self, track_ids: Sequence[str], *, keep: Sequence[str] = ()) -> int: ...

    def flush(self) -> None: ...

    def note_ingest(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """A record, and what must be stored or deleted before it is true."""

    record: IngestRecord
    rows: tuple[Row, ...] = ()
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # by id; other rows keep theirs
    replaces: bool = False  # other rows of the track are to go


class Batch:
    """Outcomes that wait to be stored together."""

    def __init__(self, collection: Store, size: int) -> None:
        self._collection = collection
        self._size = size
        self._outcomes: list[Outcome] = []
        self._since = 0.0  # when the first of them came
        self.waiting: dict[str, Row] = {}  # by content hash
        self.n_stored = 0  # rows

    def take(self, outcome: Outcome) -> Iterator[IngestRecord]:
        """Add an outcome; the records that have become true."""
        if not outcome.rows and not outcome.replaces:
            yield outcome.record
            return
        if not self._outcomes:
            self._since = time.monotonic()
        self._outcomes.append(outcome)
        self.waiting |= {row.content_hash: row for row in outcome.rows}
        if len(self._outcomes) >= self._size or time.monotonic() - self._since >= STORE_AFTER_S:
            yield from self.store()

    def store(self) -> Iterator[IngestRecord]:
        """Store what waits; a track that is refused fails by itself."""
        outcomes, self._outcomes, self.waiting = self._outcomes, [], {}
        if outcomes:
            yield from self._stored(outcomes)

    def _stored(self, outcomes: list[Outcome]) -> Iterator[IngestRecord]:
        """The records of outcomes, which are stored together, or by halves where one of them is refused."""
        try:
            self._write(outcomes)
        except InputRefused as error:
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                yield from self._stored(outcomes[:half])
                yield from self._stored(outcomes[half:])
            else:
                (outcome,) = outcomes
                yield replace(outcome.record, status="failed", reason=f"{outcome.record.path}: {error}")
        else:
            yield from (outcome.record for outcome in outcomes)

    def _write(self, outcomes: list[Outcome]) -> None:
        """Upsert what is new, then delete what it replaces: a track is at worst stored twice, never missing."""
        rows = [row for outcome in outcomes for row in outcome.rows]
        embedding_of: dict[str, NDArray[np.float32]] = {}
        for outcome in outcomes:
            embedding_of |= outcome.embeddings
        embedding_of |= self._collection.embeddings_of([row.id for row in rows if row.id not in embedding_of])
        if any(row.id not in embedding_of for row in rows):
            raise InputRefused(f"deleted from {self._collection.name} during the ingest; run it again")
        if rows:
            self._collection.upsert(rows, np.stack([embedding_of[row.id] for row in rows]))
        replacing = [outcome for outcome in outcomes if outcome.replaces]
        if replacing:
            kept = [row.id for outcome in replacing for row in outcome.rows]
            self._collection.delete_tracks([outcome.record.track_id for outcome in replacing], keep=kept)
        self.n_stored += len(rows)
