"""A collection judged by its own labels: how a second stage ranks, and how often its verdicts are right.

Conventions
-----------
Every ordered pair of a query and a candidate of known works is a pair. It is accepted where its probability is at least
the threshold. Pairs that the first stage did not find are accepted by none.

Metrics
-------
precision
    The share of accepted pairs that are of one work.
recall
    The share of the pairs of one work that are accepted.
equal error rate
    The share of pairs of one work that are rejected, at the threshold where as large a share of the other pairs is
    accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..alignment.verdict import probability
from .rerank import Reranker

PROBABILITIES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
PRECISIONS = (0.9, 0.99)


@dataclass(frozen=True)
class Point:
    """A threshold, with the precision and the recall that it gives."""

    probability: float
    precision: float | None  # None where nothing is accepted
    recall: float


@dataclass(frozen=True)
class Thresholds:
    """Precision and recall of verdicts by threshold."""

    points: list[Point]  # of `PROBABILITIES`
    equal_error_rate: float
    for_precision: dict[str, Point | None]  # of `PRECISIONS`: the one with the highest recall; None if there is none


def thresholds(scores: ArrayLike, same: ArrayLike, n_same: int, n_different: int) -> Thresholds:
    """Precision and recall of judged pairs by threshold.

    Parameters
    ----------
    scores : array_like [shape=(n,)]
        Log odds.
    same : array_like of bool [shape=(n,)]
        Whether a pair is of one work.
    n_same, n_different : int
        Of all pairs, also those that were not judged.

    Raises
    ------
    ValueError
        If there are no pairs of one of the kinds, or fewer than were judged.
    """
    score, one = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if not (0 < one.sum() <= n_same and 0 <= (~one).sum() <= n_different and n_different > 0):
        raise ValueError(f"{one.sum()} and {(~one).sum()} judged pairs of {n_same} of one work, {n_different} others")
    order = np.argsort(-score, kind="stable")
    score, one = score[order], one[order]
    last = np.append(score[1:] != score[:-1], True)  # of equal scores
    right, wrong = np.cumsum(one)[last], np.cumsum(~one)[last]
    score = score[last]

    def point(i: int, at: float) -> Point:
        """The point at the i + 1 highest scores; without a precision for -1."""
        if i < 0:
            return Point(at, None, 0.0)
        return Point(at, float(right[i] / (right[i] + wrong[i])), float(right[i] / n_same))

    points = [point(int(np.searchsorted(-score, -_log_odds(p), side="right")) - 1, p) for p in PROBABILITIES]
    best = {}
    for precision in PRECISIONS:
        enough = np.flatnonzero(right >= precision * (right + wrong))
        best[str(precision)] = point(int(enough[-1]), probability(score[enough[-1]])) if enough.size else None
    rejected = 1 - np.append(0, right) / n_same
    accepted = np.append(0, wrong) / n_different
    at = int(np.argmin(np.maximum(rejected, accepted)))
    return Thresholds(points, float((rejected[at] + accepted[at]) / 2), best)


def _log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


@dataclass
class Judgements:
    """A judge for `metrics.evaluate`, which remembers the verdicts that it gave."""

    reranker: Reranker
    candidates: int  # of the first stage that are judged
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    same: list[NDArray[np.bool_]] = field(default_factory=list)
    n_same: int = 0
    n_different: int = 0

    def __call__(
        self,
        query: int,
        similarity: NDArray[np.floating],
        track_ids: NDArray[np.str_],
        work_ids: NDArray[np.str_],
    ) -> NDArray[np.float64]:
        """Similarities as the second stage ranks: those that it judges in its order, before all others."""
        return self.verdicts(query, similarity, track_ids, work_ids)[0]

    def verdicts(
        self,
        query: int,
        similarity: NDArray[np.floating],
        track_ids: NDArray[np.str_],
        work_ids: NDArray[np.str_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Similarities as a call gives them, and scores (n_tracks,), which are NaN where nothing was judged."""
        ranked = similarity.astype(np.float64)
        all_scores = np.full(len(ranked), np.nan)
        closest = np.argsort(-similarity, kind="stable")[: self.candidates]
        closest = closest[closest != query]
        known = work_ids != ""
        one = work_ids == work_ids[query]
        self.n_same += int(one.sum()) - 1
        self.n_different += int((known & ~one).sum())
        judged = self.reranker.stored_scores(
            str(track_ids[query]), track_ids[closest].tolist(), similarity[closest].tolist()
        )
        if judged is None:
            return ranked, all_scores
        scores, order = judged
        all_scores[closest] = scores
        self.scores.append(scores[known[closest]])
        self.same.append(one[closest][known[closest]])
        ranked[closest[order]] = 2.0 + np.arange(len(order), 0, -1)  # a cosine is at most 1
        return ranked, all_scores

    def judged(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The scores of all judged pairs of known works, and whether each pair is of one work."""
        scores: NDArray[np.float64] = np.concatenate([np.empty(0), *self.scores])
        same: NDArray[np.bool_] = np.concatenate([np.empty(0, dtype=bool), *self.same])
        return scores, same

    def thresholds(self) -> Thresholds | None:
        """Precision and recall of the verdicts; None where there is nothing to tell them by."""
        scores, same = self.judged()
        if not same.any() or not self.n_different:
            return None
        return thresholds(scores, same, self.n_same, self.n_different)
