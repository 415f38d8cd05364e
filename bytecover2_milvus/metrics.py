"""Metrics of retrieval: each track queries all others, as it is or by an excerpt or a degraded copy of it.

Conventions
-----------
Embeddings are unit rows, so their products are cosine similarities; higher is closer. Rows with one `track_id` are
segments of one track: two tracks are as similar as their most similar segments, and a query never meets its own track,
which is removed by identity. Candidates of equal similarity are ranked by `track_id`. A `work_id` of "" says that the
work is not known: such a track is a candidate, never a query; nor is a track without another candidate of its work. A
protocol may say more by roles: a "query" is no candidate, a track of the "gallery" is no query.

Metrics
-------
`average_precision`, `rank_of_first` and `precision_at` are of one ranked list, `evaluate` gives their means:

MAP
    Mean over queries of the average precision, which divides by all relevant candidates there are.
MR1
    Mean over queries of the rank of the first relevant candidate, counted from 1.
P@10
    Mean over queries of the share of relevant candidates among the first ten; with fewer than ten to find, it stays
    below 1.

They are exact: no list is cut off and no approximate index takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .frame import to_dataframe
from .rows_by_track import rows_by_track, similarities_of

if TYPE_CHECKING:
    import pandas as pd

# The number of the query among the tracks, its similarities to all (n_tracks,), -inf to itself, and the track_ids and
# work_ids of all; it returns other similarities, -inf to itself.
Judge: TypeAlias = Callable[[int, NDArray[np.floating], NDArray[np.str_], NDArray[np.str_]], NDArray[np.floating]]


@dataclass(frozen=True)
class Evaluation:
    """MAP, MR1 and P@10, and the values that two of them are the means of, one per query, for `bootstrap_interval`."""

    map: float
    mr1: float
    precision_at_10: float
    queries: int
    tracks: int
    works: int  # those with a name
    query_work_ids: NDArray[np.str_] = field(repr=False, compare=False)  # (queries,), in the order of track_id
    average_precisions: NDArray[np.float64] = field(repr=False, compare=False)  # (queries,)
    first_ranks: NDArray[np.int64] = field(repr=False, compare=False)  # (queries,)
    query_track_ids: NDArray[np.str_] = field(repr=False, compare=False)  # (queries,), ascending

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each query: its track_id, its work_id, its average precision and the rank of its first right track.

        Raises
        ------
        BytecoverError
            As `frame.to_dataframe`.
        """
        rows = zip(
            self.query_track_ids.tolist(),
            self.query_work_ids.tolist(),
            self.average_precisions.tolist(),
            self.first_ranks.tolist(),
            strict=True,
        )
        names = ("track_id", "work_id", "average_precision", "first_rank")
        return to_dataframe((dict(zip(names, row, strict=True)) for row in rows), names)


def average_precision(similarity: ArrayLike, relevant: ArrayLike) -> float:
    """Average precision of one ranked list.

    Parameters
    ----------
    similarity : array_like [shape=(n_candidates,)]
        Higher is closer. The query itself must not be among the candidates. Equals keep their order.
    relevant : array_like of bool [shape=(n_candidates,)]

    Returns
    -------
    ap : float in (0, 1]
        Mean, over relevant candidates, of the precision at their rank.

    Raises
    ------
    ValueError
        If no candidate is relevant, a similarity is NaN, or the lengths differ.

    Examples
    --------
    The relevant candidates stand at ranks 1 and 3: (1/1 + 2/3) / 2.

    >>> round(average_precision([0.9, 0.8, 0.7, 0.1], [True, False, True, False]), 4)
    0.8333
    """
    return _average_precision(_ranks(similarity, relevant))


def rank_of_first(similarity: ArrayLike, relevant: ArrayLike) -> int:
    """The rank of the first relevant candidate of one ranked list, counted from 1.

    Parameters, errors and ties are those of `average_precision`.

    Examples
    --------
    >>> rank_of_first([0.9, 0.8, 0.7, 0.1], [False, False, True, True])
    3
    """
    return int(_ranks(similarity, relevant)[0])


