"""All works of a collection: its tracks compared with each other, and grouped.

1. The sound of every whole track with chroma is copied into a `Pairs`, a file beside the output.
2. The index gives each track's nearest tracks, its *candidates*; with each it makes a pair.
3. Pairs are aligned, and the verdict gives the probability that both are one work. A pair of some probability is a
   *link*.
4. Each link is put to the test: each of its tracks is compared with those closest to the other, too.
5. Average linkage makes groups of what is linked (`linkage`), and each link within a group gets its evidence.

Every step goes on where it was stopped. Memory is that of a batch of pairs and one page of rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import decode
from ..alignment.evidence import evidence
from ..alignment.qmax import ALIGNMENT, Qmax, qmax_scores
from ..alignment.recording import same_recording
from ..alignment.verdict import probability
from ..cpu import usable_cores
from ..errors import ChromaError, CollectionError
from ..frame import to_dataframe
from ..milvus.chroma_rows import HAS_CHROMA, LACKS_CHROMA
from ..second_stage.explain import Stretch
from .group import Group, GroupedTrack, Link
from .linkage import count_groups, count_unexplained, groups_of, link_groups, links_of, unexplained
from .pairs import FROM_INDEX, FROM_LINKS, Pair, Pairs, Sound

if TYPE_CHECKING:
    import pandas as pd

    from ..alignment.verdict import Verdict
    from ..milvus.collection import TrackCollection
    from ..milvus.schema import Row

CANDIDATES = 20  # of each track
MIN_PROBABILITY = 0.5
TRACKS_PER_COPY = 250
TRACKS_PER_SEARCH = 256
PAIRS_PER_BATCH = 1_000  # of tracks that are 100 kB each at most
TRACKS_PER_READ = 500

Watch = Callable[[str, int, int], None]  # what is being done, how much of it is done, and of how much


@dataclass(eq=False)
class Groups:
    """The groups that were found; each iteration reads them, the largest first. Closed, it gives the file free."""

    n_groups: int
    n_tracks: int  # in groups
    compared: int  # tracks that were compared
    pairs: int  # that were
    without_chroma: int  # whole tracks that were not, as none is stored
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
        File that the run goes on from, and that a later one needs only to compare what is new; about 10 kB per track
        and 100 bytes per pair.
    candidates : int
        Nearest tracks that each track is compared with.
    min_probability : float
        Of a link, and of a group on average.
    watch : callable, optional
        Told how far each step is.

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
        too_short, damaged = _copy(collection, verdict, pairs, watch)
        pairs.search_with(candidates)
        _search(collection, pairs, candidates, watch)
        _align(pairs, watch)
        _judge(pairs, verdict, FROM_INDEX, watch)
        pairs.want_tests(min_probability)
        _align(pairs, watch)
        _judge(pairs, verdict, FROM_LINKS, watch)
        pairs.strike_links(min_probability)
        link_groups(pairs, min_probability)
        n_groups, n_tracks = count_groups(pairs)
        watch("group", n_groups, n_groups)
        _explain(pairs, min_probability, watch)
        return Groups(
            n_groups,
            n_tracks,
            compared=pairs.count("tracks"),
            pairs=pairs.count("pairs", "wanted"),
            without_chroma=collection.count(LACKS_CHROMA),
            too_short=too_short,
            damaged=damaged,
            _groups=lambda: _groups(collection, pairs, min_probability, frame_s),
            _close=pairs.close,
        )
    except BaseException:
        pairs.close()
        raise


def _copy(
    collection: TrackCollection, verdict: Verdict, pairs: Pairs, watch: Watch
) -> tuple[list[str], dict[str, str]]:
    """Bring the tracks of `pairs` up to date; which cannot be aligned: those too short, and those damaged."""
    too_short: list[str] = []
    damaged: dict[str, str] = {}
    total, done = collection.count_chroma(), 0
    for page in collection.pages(["id", "track_id", "statistics"], HAS_CHROMA):
        rows: dict[str, tuple[str, NDArray[np.float64]]] = {}  # by id
        for entity in page:
            try:
                statistics = verdict.statistics(entity["statistics"], entity["track_id"])
            except ChromaError as error:
                damaged[entity["track_id"]] = str(error)
            else:
                rows[entity["id"]] = entity["track_id"], statistics
        unknown = pairs.see(rows)
        done += len(page) - len(unknown)
        for start in range(0, len(unknown), TRACKS_PER_COPY):
            features = collection.features_of(unknown[start : start + TRACKS_PER_COPY])
            sounds: list[Sound] = []
            for id, heard in sorted(features.items()):
                track_id, statistics = rows[id]
                try:
                    levels = decode(heard.chroma, collection.chroma_channels, track_id)
                except ChromaError as error:
                    damaged[track_id] = str(error)
                    continue
                if len(levels) < Qmax().embedding:
                    too_short.append(track_id)
                else:
                    sounds.append(Sound(id, track_id, heard.embedding, levels, statistics))
            pairs.add(sounds)
            done += len(features)
            watch("copy", done, total)
    pairs.forget_others()
    return too_short, damaged


def _search(collection: TrackCollection, pairs: Pairs, candidates: int, watch: Watch) -> None:
    """Make pairs of tracks and their candidates."""
    total = pairs.count("tracks")
    done = total - pairs.count("tracks", "NOT searched")
    while batch := pairs.unsearched(TRACKS_PER_SEARCH):
        found = collection.search(np.stack([embedding for _, _, embedding in batch]), candidates + 1)
        names = [
            [match.track_id for match in matches if match.track_id != track_id][:candidates]
            for (_, track_id, _), matches in zip(batch, found, strict=True)
        ]
        numbers = pairs.numbers_of({name for near in names for name in near})
        wanted = [
            (min(number, numbers[name]), max(number, numbers[name]))
            for (number, _, _), near in zip(batch, names, strict=True)
            for name in near
            if numbers.get(name, number) != number
        ]
        pairs.want_candidates([number for number, _, _ in batch], wanted)
        done += len(batch)
        watch("search", done, total)


def _align(pairs: Pairs, watch: Watch) -> None:
    """Align the wanted pairs that are not aligned, on all cores."""
    total = pairs.count("pairs", "wanted")
    done = total - pairs.count("pairs", "wanted AND alignment IS NULL")
    with ThreadPoolExecutor(usable_cores()) as pool:
        while batch := pairs.unaligned(PAIRS_PER_BATCH):
            sounds = pairs.sounds({number for pair in batch for number in pair})
            jobs = [(first, [second for _, second in some]) for first, some in groupby(batch, key=itemgetter(0))]
            aligned = pool.map(lambda job, sounds=sounds: list(_compared(sounds, *job)), jobs)
            pairs.store_alignments(one for some in aligned for one in some)
            done += len(batch)
            watch("align", done, total)


def _compared(
    sounds: Mapping[int, Sound], first: int, seconds: Sequence[int]
) -> Iterator[tuple[Pair, float, NDArray[np.float32]]]:
    """Pairs of one track, each with its similarity and its alignment scores, one for each group of channels."""
    query = sounds[first]
    scores = qmax_scores(query.levels, [sounds[second].levels for second in seconds])  # (n_seconds, groups)
    for second, score in zip(seconds, scores, strict=True):
        # One by one and in float64, so that no batch changes a digit.
        cosine = float(query.embedding.astype(np.float64) @ sounds[second].embedding)
        yield (first, second), round(min(1.0, max(-1.0, cosine)), 6), score


def _judge(pairs: Pairs, verdict: Verdict, why: int, watch: Watch) -> None:
    """Give verdicts on the pairs that are wanted for a reason, by the statistics of today."""
    done, total = 0, pairs.count("pairs", f"wanted = {why}")
    for page in pairs.aligned(why):
        firsts, seconds, cosines, *blobs = zip(*page, strict=True)
        alignments = np.frombuffer(b"".join(blobs[0]), np.float32).reshape(len(page), -1)
        one, other = (np.frombuffer(b"".join(column), np.float64).reshape(len(page), -1, 2) for column in blobs[1:3])
        scores = verdict.scores(verdict.features(cosines, alignments, one, other, frames=blobs[3])).tolist()
        pairs.store_verdicts(zip(scores, map(probability, scores), firsts, seconds, strict=True))
        done += len(page)
        watch("judge", done, total)


def _explain(pairs: Pairs, min_probability: float, watch: Watch) -> None:
    """Find the evidence of the links within groups, on all cores."""
    after, done, total = (0, 0), 0, count_unexplained(pairs, min_probability)
    with ThreadPoolExecutor(usable_cores()) as pool:
        while batch := unexplained(pairs, min_probability, after, PAIRS_PER_BATCH):
            sounds = pairs.sounds({number for first, second, *_ in batch for number in (first, second)})
            jobs = [
                (sounds[first], sounds[second], similarity, np.frombuffer(scores, np.float32))
                for first, second, similarity, scores in batch
            ]
            found = pool.map(lambda job: _evidence(*job), jobs)
            pairs.store_evidence(zip((pair[:2] for pair in batch), found, strict=True))
            after, done = batch[-1][:2], done + len(batch)
            watch("explain", done, total)


def _evidence(first: Sound, second: Sound, similarity: float, scores: NDArray[np.float32]) -> dict[str, Any]:
    """Facts of a link: one recording or two, and where the tune runs in the track with the lesser id and in the other.

    By the group that aligns best: starts and ends in frames, the transposition and the tempo ratio.
    """
    query, track = sorted((first, second), key=lambda sound: sound.id)
    same = same_recording(similarity, query.levels, track.levels)
    found = evidence(query.levels, track.levels, int(scores.argmax()))
    if found is None:
        return {"same": same, "frames": None}
    frames = [found.query_start, found.query_end, found.candidate_start, found.candidate_end]
    return {"same": same, "frames": frames, "transposition": found.transposition, "tempo_ratio": found.tempo_ratio}


def _groups(collection: TrackCollection, pairs: Pairs, min_probability: float, frame_s: float) -> Iterator[Group]:
    """The groups, with the rows of their tracks as they are now; tracks that are gone are left out."""
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
    text: str,
) -> Link:
    query, track = sorted((rows[first], rows[second]), key=lambda row: row.id)
    told = json.loads(text)
    stretch = None
    if told["frames"] is not None:
        ends = zip(told["frames"], (query, query, track, track), strict=True)
        query_start_s, query_end_s, start_s, end_s = (min(frame * frame_s, row.duration_s) for frame, row in ends)
        stretch = Stretch(query_start_s, query_end_s, start_s, end_s, told["transposition"], told["tempo_ratio"])
    return Link(query.track_id, track.track_id, similarity, probability, score, told["same"], stretch)


def _work_id(rows: Iterable[Row]) -> str:
    """The work_id that most of the tracks have; if none has one, a new one, by the smallest id."""
    rows = list(rows)
    known = Counter(row.work_id for row in rows if row.work_id)
    if not known:
        return f"work-{min(row.id for row in rows)[:12]}"
    return min(known, key=lambda work_id: (-known[work_id], work_id))
