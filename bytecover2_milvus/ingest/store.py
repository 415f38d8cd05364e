"""The interface of the place that an ingest stores rows in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio.segments import Segments
from ..milvus.cohort import CohortTrack
from ..milvus.properties import SecondStage
from ..milvus.schema import Features, Row


class Store(Protocol):
    """A place for the rows of an ingest: a `TrackCollection`, or a `Staging` where no Milvus is."""

    name: str
    model_id: str
    chroma_id: str  # "" where it has no second stage
    chroma_channels: int
    has_full_cohort: bool  # all statistics are of a full cohort, and of the alignment of this version
    segments: Segments

    @property
    def has_chroma(self) -> bool: ...

    def check_chroma_of(self, model: SecondStage) -> None: ...

    def rows_of(self, track_ids: Sequence[str]) -> list[Row]: ...

    def rows_at(self, paths: Sequence[str]) -> list[Row]: ...

    def rows_with(self, ids: Sequence[str], *, fresh: bool = False) -> list[Row]: ...

    def without_chroma(self, track_ids: Sequence[str]) -> set[str]: ...

    def features_of(self, ids: Sequence[str]) -> dict[str, Features]: ...

    def count_chroma(self) -> int: ...

    def note_full_cohort(self) -> None: ...

    def with_old_statistics(self, n: float) -> list[str]: ...

    def cohort(self) -> list[CohortTrack]: ...

    def upsert(
        self,
        rows: Sequence[Row],
        embeddings: NDArray[np.float32],
        chromas: Sequence[str] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
    ) -> None: ...

    def delete_tracks(self, track_ids: Sequence[str], *, keep: Sequence[str] = ()) -> int: ...

    def flush(self) -> None: ...

    def note_ingest(self) -> None: ...
