"""The second stage in a validation: alignment scores of all pairs, normalised as a collection normalises them.

Every track of a set has the same cohort, the `SIZE` clean tracks whose track_ids have the smallest hashes, as a
collection takes those with the smallest ids; a track is not in its own cohort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.alignment.score import Background, Calibration, cohort_statistics, s_norm
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle
from bytecover2_milvus.metrics import Judge
from bytecover2_milvus.milvus.cohort import BACKGROUNDS, SIZE

ALIGNMENT = BACKGROUNDS["notes"]  # hardly matters, as the cohorts of a validation are whole
EQUAL_WEIGHTS = Verdict(BACKGROUNDS, Calibration((1.0, 1.0), 0.0), Calibration((1.0,), 0.0), "nothing: equal weights")


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


def statistics(
    values: NDArray[np.floating],
    track_ids: Sequence[str],
    background: Background,
    asking: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Means and standard deviations (n_queries, 2) of the similarities of queries with the cohort of the set.

    Parameters
    ----------
    values : np.ndarray [shape=(n_queries, n_tracks)]
        Similarities with all clean tracks.
    track_ids : sequence of str, length n_tracks
    background : Background
    asking : sequence of int, length n_queries, optional
        Which track each query was made from, by default all in order.
    """
    order = sorted(range(len(track_ids)), key=lambda i: hashlib.sha256(track_ids[i].encode()).digest())
    cohort = np.array(order[:SIZE])
    own = np.arange(len(track_ids)) if asking is None else np.asarray(asking)
    return cohort_statistics(np.where(own[:, None] == cohort, np.nan, values[:, cohort]), background)


def normalised(
    asked: NDArray[np.floating],
    among: NDArray[np.floating],
    track_ids: Sequence[str],
    background: Background,
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
    """
    of_queries = statistics(asked, track_ids, background)
    return s_norm(asked, of_queries[:, None], statistics(among, track_ids, background)[None])


def judged(
    asked: NDArray[np.floating],
    among: NDArray[np.floating],
    frames: NDArray[np.integer],
    track_ids: Sequence[str],
    verdict: Verdict,
    asking: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean normalised alignment, and the score of the verdict: (n_queries, n_tracks) each.

    Parameters
    ----------
    asked, among : np.ndarray [shape=(n_queries, n_tracks, kinds), (n_tracks, n_tracks, kinds)]
        As `similarities` gives them, of queries and of the clean tracks.
    frames : np.ndarray [shape=(n_queries, n_tracks)]
        Of chroma, of the shorter of both.
    track_ids, asking
        As `statistics` takes them.
    verdict : Verdict
        As `verdict_of` gives it.
    """
    of_queries, of_tracks = (
        np.stack(
            [
                statistics(values[..., kind], track_ids, background, asks)
                for kind, background in enumerate(verdict.backgrounds.values())
            ],
            axis=-2,
        )
        for values, asks in ((asked, asking), (among, None))
    )
    features = verdict.features(asked[..., 0], asked[..., 1:], of_queries[:, None], of_tracks[None], frames)
    return features[..., 1], verdict.scores(features)


@cache
def verdict_of(bundle: str) -> Verdict:
    """The verdict of the bundle in a folder, "" for the one that ships; equal weights where it is not calibrated."""
    return open_bundle(Path(bundle) if bundle else default_bundle()).calibration or EQUAL_WEIGHTS


def by_scores(scores: NDArray[np.floating], track_ids: Sequence[str]) -> Judge:
    """A function by which `metrics.evaluate` ranks a query's candidates: its row of scores (n_tracks, n_tracks)."""
    order = np.argsort(np.asarray(track_ids), kind="stable")
    ordered = scores[np.ix_(order, order)]

    def judge(query: int, similarity: NDArray, tracks: NDArray, works: NDArray) -> NDArray:
        return np.where(np.isneginf(similarity), -np.inf, ordered[query])  # the query itself stays removed

    return judge
