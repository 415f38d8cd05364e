"""The groups that `linkage` has made in a `Pairs`, read with the rows of their tracks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..second_stage.explain import Stretch
from .group import Group, GroupedTrack, Link
from .linkage import groups_of, links_of
from .pairs import Pairs

if TYPE_CHECKING:
    from ..milvus.collection import TrackCollection
    from ..milvus.schema import Row

TRACKS_PER_READ = 500  # whose rows are read at once


def read_groups(collection: TrackCollection, pairs: Pairs, min_probability: float, frame_s: float) -> Iterator[Group]:
    """The groups, the largest first, with the rows of their tracks as they are now; tracks that are gone are left out.

    `frame_s` are the seconds from one frame of chroma to the next, in which evidence is stored.
    """
    batch: list[list[int]] = []
    for members in groups_of(pairs):
        batch.append(members)
        if sum(map(len, batch)) >= TRACKS_PER_READ:
            yield from _read(collection, pairs, batch, min_probability, frame_s)
            batch = []
    yield from _read(collection, pairs, batch, min_probability, frame_s)


def _read(
    collection: TrackCollection,
    pairs: Pairs,
    batch: Sequence[Sequence[int]],
    min_probability: float,
    frame_s: float,
) -> Iterator[Group]:
    """The groups of some lists of members, by their numbers in `pairs`."""
    ids = pairs.ids_of([number for members in batch for number in members])
    rows: dict[str, Row] = {}
    for start in range(0, len(ids), TRACKS_PER_READ):
        some = list(ids.values())[start : start + TRACKS_PER_READ]
        rows |= {row.id: row for row in collection.rows_with(some, fresh=True)}
    for members in batch:
        there = {number: rows[ids[number]] for number in members if ids[number] in rows}
        if len(there) > 1:
            links = (_link(there, frame_s, *found) for found in links_of(pairs, list(there), min_probability))
            yield _group(there, links)


def _group(rows: Mapping[int, Row], links: Iterable[Link]) -> Group:
    """The group of some rows, by number, and the links among them.

    Tracks are sorted by track_id. Those that links of one recording join, directly or over others, share a number.
    """
    links = sorted(links, key=lambda link: (-link.score, link.first, link.second))
    recording_of = {row.track_id: row.track_id for row in rows.values()}
    for link in links:
        if link.same_recording:
            kept, other = recording_of[link.first], recording_of[link.second]
            recording_of = {name: kept if recording == other else recording for name, recording in recording_of.items()}
    ordered = sorted(rows.values(), key=lambda row: row.track_id)
    numbers: dict[str, int] = {}
    for row in ordered:
        numbers.setdefault(recording_of[row.track_id], len(numbers) + 1)
    tracks = [
        GroupedTrack(
            *(row.track_id, row.path, row.duration_s, row.title, row.artist, row.work_id),
            recording=numbers[recording_of[row.track_id]],
        )
        for row in ordered
    ]
    return Group(tracks, links, _work_id(rows.values()))


def _link(
    rows: Mapping[int, Row],
    frame_s: float,
    first: int,
    second: int,
    similarity: float,
    probability: float,
    score: float,
    stored_evidence: str,
) -> Link:
    """A link as `linkage.links_of` gives it, with stretches in seconds; the track with the lesser id is the query."""
    query, track = sorted((rows[first], rows[second]), key=lambda row: row.id)
    found = json.loads(stored_evidence)
    stretch = None
    if found["frames"] is not None:
        ends = zip(found["frames"], (query, query, track, track), strict=True)
        query_start_s, query_end_s, start_s, end_s = (min(frame * frame_s, row.duration_s) for frame, row in ends)
        stretch = Stretch(query_start_s, query_end_s, start_s, end_s, found["transposition"], found["tempo_ratio"])
    return Link(query.track_id, track.track_id, similarity, probability, score, found["same"], stretch)


def _work_id(rows: Iterable[Row]) -> str:
    """The work_id that most of the tracks have; if none has one, a new one, by the smallest id."""
    rows = list(rows)
    known = Counter(row.work_id for row in rows if row.work_id)
    if not known:
        return f"work-{min(row.id for row in rows)[:12]}"
    return min(known, key=lambda work_id: (-known[work_id], work_id))
