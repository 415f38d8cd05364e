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
from bytecover2_milvus.cohort import SIZE
from bytecover2_milvus.metrics import Judge

# Of tracks of different works; hardly matters, as the cohorts of a validation are whole.
VECTOR, ALIGNMENT = Background(0.0, 0.15), Background(1.0, 0.3)


def normalised(similarity: NDArray[np.floating], track_ids: Sequence[str], background: Background) -> NDArray:
    """The s-norm (n_queries, n_tracks) of similarities of the queries of some tracks with all clean tracks.

    Parameters
    ----------
    similarity : np.ndarray [shape=(n_tracks, n_tracks, 2)]
        Of every query (first axis) with every clean track, and of every clean track with every clean track (last axis:
        query, clean).
    """
    order = sorted(range(len(track_ids)), key=lambda i: hashlib.sha256(track_ids[i].encode()).digest())
    cohort = order[:SIZE]
    own = np.arange(len(track_ids))[:, None] == np.array(cohort)  # (n_tracks, n_cohort)
    of_queries, of_tracks = (
        cohort_statistics(np.where(own, np.nan, similarity[:, cohort, side]), background) for side in (0, 1)
    )
    return s_norm(similarity[..., 0], of_queries[:, None], of_tracks[None])


def alignments(queries: Sequence[NDArray[np.uint8]], tracks: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Scores (n_queries, n_tracks, groups) of the alignment of levels (n_frames, channels)."""
    return np.stack([qmax_scores(query, tracks) for query in queries])


def combined(
    vector: NDArray[np.floating], aligned: NDArray[np.floating], track_ids: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Alignment alone and both stages: (n_queries, n_tracks) each, their normalised similarities with equal weights.

    Parameters
    ----------
    vector : np.ndarray [shape=(n_tracks, n_tracks, 2)]
        Cosines, as `normalised` takes them.
    aligned : np.ndarray [shape=(n_tracks, n_tracks, groups, 2)]
    """
    groups = [normalised(aligned[:, :, group], track_ids, ALIGNMENT) for group in range(aligned.shape[2])]
    alone = np.mean(groups, axis=0)
    return alone, alone + normalised(vector, track_ids, VECTOR)


def by_scores(scores: NDArray[np.floating], track_ids: Sequence[str]) -> Judge:
    """What `metrics.evaluate` ranks the candidates of each query by: its row of scores (n_tracks, n_tracks)."""
    order = np.argsort(np.asarray(track_ids), kind="stable")
    ordered = scores[np.ix_(order, order)]

    def judge(query: int, similarity: NDArray, tracks: NDArray, works: NDArray) -> NDArray:
        return np.where(np.isneginf(similarity), -np.inf, ordered[query])  # the query itself stays removed

    return judge
