"""Records of the tracks of an ingest, and the batches in which they are stored before a record is given."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..alignment.score import Background
from ..errors import InputRefused
from ..milvus.cohort import BACKGROUNDS, Cohort
from ..milvus.schema import Features, Row, columns_of
from .cohort_statistics import with_statistics
from .store import Store

STORE_AFTER_S = 2.0  # a batch that has waited so long is stored as it is: who watches, or stops, has its tracks


@dataclass(frozen=True, slots=True)
class IngestRecord:
    """The record of one track: added, updated, skipped or failed."""

    path: str
    track_id: str
    work_id: str
    status: str  # added, updated, skipped or failed
    reason: str = ""  # why it was updated, skipped or failed
    warning: str = ""  # of a damaged file, or of a label that is not stored
    duration_s: float | None = None  # None where it is not known


@dataclass(frozen=True)
class Outcome:
    """A record, and what must be stored or deleted before it is true."""

    record: IngestRecord
    rows: tuple[Row, ...] = ()
    features: Mapping[str, Features] = field(default_factory=dict)  # by id; other rows keep theirs
    replaces: bool = False  # other rows of the track are to go


class Batch:
    """Outcomes that wait to be stored together."""

    def __init__(self, collection: Store, size: int, backgrounds: Mapping[str, Background] = BACKGROUNDS) -> None:
        self._collection = collection
        self._size = size
        self._backgrounds = backgrounds
        self._outcomes: list[Outcome] = []
        self._since = 0.0  # when the first of them came
        self._cohort: Cohort | None = None  # once there is something to compare with it
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
        known: dict[str, Features] = {}
        for outcome in outcomes:
            known |= outcome.features
        known |= self._collection.features_of([row.id for row in rows if row.id not in known])
        if any(row.id not in known for row in rows):
            raise InputRefused(f"deleted from {self._collection.name} during the ingest; run it again")
        if rows:
            features = [known[row.id] for row in rows]
            if self._collection.has_chroma:
                features = self._with_statistics(rows, features)
            self._collection.upsert(rows, *columns_of(features))
        replacing = [outcome for outcome in outcomes if outcome.replaces]
        if replacing:
            kept = [row.id for outcome in replacing for row in outcome.rows]
            self._collection.delete_tracks([outcome.record.track_id for outcome in replacing], keep=kept)
        self.n_stored += len(rows)

    def _with_statistics(self, rows: Sequence[Row], features: Sequence[Features]) -> list[Features]:
        if self._cohort is None:
            self._cohort = Cohort(self._collection.cohort(), self._backgrounds)
        return with_statistics(rows, features, self._cohort, self._collection.chroma_channels)
