"""A group: tracks of a collection that are one work, and the links that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..second_stage.explain import Stretch


@dataclass(frozen=True)
class GroupedTrack:
    """A track of a group."""

    track_id: str
    path: str
    duration_s: float
    title: str = ""
    artist: str = ""
    work_id: str = ""  # as it is stored; "" where the work is not known
    recording: int = 1  # from 1, in the group: tracks with one number are encodings of one recording


@dataclass(frozen=True)
class Link:
    """Facts about two tracks of a group."""

    first: str  # track_id
    second: str
    similarity: float  # cosine of the embeddings
    probability: float  # that both are one work
    score: float  # log odds of it
    same_recording: bool = False  # in another encoding, perhaps
    stretch: Stretch | None = None  # `first` is its query


@dataclass(frozen=True)
class Group:
    """Tracks that are one work, and the links that say so."""

    tracks: Sequence[GroupedTrack]
    links: Sequence[Link]
    work_id: str = ""  # that the tracks have or could get


def in_order(group: Group) -> list[tuple[GroupedTrack, Link | None]]:
    """The tracks of a group, each with its strongest link to one before it (a maximum spanning tree, by Prim).

    It begins with the first track of the strongest link. A track without a link comes last, with None.
    """
    tracks = {track.track_id: track for track in group.tracks}
    links = sorted(group.links, key=lambda link: -link.score)
    start = links[0].first if links else next(iter(tracks))
    order: list[tuple[GroupedTrack, Link | None]] = [(tracks.pop(start), None)]
    while tracks:
        link = next((link for link in links if (link.first in tracks) != (link.second in tracks)), None)
        next_id = next(iter(tracks)) if link is None else link.first if link.first in tracks else link.second
        order.append((tracks.pop(next_id), link))
    return order
