"""The second stage in a validation: alignment scores of all pairs, normalised as a collection normalises them.

Every track of a set has the same cohort, the `SIZE` clean tracks whose track_ids have the smallest hashes, as a
collection takes those with the smallest ids; a track is not in its own cohort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.alignment.score import Background, cohort_statistics, s_norm
from bytecover2_milvus.metrics import Judge
from bytecover2_milvus.milvus.cohort import SIZE

# Of tracks of different works; hardly matters, as the cohorts of a validation are whole.
VECTOR, ALIGNMENT = Background(0.0, 0.15), Background(1.0, 0.3)


def similarities(
    queries: NDArray[np.floating],
    query_levels: Sequence[NDArray[np.uint8]],
    vectors: NDArray[np.floating],
    levels: Sequence[NDArray[np.uint8]],
) -> NDArray[np.floating]:
    """Of queries and tracks (n_queries, n_tracks, kinds): the cosine first, then the scores of the alignments.

    Parameters
    ----------
    queries, vectors : np.ndarray [shape=(n_queries, D), (n_tracks, D)]
        Unit embeddings.
    query_levels, levels : sequences of np.ndarray [shape=(n_frames, channels)]
        Levels of chroma.
    """
    aligned = np.stack([qmax_scores(query, levels) for query in query_levels])
    return np.concatenate([(queries @ vectors.T)[..., None], aligned], axis=-1)


def normalised(
    asked: NDArray[np.floating],
    among: NDArray[np.floating],
    track_ids: Sequence[str],
    background: Background,
    asking: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """The s-norm (n_queries, n_tracks) of similarities of queries with clean tracks.

    Parameters
    ----------
    asked : np.ndarray [shape=(n_queries, n_tracks)]
        Of every query with every clean track.
    among : np.ndarray [shape=(n_tracks, n_tracks)]
        Of every clean track as a query with every clean track.
    track_ids : sequence of str, length n_tracks
    background : Background
    asking : sequence of int, length n_queries, optional
        Which track each query was made from, by default all in order.
    """
    order = sorted(range(len(track_ids)), key=lambda i: hashlib.sha256(track_ids[i].encode()).digest())
    cohort = np.array(order[:SIZE])
    everyone = np.arange(len(track_ids))
    of_queries, of_tracks = (
        cohort_statistics(np.where(np.asarray(own)[:, None] == cohort, np.nan, values[:, cohort]), background)
        for own, values in ((everyone if asking is None else asking, asked), (everyone, among))
    )
    return s_norm(asked, of_queries[:, None], of_tracks[None])


def combined(
    asked: NDArray[np.floating],
    among: NDArray[np.floating],
    track_ids: Sequence[str],
    asking: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Alignment alone and both stages: (n_queries, n_tracks) each, their normalised similarities with equal weights.

    Parameters
    ----------
    asked, among : np.ndarray [shape=(n_queries, n_tracks, kinds), (n_tracks, n_tracks, kinds)]
        As `similarities` gives them, of queries and of the clean tracks.
    track_ids, asking
        As `normalised` takes them.
    """
    vector, *groups = (
        normalised(asked[..., kind], among[..., kind], track_ids, VECTOR if kind == 0 else ALIGNMENT, asking)
        for kind in range(asked.shape[-1])
    )
    alone = np.mean(groups, axis=0)
    return alone, alone + vector


def by_scores(scores: NDArray[np.floating], track_ids: Sequence[str]) -> Judge:
    """A function by which `metrics.evaluate` ranks a query's candidates: its row of scores (n_tracks, n_tracks)."""
    order = np.argsort(np.asarray(track_ids), kind="stable")
    ordered = scores[np.ix_(order, order)]

    def judge(query: int, similarity: NDArray, tracks: NDArray, works: NDArray) -> NDArray:
        return np.where(np.isneginf(similarity), -np.inf, ordered[query])  # the query itself stays removed

    return judge
