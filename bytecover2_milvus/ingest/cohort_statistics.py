"""Statistics of the rows of an ingest against the cohort, and of the first rows again when the cohort has grown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..alignment.score import Background
from ..milvus.cohort import BACKGROUNDS, SIZE, Cohort, cohort_tracks
from ..milvus.schema import Features, Row, columns_of
from .store import Store

ROWS_PER_RENEWAL = 100


def with_statistics(rows: Sequence[Row], features: Sequence[Features], cohort: Cohort, channels: int) -> list[Features]:
    """The features of rows, those with chroma with their statistics, for which they are admitted to the cohort."""
    tracks = cohort_tracks(
        ((row.id, row.track_id, known) for row, known in zip(rows, features, strict=True) if not known.statistics),
        channels,
    )
    computed = dict(zip((track.id for track in tracks), cohort.statistics_in_turn(tracks), strict=True))
    return [
        Features(known.embedding, known.chroma, computed.get(row.id, known.statistics))
        for row, known in zip(rows, features, strict=True)
    ]


def renew_statistics(
    store: Store, backgrounds: Mapping[str, Background] = BACKGROUNDS, *, imported: bool = False
) -> int:
    """Compute outdated statistics again: those of a smaller cohort than there is now, or of another alignment version.

    Outdated are the statistics of the first tracks of a collection, of all tracks of one that is smaller than a cohort,
    and of all that were aligned by another version. Once there are `SIZE` tracks and none is outdated, the store
    remembers that, and looks again only after rows were `imported` with the statistics of another collection.

    Returns
    -------
    n_renewed : int
        The number of tracks whose statistics were outdated.

    Raises
    ------
    CollectionError
        As the store.
    """
    if not store.has_chroma or (store.has_full_cohort and not imported):
        return 0
    n_tracks = min(SIZE, store.count_chroma())
    ids = store.with_old_statistics(n_tracks - 1) if n_tracks else []
    if ids:
        _renew(ids, store, backgrounds)
    if n_tracks == SIZE:
        store.note_full_cohort()
    return len(ids)


def _renew(ids: Sequence[str], store: Store, backgrounds: Mapping[str, Background]) -> None:
    cohort = Cohort(store.cohort(), backgrounds)
    for start in range(0, len(ids), ROWS_PER_RENEWAL):
        rows = store.rows_with(ids[start : start + ROWS_PER_RENEWAL], fresh=True)
        known = store.features_of([row.id for row in rows])
        rows = [row for row in rows if row.id in known]
        stale = [Features(known[row.id].embedding, known[row.id].chroma) for row in rows]
        renewed = with_statistics(rows, stale, cohort, store.chroma_channels)
        kept = [(row, features) for row, features in zip(rows, renewed, strict=True) if features.statistics]
        if kept:
            store.upsert([row for row, _ in kept], *columns_of([features for _, features in kept]))