def precision_at(similarity: ArrayLike, relevant: ArrayLike, n: int = 10) -> float:
    """The share of relevant candidates among the first `n` of one ranked list.

    With fewer than `n` relevant candidates it stays below 1. Parameters, errors and ties are those of
    `average_precision`.

    Raises
    ------
    ValueError
        Also if `n` is not positive.

    Examples
    --------
    >>> precision_at([0.9, 0.8, 0.7, 0.1], [True, False, True, False], n=2)
    0.5
    """
    if n < 1:
        raise ValueError(f"n = {n}: at least one candidate is looked at")
    return _precision_at(_ranks(similarity, relevant), n)


def mr1(similarities: Iterable[ArrayLike], relevant: Iterable[ArrayLike]) -> float:
    """The mean over queries of the rank of the first relevant candidate, counted from 1; lower is better.

    Parameters
    ----------
    similarities, relevant : iterables of array_like
        For each query what `rank_of_first` takes; queries may have different numbers of candidates.

    Raises
    ------
    ValueError
        As `average_precision`, or if there is no query, or not as many of one as of the other.

    Examples
    --------
    The first cover of one query is at rank 1, that of the other at rank 2.

    >>> mr1([[0.9, 0.8], [0.3, 0.5, 0.1]], [[True, False], [True, False, False]])
    1.5
    """
    ranks = [rank_of_first(*query) for query in zip(similarities, relevant, strict=True)]
    if not ranks:
        raise ValueError("no query: the mean rank is not defined")
    return sum(ranks) / len(ranks)


def evaluate(
    embeddings: NDArray[np.floating],
    work_ids: Sequence[str],
    track_ids: Sequence[str],
    queries: NDArray[np.floating] | None = None,
    judge: Judge | None = None,
    roles: Sequence[str] | None = None,
) -> Evaluation:
    """MAP, MR1 and P@10 of a collection in which every track is a query against all others, or as `roles` say.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n_rows, D)]
        Unit rows, in any order; the result does not depend on it.
    work_ids, track_ids : sequences of str, of length n_rows
        See the conventions on top.
    queries : np.ndarray [shape=(n_rows, D)], optional
        Unit rows that query in place of those of `embeddings`, row by row of the same track: of an excerpt, say. The
        candidates stay the rows of `embeddings`, and a query's own track is not among them.
    judge : callable, optional
        Gives the similarities that candidates are ranked by in place of those of the embeddings: a second stage. It
        meets the query and its candidates, no other track.
    roles : sequence of str, of length n_rows, optional
        "query", "gallery" or "", which is both: what the track of each row does.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        If the shapes differ, a row is not finite or not of unit norm, a track belongs to two works, a role is none, or
        there is no query: no track that may ask has a candidate of its work.

    Notes
    -----
    Memory is a float64 copy of the embeddings, a block of 64 MiB, and at most one query's segments times n_rows.
    """
    rows = rows_by_track(embeddings, work_ids, track_ids, queries, roles)
    tracks, works, work = rows.tracks, rows.works, rows.work
    ranked = rows.role != "query"  # is a candidate
    n_relevant = np.bincount(work, weights=ranked)[work] - ranked
    has_cover = np.flatnonzero((n_relevant > 0) & (works[work] != "") & (rows.role != "gallery"))
    if has_cover.size == 0:
        raise ValueError("no query: no work has two tracks; give the work_id of at least two tracks of a work")

    ranks: list[NDArray[np.int64]] = []
    similarities = similarities_of(rows, has_cover)
    for query, similarity in zip(has_cover, similarities, strict=True):
        ranked[query], was_ranked = True, ranked[query]
        here = np.flatnonzero(ranked)  # the candidates, and the query
        ranked[query] = was_ranked
        own, similarity = int(np.searchsorted(here, query)), similarity[here]
        similarity[own] = -np.inf  # removed by identity
        relevant = work[here] == work[query]
        relevant[own] = False
        if judge:
            similarity = judge(own, similarity, tracks[here], works[work[here]])
        ranks.append(_relevant_ranks(similarity, relevant))
    average_precisions = np.array([_average_precision(found) for found in ranks])
    first_ranks = np.array([found[0] for found in ranks])
    return Evaluation(
        map=float(average_precisions.mean()),
        mr1=float(first_ranks.mean()),
        precision_at_10=float(np.mean([_precision_at(found, 10) for found in ranks])),
        queries=int(has_cover.size),
        tracks=int(tracks.size),
        works=int(np.count_nonzero(works != "")),
        query_work_ids=works[work[has_cover]],
        average_precisions=average_precisions,
        first_ranks=first_ranks,
        query_track_ids=tracks[has_cover],
    )


