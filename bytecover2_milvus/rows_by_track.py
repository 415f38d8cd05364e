"""The rows of a collection by track, as `metrics.evaluate` compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**23  # similarities computed at once, 64 MiB of float64


class RowsByTrack(NamedTuple):
    """Rows sorted by track_id, so that the segments of a track are side by side."""

    rows: NDArray[np.float64]  # (n_rows, D), of candidates
    asking: NDArray[np.float64]  # (n_rows, D), of queries
    n_segments: NDArray[np.int64]  # (n_tracks,)
    tracks: NDArray[np.str_]  # (n_tracks,): track_ids, ascending
    works: NDArray[np.str_]  # (n_works,): work_ids, ascending
    work: NDArray[np.int64]  # (n_tracks,): the place in `works` of each track's work
    role: NDArray[np.str_]  # (n_tracks,)


def rows_by_track(
    embeddings: NDArray[np.floating],
    work_ids: Sequence[str],
    track_ids: Sequence[str],
    queries: NDArray[np.floating] | None,
    roles: Sequence[str] | None,
) -> RowsByTrack:
    """The rows that `metrics.evaluate` is given, checked and sorted; parameters and errors are its own."""
    embeddings = np.asarray(embeddings)
    asking = embeddings if queries is None else np.asarray(queries)
    track_id, work_id = np.asarray(track_ids, dtype=np.str_), np.asarray(work_ids, dtype=np.str_)  # (n_rows,)
    if embeddings.ndim != 2 or not len(embeddings) == len(track_id) == len(work_id):
        raise ValueError(
            f"embeddings {embeddings.shape}, {len(work_id)} work_ids, {len(track_id)} track_ids: one of each per row"
        )
    if asking.shape != embeddings.shape:
        raise ValueError(f"queries {asking.shape}, embeddings {embeddings.shape}: a query for every row needed")
    for name, unit in (("embeddings", embeddings), ("queries", asking)):
        if not np.all(np.abs(np.linalg.norm(unit, axis=1) - 1) < 1e-3):  # NaN is not below either
            raise ValueError(f"{name}: every row must be finite and of unit norm")
    role = np.asarray([""] * len(embeddings) if roles is None else roles, dtype=np.str_)  # (n_rows,)
    if len(role) != len(embeddings) or not np.isin(role, ("", "query", "gallery")).all():
        raise ValueError(f"{len(role)} roles of {len(embeddings)} rows: each is query, gallery or empty")

    order = np.argsort(track_id, kind="stable")
    tracks, first_row, n_segments = np.unique(track_id[order], return_index=True, return_counts=True)
    works, work = np.unique(work_id[order][first_row], return_inverse=True)
    mixed = np.repeat(works[work], n_segments) != work_id[order]
    if mixed.any():
        raise ValueError(f"track {str(track_id[order][mixed][0])!r} has segments of two works; a track belongs to one")
    rows = embeddings[order].astype(np.float64)
    asking = rows if queries is None else asking[order].astype(np.float64)
    return RowsByTrack(rows, asking, n_segments, tracks, works, work, role[order][first_row])


def similarities_of(by_track: RowsByTrack, queries: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """For each query track, its similarity to every track (n_tracks,), the maximum over the segments of both.

    Computed in float64 and rounded to float32: equal embeddings then get equal similarities wherever they stand in a
    matrix product, and ties are ties.

    Parameters
    ----------
    by_track : RowsByTrack
    queries : np.ndarray [shape=(n_queries,)] of int64
        Numbers of tracks.
    """
    asking, rows, n_segments = by_track.asking, by_track.rows, by_track.n_segments
    first_row = np.cumsum(n_segments) - n_segments  # (n_tracks,)
    block = np.cumsum(n_segments[queries]) // max(1, _BLOCK // len(rows))  # the block that a query falls into
    for tracks in np.split(queries, np.flatnonzero(np.diff(block)) + 1):
        count = n_segments[tracks]
        first = np.cumsum(count) - count  # of each track's segments in the block
        segments = np.arange(count.sum()) + np.repeat(first_row[tracks] - first, count)
        similarity = asking[segments] @ rows.T  # (segments in the block, n_rows)
        if len(n_segments) < len(rows):
            similarity = np.maximum.reduceat(similarity, first_row, axis=1)
            similarity = np.maximum.reduceat(similarity, first, axis=0)
        yield from similarity.astype(np.float32)  # (tracks in the block, n_tracks)
