"""All works of a collection: its tracks compared with each other, and grouped.

1. The sound of every whole track with chroma is copied into a `Pairs`, a file beside the output.
2. The index gives each track's nearest tracks, its *candidates*; with each it makes a pair.
3. Pairs are aligned, and the verdict gives the probability that both are one work. A pair of some probability is a
   *link*.
4. Each link is put to the test: each of its tracks is compared with those closest to the other, too.
5. Average linkage makes groups of what is linked (`linkage`), and each link within a group gets its evidence.

The steps are in `steps` and go on where they were stopped. Memory is that of a batch of pairs and one page of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..alignment.qmax import ALIGNMENT
from ..errors import CollectionError
from ..frame import to_dataframe
from ..milvus.chroma_rows import LACKS_CHROMA
from .group import Group, GroupedTrack
from .linkage import count_groups, link_groups
from .pairs import FROM_INDEX, FROM_LINKS, Pairs
from .reading import read_groups
from .steps import Watch, align_pairs, copy_sounds, explain_links, judge_pairs, search_candidates

if TYPE_CHECKING:
    import pandas as pd

    from ..alignment.verdict import Verdict
    from ..milvus.collection import TrackCollection

CANDIDATES = 20  # of each track
MIN_PROBABILITY = 0.5


@dataclass(eq=False)
class Groups:
    """The groups that were found; each iteration reads them, the largest first. Closed, it unlocks the state file."""

    n_groups: int
    n_tracks: int  # in groups
    compared: int  # tracks that were compared
    pairs: int  # pairs that were compared
    without_chroma: int  # whole tracks that were not compared, as they have no chroma
    too_short: list[str] = field(default_factory=list)  # track_ids of tracks that cannot be aligned
    damaged: dict[str, str] = field(default_factory=dict)  # what is wrong with the chroma of tracks, by track_id
    _groups: Callable[[], Iterator[Group]] = field(repr=False, default=lambda: iter(()))
    _close: Callable[[], None] = field(repr=False, default=lambda: None)

    def __iter__(self) -> Iterator[Group]:
        return self._groups()

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each track of a group: the number of the group, from 1, and the fields of the `GroupedTrack`.

        Raises
        ------
        BytecoverError
            As `frame.to_dataframe`.
        """
        rows = ({"group": number} | asdict(track) for number, group in enumerate(self, 1) for track in group.tracks)
        return to_dataframe(rows, ["group", *(entry.name for entry in fields(GroupedTrack))])

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def find_groups(
    collection: TrackCollection,
    verdict: Verdict,
    frame_s: float,
    state: Path,
    *,
    candidates: int = CANDIDATES,
    min_probability: float = MIN_PROBABILITY,
    watch: Watch | None = None,
) -> Groups:
    """The groups of tracks of a collection that are one work.

    Parameters
    ----------
    collection : TrackCollection
    verdict : Verdict
        Of the bundle whose chroma is stored.
    frame_s : float
        Seconds from one frame of that chroma to the next.
    state : Path
        File that keeps what was compared: a run that was stopped goes on from it, and a later one compares only new
        tracks. It takes about 10 kB per track and 100 bytes per pair.
    candidates : int
        Nearest tracks that each track is compared with.
    min_probability : float
        Least probability of a link, and least mean probability of the pairs of a group.
    watch : callable, optional
        Called after each batch of a step.

    Raises
    ------
    CollectionError
        If the collection has no second stage, or as its methods.
    CollectionMismatch
        If `state` is of another collection or model.
    OutputError
        If it cannot be written or is something else.
    """
    if not collection.has_chroma or not collection.count_chroma():
        raise CollectionError(
            f"{collection.name}: no second stage, no chroma is stored that tracks could be compared by; `collections"
            " promote` with a bundle that has a note map gives it one"
        )
    watch = watch or (lambda step, done, total: None)
    facts = {
        "collection": collection.name,
        "model": collection.model_id,
        "note map": collection.chroma_id,
        "alignment": str(ALIGNMENT),
    }
    pairs = Pairs(state, facts, collection.chroma_channels)
    try:
        too_short, damaged = copy_sounds(collection, verdict, pairs, watch)
        pairs.search_with(candidates)
        search_candidates(collection, pairs, candidates, watch)
        align_pairs(pairs, watch)
        judge_pairs(pairs, verdict, FROM_INDEX, watch)
        pairs.want_tests(min_probability)
        align_pairs(pairs, watch)
        judge_pairs(pairs, verdict, FROM_LINKS, watch)
        pairs.strike_links(min_probability)
        link_groups(pairs, min_probability)
        n_groups, n_tracks = count_groups(pairs)
        watch("group", n_groups, n_groups)
        explain_links(pairs, min_probability, watch)
        return Groups(
            n_groups,
            n_tracks,
            compared=pairs.count("tracks"),
            pairs=pairs.count("pairs", "wanted"),
            without_chroma=collection.count(LACKS_CHROMA),
            too_short=too_short,
            damaged=damaged,
            _groups=lambda: read_groups(collection, pairs, min_probability, frame_s),
            _close=pairs.close,
        )
    except BaseException:
        pairs.close()
        raise