def bootstrap_interval(
    values: NDArray[np.floating], work_ids: Sequence[str], seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values`, one per query, when works are drawn with replacement.

    Works are drawn and not queries, as the queries of one work succeed and fail together.

    Raises
    ------
    ValueError
        If there are no values or not as many as work_ids.
    """
    if len(values) == 0 or len(values) != len(work_ids):
        raise ValueError(f"{len(values)} values and {len(work_ids)} work_ids: one of each per query needed")
    _, work = np.unique(np.asarray(work_ids, dtype=np.str_), return_inverse=True)
    count = np.bincount(work)  # (n_works,)
    total = np.bincount(work, weights=values)  # (n_works,)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):
        drawn = rng.integers(count.size, size=count.size)
        means[index] = total[drawn].sum() / count[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mean_difference(
    values: NDArray[np.floating], others: NDArray[np.floating], work_ids: Sequence[str], seed: int
) -> tuple[float, float, float]:
    """The mean of `values` minus that of `others`, of the same queries, with its `bootstrap_interval`.

    It tells more than two intervals that overlap, as what makes a query hard is hard for both.

    Parameters
    ----------
    values, others : np.ndarray [shape=(n_queries,)]
        Such as the average precisions of two systems, in one order.
    work_ids : sequence of str, length n_queries
    seed : int

    Returns
    -------
    difference, low, high : float

    Raises
    ------
    ValueError
        As `bootstrap_interval`.
    """
    difference = np.subtract(values, others)
    return float(difference.mean()), *bootstrap_interval(difference, work_ids, seed)


def _ranks(similarity: ArrayLike, relevant: ArrayLike) -> NDArray[np.int64]:
    """As `_relevant_ranks`; raises as `average_precision`."""
    similarity, relevant = np.asarray(similarity), np.asarray(relevant, dtype=bool)
    if similarity.ndim != 1 or similarity.shape != relevant.shape:
        raise ValueError(
            f"similarity {similarity.shape} and relevant {relevant.shape}: two vectors of one length needed"
        )
    if not relevant.any():
        raise ValueError("no candidate is relevant: no metric is defined")
    if np.isnan(similarity).any():
        raise ValueError("NaN among the similarities: they cannot be ranked")
    return _relevant_ranks(similarity, relevant)


def _relevant_ranks(similarity: NDArray[np.floating], relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Ranks of the relevant candidates, counted from 1, ascending.

    Counting what comes before each of the few relevant candidates is much faster than sorting all candidates.
    """
    before = [
        np.count_nonzero(similarity > similarity[index]) + np.count_nonzero(similarity[:index] == similarity[index])
        for index in np.flatnonzero(relevant)
    ]
    return np.sort(before) + 1


def _average_precision(ranks: NDArray[np.int64]) -> float:
    return float(np.mean(np.arange(1, ranks.size + 1) / ranks))


def _precision_at(ranks: NDArray[np.int64], n: int) -> float:
    return float(np.count_nonzero(ranks <= n) / n)
