"""The second stage of a query: the matches of the first stage are aligned, judged, and ordered by score.

A pair of four-minute tracks takes about a millisecond for each group of chroma channels, so not all is computed: the
query is normalised by a part of the cohort, all candidates are aligned by one group, and the best of these by the
others. ``docs/alignment.md`` says what that costs in MAP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import decode, to_levels
from ..alignment.evidence import evidence
from ..alignment.qmax import Qmax
from ..alignment.verdict import Verdict, probability
from ..milvus.cohort import Cohort
from .candidates import Candidates, Levels
from .explain import Stretch

if TYPE_CHECKING:
    from ..embedding.embedder import Heard
    from ..milvus.collection import TrackCollection
    from ..milvus.properties import SecondStage
    from ..milvus.search import Match

CANDIDATES = 100  # of the first stage that are aligned, unless the user says otherwise
MOST_CANDIDATES = 400  # that are, of a short query
FULL_FRAMES = 200  # of a query, 93 s: one of half as many is aligned with twice as many candidates in the same time
SHORT = 100  # frames of a query, 46 s, below which the closest segment of a track counts as much as the whole
QUERY_COHORT = 20  # tracks that a query is normalised by


def why_no_verdict(collection: TrackCollection, model: SecondStage, verdict: Verdict | None) -> str:
    """The reason why this collection cannot give verdicts, and what to do; "" where it can."""
    lack = collection.why_no_second_stage(model)
    if not lack and verdict is None:
        return "this bundle has a note map but no calibration.json for this alignment, and so no second stage"
    return lack


def candidates_for(heard: Heard) -> int:
    """The number of candidates that are aligned by default: more for a short query, as its vector finds fewer covers.

    That costs no more time: an alignment takes as long as the query.
    """
    frames = FULL_FRAMES if heard.chroma is None else max(1, len(heard.chroma))
    return min(max(CANDIDATES, CANDIDATES * FULL_FRAMES // frames), MOST_CANDIDATES)


class Reranker:
    """The second stage of a collection, which many queries may share.

    Parameters
    ----------
    collection : TrackCollection
        With chroma of the note map that queries are heard by: `TrackCollection.why_no_second_stage`.
    verdict : Verdict
        Of the bundle: `Embedder.verdict`.
    frame_s : float
        Seconds from one frame of chroma to the next: `Embedder.frame_s`.
    """

    def __init__(self, collection: TrackCollection, verdict: Verdict, frame_s: float) -> None:
        self._collection = collection
        self._verdict = verdict
        self._frame_s = frame_s
        self._cohort = Cohort(collection.cohort()[:QUERY_COHORT], verdict.backgrounds)

    def why_not(self, heard: Heard) -> str:
        """The reason why a query cannot be aligned, in words; "" where it can."""
        frames, needed = 0 if heard.chroma is None else len(heard.chroma), Qmax().embedding
        if frames >= needed:
            return ""
        return (
            f"{frames * self._frame_s:.1f} s are too short to be aligned, {needed * self._frame_s:.1f} s are needed:"
            " ranked by the similarity of the whole alone, without a verdict"
        )

    def rerank(
        self,
        heard: Heard,
        matches: Sequence[Match],
        limit: int = 10,
        min_probability: float = 0.0,
        distinct: bool = False,
    ) -> list[Match]:
        """Matches of a query by score, with their probabilities.

        Parameters
        ----------
        heard : Heard
            The whole query.
        matches : sequence of Match
            Matches of the first stage; `candidates_for` says how many are enough.
        limit : int
            Number of the first of them that get evidence: the stretches that run alike, the transposition and the
            tempo ratio.
        min_probability : float
            Matches below it get no evidence.
        distinct : bool
            Leave out matches that are the same recording as one before them, in another encoding.

        Returns
        -------
        matches : list of Match
            All of them, or the distinct ones. A track that cannot be aligned, as it has no chroma or is too short, has
            the score that its vector gives it, which says nothing of a short one, and no probability. The same
            recording has `SAME_RECORDING` at least, however short it is. Tracks of less than 19 s come last where they
            are improbable. Where the query is too short (`why_not`), matches are as they were.

        Raises
        ------
        ChromaError
            If the chroma or the statistics of a match are damaged: it names the track.
        """
        if heard.chroma is None or self.why_not(heard) or not matches:
            return list(matches)
        query = to_levels(heard.chroma, "query")
        own = self._verdict.statistics(self._cohort.statistics(heard.embedding, query), "query")
        similarities = [match.similarity for match in matches]
        found = self._align(query, heard.embedding, own, [match.track_id for match in matches], similarities)
        scores = found.scores()
        order = found.order(scores)
        ranked = []
        for rank, i in enumerate(found.distinct(order) if distinct else order, start=1):
            score = float(scores[i])
            match = replace(matches[i], rank=rank, score=score)
            if i in found.alignable:
                match = replace(match, probability=probability(score))
                if rank <= limit and probability(score) >= min_probability:
                    match = self._with_evidence(match, query, found.levels[i], found.best_group(i))
            ranked.append(match)
        return ranked

    def stored_scores(
        self, track_id: str, others: Sequence[str], similarities: Sequence[float]
    ) -> tuple[NDArray[np.float64], list[int]] | None:
        """The scores of a stored track with others, by the statistics stored with all of them, and their order.

        Parameters
        ----------
        track_id : str
        others : sequence of str, length n
            track_ids.
        similarities : sequence of float, length n
            Of the first stage, perhaps with segments; they count where there is no chroma, or the track is short.

        Returns
        -------
        scores : np.ndarray [shape=(n,)]
        order : list of int
            Indexes of the others, as `rerank` ranks them. Instead of both None, if the track has no chroma, or less
            than a window of it.

        Raises
        ------
        ChromaError
            As `rerank`.
        """
        found = self._align_stored(track_id, others, similarities)
        if found is None:
            return None
        scores = found[1].scores()
        return scores, found[1].order(scores)

    def stored_stretches(
        self, track_id: str, others: Sequence[str], similarities: Sequence[float]
    ) -> list[Stretch | None]:
        """The stretches that run alike in a stored track, the query, and in each of others; None where nothing recurs.

        Parameters and errors are those of `stored_scores`.
        """
        aligned = self._align_stored(track_id, others, similarities)
        if aligned is None:
            return [None] * len(others)
        query, found = aligned
        return [
            self._stretch(query, found.levels[i], found.best_group(i)) if i in found.alignable else None
            for i in range(len(others))
        ]

    def _align_stored(
        self, track_id: str, others: Sequence[str], similarities: Sequence[float]
    ) -> tuple[Levels, Candidates] | None:
        """The chroma of a stored track and others aligned with it; None if it has none, or less than a window of it."""
        asking = self._collection.stored_chroma([track_id]).get(track_id)
        if asking is None:
            return None
        levels = decode(asking.chroma, self._collection.chroma_channels, track_id)
        if len(levels) < Qmax().embedding:
            return None
        own = self._verdict.statistics(asking.statistics, track_id)
        return levels, self._align(levels, asking.embedding, own, others, similarities)

    def _align(
        self,
        query: Levels,
        embedding: NDArray[np.float32],
        own: NDArray[np.float64],
        track_ids: Sequence[str],
        similarities: Sequence[float],
    ) -> Candidates:
        """The candidates with these track_ids, aligned with a query of which `own` are the statistics."""
        stored = self._collection.stored_chroma(track_ids)
        closest = np.array(similarities, dtype=np.float64)  # (n,); the first stage may have compared segments
        wholes = closest.copy()
        embeddings = np.zeros((len(track_ids), len(embedding)), dtype=np.float32)
        statistics, levels = [], []
        for i, track_id in enumerate(track_ids):
            known = stored.get(track_id)
            if known:
                embeddings[i] = known.embedding
                wholes[i] = known.embedding @ embedding
            statistics.append(self._verdict.statistics(known.statistics if known else {}, track_id))
            levels.append(decode(known.chroma, query.shape[1], track_id) if known else query[:0])
        vectors = (wholes + np.maximum(wholes, closest)) / 2 if len(query) < SHORT else wholes
        return Candidates(self._verdict, query, vectors, wholes, embeddings, own, np.array(statistics), levels)

    def _with_evidence(self, match: Match, query: Levels, candidate: Levels, group: int) -> Match:
        """The match with the stretches, the transposition and the tempo ratio of its alignment, if anything recurs."""
        found = self._stretch(query, candidate, group)
        if found is None:
            return match
        return replace(
            match,
            query_start_s=found.query_start_s,
            query_end_s=found.query_end_s,
            start_s=found.start_s,
            end_s=min(found.end_s, match.duration_s),
            transposition=found.transposition,
            tempo_ratio=round(found.tempo_ratio, 4),
        )

    def _stretch(self, query: Levels, candidate: Levels, group: int) -> Stretch | None:
        """The stretches that run alike, in seconds; None where nothing recurs."""
        seen = evidence(query, candidate, group)
        if seen is None:
            return None
        return Stretch(
            seen.query_start * self._frame_s,
            seen.query_end * self._frame_s,
            seen.candidate_start * self._frame_s,
            seen.candidate_end * self._frame_s,
            seen.transposition,
            seen.tempo_ratio,
        )


def covers_among(matches: Sequence[Match], min_probability: float) -> list[Match]:
    """Those matches whose score says that they are of the query's work with at least this probability.

    The score of a track that cannot be aligned counts, too. Matches that the second stage has not judged are left out.
    """
    return [match for match in matches if match.score is not None and probability(match.score) >= min_probability]
