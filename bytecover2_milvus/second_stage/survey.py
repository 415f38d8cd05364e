"""An evaluation looked at closely: how alike pairs of tracks are, which works are found, and what was taken for them.

Conventions
-----------
A pair is a query and another track of known work; both tracks of a pair may be queries, so it counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..metrics import Evaluation
from .judgements import Judgements

BINS = 200  # of similarities from -1 to 1


@dataclass(frozen=True)
class Candidate:
    """A track as an evaluation ranked it for a query."""

    track_id: str
    work_id: str  # "" where the work is not known
    rank: int  # from 1
    similarity: float  # of the first stage
    score: float | None  # log odds of the second stage; None where it did not judge the pair


@dataclass(frozen=True)
class Mistake:
    """A query, a track of another work that was ranked high, and one of its own work that was ranked below."""

    track_id: str
    work_id: str
    average_precision: float
    wrong: Candidate  # the first that is not of the work
    right: Candidate  # the first of the work below it


@dataclass(frozen=True)
class WorkFound:
    """The tracks of a work as queries for each other."""

    work_id: str
    queries: int
    map: float
    mr1: float


@dataclass
class Survey:
    """A judge for `metrics.evaluate`, which ranks as another one does and remembers what is worth looking at.

    Parameters
    ----------
    judge : Judgements, optional
        The second stage; by default the first stage ranks.
    """

    judge: Judgements | None = None
    same: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))  # pairs by similarity
    other: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    _mistakes: list[tuple[str, str, Candidate, Candidate] | None] = field(default_factory=list)  # of each query

    def __call__(
        self, query: int, similarity: NDArray[np.floating], track_ids: NDArray[np.str_], work_ids: NDArray[np.str_]
    ) -> NDArray[np.floating]:
        """Similarities that candidates are ranked by."""
        ranked, scores = similarity, None
        if self.judge:
            ranked, scores = self.judge.verdicts(query, similarity, track_ids, work_ids)
        one = work_ids == work_ids[query]
        one[query] = False
        others = (work_ids != "") & ~one
        others[query] = False
        self.same += _counted(similarity[one])
        self.other += _counted(similarity[others])
        wrong, right = _mistaken(ranked, one, query)
        if wrong is None or right is None:
            self._mistakes.append(None)
            return ranked

        def candidate(i: int) -> Candidate:
            score = None if scores is None or np.isnan(scores[i]) else float(scores[i])
            return Candidate(str(track_ids[i]), str(work_ids[i]), _rank(ranked, i), float(similarity[i]), score)

        self._mistakes.append((str(track_ids[query]), str(work_ids[query]), candidate(wrong), candidate(right)))
        return ranked

    def worst(self, evaluation: Evaluation, n: int) -> list[Mistake]:
        """The `n` queries with the lowest average precision, the worst first, of those that are not perfect.

        Parameters
        ----------
        evaluation : Evaluation
            Which this survey judged for.
        n : int
        """
        order = np.argsort(evaluation.average_precisions, kind="stable")
        found: list[Mistake] = []
        for i in order.tolist():
            known = self._mistakes[i]
            if len(found) == n:
                break
            if known is not None:
                track_id, work_id, wrong, right = known
                found.append(Mistake(track_id, work_id, float(evaluation.average_precisions[i]), wrong, right))
        return found


def works_found(evaluation: Evaluation) -> list[WorkFound]:
    """The works of the queries, those that are found worst first; MAP and MR1 are means over the queries of a work."""
    works, work, queries = np.unique(evaluation.query_work_ids, return_inverse=True, return_counts=True)
    maps = np.bincount(work, weights=evaluation.average_precisions) / queries
    mr1s = np.bincount(work, weights=evaluation.first_ranks) / queries
    order = np.lexsort((works, -mr1s, maps))
    return [WorkFound(str(works[i]), int(queries[i]), float(maps[i]), float(mr1s[i])) for i in order]


def precision_and_recall(same: ArrayLike, other: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall where pairs from each bin on are accepted, bins in ascending order.

    Parameters
    ----------
    same, other : array_like of int [shape=(n,)]
        Pairs of one work, and others, in each bin.

    Returns
    -------
    precision, recall : np.ndarray [shape=(n,)]
        A precision is NaN where nothing is accepted.
    """
    right, wrong = (np.cumsum(np.asarray(counts)[::-1])[::-1].astype(np.float64) for counts in (same, other))
    accepted = right + wrong
    precision = np.divide(right, accepted, out=np.full(len(right), np.nan), where=accepted > 0)
    return precision, right / max(1.0, float(right[0]))


def _counted(similarity: NDArray[np.floating]) -> NDArray[np.int64]:
    bins = ((similarity.astype(np.float64) + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def _mistaken(ranked: NDArray[np.floating], one: NDArray[np.bool_], query: int) -> tuple[int | None, int | None]:
    """The candidate ranked first of those that are not of the work, and the first of the work below it."""
    wrongs = ~one
    wrongs[query] = False
    if not wrongs.any():
        return None, None
    wrong = int(np.argmax(np.where(wrongs, ranked, -np.inf)))
    if not wrongs[wrong]:
        return None, None
    below = one & ((ranked < ranked[wrong]) | ((ranked == ranked[wrong]) & (np.arange(len(ranked)) > wrong)))
    return (wrong, int(np.argmax(np.where(below, ranked, -np.inf)))) if below.any() else (None, None)


def _rank(ranked: NDArray[np.floating], i: int) -> int:
    """As `metrics` ranks, from 1: of equals, the first comes first."""
    return int(np.count_nonzero(ranked > ranked[i]) + np.count_nonzero(ranked[:i] == ranked[i])) + 1
