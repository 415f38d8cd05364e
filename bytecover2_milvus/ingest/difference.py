"""The tracks in which two collections differ: `target` lacks them, or stores them differently from `source`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ..manifest import Track
from ..milvus.collection import TrackCollection
from ..milvus.schema import STORED, Row, read_row
from .pipeline import TRACKS_PER_LOOKUP

_FACTS = ("path", "work_id", "title", "artist", "metadata")  # by which rows with one id may differ


def lacking(source: TrackCollection, target: TrackCollection) -> Iterator[Row]:
    """One row of each track of `source` that `target` has no row of."""
    return (rows[0] for rows, known in _pairs(source, target) if not known)


def pending(source: TrackCollection, target: TrackCollection, failed: dict[str, str]) -> Iterator[Track]:
    """The tracks of `source` to ingest into `target`, which lacks them or stores them differently.

    Tracks in `failed`, by track_id, and those without a path are left out.
    """
    for rows, known in _pairs(source, target):
        row = rows[0]
        if row.track_id in failed or not row.path:
            continue
        same_rows = {other.id for other in known} == {other.id for other in rows}
        if not same_rows or any(getattr(row, fact) != getattr(other, fact) for other in known for fact in _FACTS):
            yield track_of(row)


def track_of(row: Row) -> Track:
    """The track that `ingest` made the row of."""
    names = (row.work_id, row.title, row.artist)
    return Track(Path(row.path), row.track_id, *names, metadata=dict(row.metadata), from_file=row.from_file)


def _pairs(source: TrackCollection, target: TrackCollection) -> Iterator[tuple[list[Row], list[Row]]]:
    """The rows of each track of `source`, and those that `target` has of it."""
    for page in source.pages(STORED):
        # The keys of a track's rows begin with the same hash: no other page has more of them.
        tracks = iter(_by_track(map(read_row, page)).items())
        while some := dict(islice(tracks, TRACKS_PER_LOOKUP)):
            known = _by_track(target.rows_of(list(some)))
            yield from ((rows, known.get(track_id, [])) for track_id, rows in some.items())


def _by_track(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each track, by track_id."""
    tracks: dict[str, list[Row]] = {}
    for row in rows:
        tracks.setdefault(row.track_id, []).append(row)
    return tracks
