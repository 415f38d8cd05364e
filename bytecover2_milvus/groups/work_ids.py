"""Work_ids of groups, written into the rows of a collection. Only what differs is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from ..milvus.schema import columns_of

if TYPE_CHECKING:
    from ..milvus.collection import TrackCollection
    from .group import Group

TRACKS_PER_BATCH = 100


@dataclass(frozen=True)
class Changes:
    """The numbers of tracks and rows that writing work_ids changes."""

    tracks: int
    rows: int  # of these tracks
    kept: int  # tracks that keep another work_id than their group's


def count_changes(collection: TrackCollection, groups: Iterable[Group], *, overwrite: bool = False) -> Changes:
    """The numbers of tracks and rows that `write_work_ids` would change."""
    kept = 0

    def counted() -> Iterator[Group]:
        nonlocal kept
        for group in groups:
            kept += 0 if overwrite else sum(track.work_id not in ("", group.work_id) for track in group.tracks)
            yield group

    tracks = rows = 0
    for some in _batches(_changes(counted(), overwrite)):
        tracks += len(some)
        rows += collection.rows_per_track([track_id for track_id, _ in some]).total()
    return Changes(tracks, rows, kept)


def write_work_ids(collection: TrackCollection, groups: Iterable[Group], *, overwrite: bool = False) -> int:
    """Give the tracks of each group the work_id of the group; how many rows were changed.

    Tracks that have a work_id keep it unless `overwrite`. What is stored beside it stays. Run again after it was
    stopped, it changes what is left.

    Raises
    ------
    CollectionError
        As `TrackCollection.upsert`.
    """
    n_rows = 0
    for some in _batches(_changes(groups, overwrite)):
        work_ids = dict(some)
        rows = [replace(row, work_id=work_ids[row.track_id]) for row in collection.rows_of(list(work_ids))]
        features = collection.features_of([row.id for row in rows])
        rows = [row for row in rows if row.id in features]
        if rows:
            collection.upsert(rows, *columns_of([features[row.id] for row in rows]))
        n_rows += len(rows)
    if n_rows:
        collection.flush()
    return n_rows


def _changes(groups: Iterable[Group], overwrite: bool) -> Iterator[tuple[str, str]]:
    """Each track_id that gets a work_id, and that."""
    for group in groups:
        for track in group.tracks:
            if track.work_id != group.work_id and (overwrite or not track.work_id):
                yield track.track_id, group.work_id


def _batches(changes: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while batch := list(islice(changes, TRACKS_PER_BATCH)):
        yield batch
