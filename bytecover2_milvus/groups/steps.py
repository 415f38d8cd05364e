"""The steps of `find_groups`: each brings a `Pairs` up to date, batch by batch, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import decode
from ..alignment.evidence import evidence
from ..alignment.qmax import Qmax, qmax_scores
from ..alignment.recording import same_recording
from ..alignment.verdict import probability
from ..cpu import usable_cores
from ..errors import ChromaError
from ..milvus.chroma_rows import HAS_CHROMA
from .linkage import count_unexplained, unexplained
from .pairs import Pair, Pairs, Sound

if TYPE_CHECKING:
    from ..alignment.verdict import Verdict
    from ..milvus.collection import TrackCollection

TRACKS_PER_COPY = 250
TRACKS_PER_SEARCH = 256
PAIRS_PER_BATCH = 1_000  # of tracks that are 100 kB each at most

Watch = Callable[[str, int, int], None]  # the name of the step, how many tracks or pairs are done, and of how many


def copy_sounds(
    collection: TrackCollection, verdict: Verdict, pairs: Pairs, watch: Watch
) -> tuple[list[str], dict[str, str]]:
    """Bring the tracks of `pairs` up to date with the collection.

    Returns
    -------
    too_short : list of str
        track_ids of tracks with fewer frames than a window of the alignment.
    damaged : dict of str to str
        What is wrong with the chroma or the statistics of a track, by track_id.
    """
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


def search_candidates(collection: TrackCollection, pairs: Pairs, candidates: int, watch: Watch) -> None:
    """Make pairs of each track and its candidates, the tracks closest to it by embedding."""
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


def align_pairs(pairs: Pairs, watch: Watch) -> None:
    """Align the wanted pairs that are not aligned yet, on all cores."""
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


def judge_pairs(pairs: Pairs, verdict: Verdict, why: int, watch: Watch) -> None:
    """Store the scores and probabilities of the pairs that are wanted for the reason `why`, by current statistics."""
    done, total = 0, pairs.count("pairs", f"wanted = {why}")
    for page in pairs.aligned(why):
        firsts, seconds, cosines, *blobs = zip(*page, strict=True)
        alignments = np.frombuffer(b"".join(blobs[0]), np.float32).reshape(len(page), -1)
        one, other = (np.frombuffer(b"".join(column), np.float64).reshape(len(page), -1, 2) for column in blobs[1:3])
        scores = verdict.scores(verdict.features(cosines, alignments, one, other, frames=blobs[3])).tolist()
        pairs.store_verdicts(zip(scores, map(probability, scores), firsts, seconds, strict=True))
        done += len(page)
        watch("judge", done, total)


def explain_links(pairs: Pairs, min_probability: float, watch: Watch) -> None:
    """Find and store the evidence of the links within groups, on all cores."""
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
    """Evidence of a link as it is stored: whether both are one recording, and where the tune runs in both.

    "frames" has start and end in the track with the lesser id, then in the other, by the group of channels that aligns
    best; "transposition" and "tempo_ratio" are those of the other. "frames" is None where nothing recurs.
    """
    query, track = sorted((first, second), key=lambda sound: sound.id)
    same = same_recording(similarity, query.levels, track.levels)
    found = evidence(query.levels, track.levels, int(scores.argmax()))
    if found is None:
        return {"same": same, "frames": None}
    frames = [found.query_start, found.query_end, found.candidate_start, found.candidate_end]
    return {"same": same, "frames": frames, "transposition": found.transposition, "tempo_ratio": found.tempo_ratio}
