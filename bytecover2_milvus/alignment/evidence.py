"""The path of Qmax through two tracks: where the tune runs in both, with its transposition and its tempo ratio."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import ChromaError
from .qmax import Qmax, checked_candidate, checked_query, normaliser

MOST_CELLS = 1 << 28  # of a recurrence matrix; two bytes each. Two tracks of two hours at 0.464 s per frame
_FITTED = 200  # cells of a path that the tempo is fitted to, at most


@dataclass(frozen=True)
class Evidence:
    """The longest path of two tracks. Frames are those of their chroma; an end is the first frame after the last."""

    score: float  # as `qmax_scores` gives it, of all groups at once
    query_start: int
    query_end: int
    candidate_start: int
    candidate_end: int
    transposition: int  # semitones that the candidate is above the query, -5 to 6
    tempo_ratio: float  # frames of the query per frame of the candidate: 2 where the candidate is twice as fast
    path: NDArray[np.int32] = field(repr=False)  # (n_cells, 2): windows of query and candidate that recur, in order
    recurrence: NDArray[np.bool_] = field(repr=False)  # (query windows, candidate windows); window i begins at frame i


def evidence(
    query: NDArray[np.generic], candidate: NDArray[np.generic], group: int = 0, parameters: Qmax | None = None
) -> Evidence | None:
    """The longest path of a query and a candidate; None if nothing recurs.

    It is in the transposition that `qmax_scores` takes for all groups together.

    Parameters
    ----------
    query, candidate : np.ndarray [shape=(n_frames, 12 * groups)]
        As for `qmax_scores`.
    group : int
        Which twelve channels are aligned.
    parameters : Qmax, optional

    Raises
    ------
    ShortChroma
        If the query is shorter than a window.
    ChromaError
        As `qmax_scores`; or if the recurrence matrix would have more than `MOST_CELLS` cells.
    """
    from .kernel.paths import recurrence_of
    from .kernel.trace import trace

    parameters = parameters or Qmax()
    query = checked_query(query, parameters)
    candidate = checked_candidate(candidate, query, "candidate")
    n, m = (len(chroma) - parameters.embedding + 1 for chroma in (query, candidate))
    if m < 1:
        return None
    if n * m > MOST_CELLS:
        raise ChromaError(f"query and candidate: {n} x {m} windows; a path is found in {MOST_CELLS} cells at most")
    units, recurrence = parameters.units(), np.empty((n, m), dtype=bool)
    semitones, longest = recurrence_of(
        query, candidate, group, parameters.embedding, parameters.kappa, units, recurrence
    )
    if not longest:
        return None
    path = np.empty((min(n, m), 2), dtype=np.int32)
    _, length = trace(recurrence, units, np.empty((n, m), dtype=np.uint8), path)
    path = path[:length][::-1]
    cells = path[recurrence[path[:, 0], path[:, 1]]]
    (query_start, candidate_start), (query_last, candidate_last) = cells[0].tolist(), cells[-1].tolist()
    return Evidence(
        float(longest / (units[0] * normaliser(len(query), np.array([len(candidate)]))[0])),
        query_start,
        query_last + parameters.embedding,
        candidate_start,
        candidate_last + parameters.embedding,
        (semitones + 5) % 12 - 5,
        _tempo_ratio(cells),
        np.ascontiguousarray(cells),
        recurrence,
    )


def _tempo_ratio(cells: NDArray[np.int32]) -> float:
    """The median slope of all pairs of cells (Theil-Sen), which a few cells astray do not move; 1 for a single cell."""
    chosen = cells[np.linspace(0, len(cells) - 1, min(len(cells), _FITTED)).round().astype(int)]
    first, second = np.triu_indices(len(chosen), 1)
    if not len(first):
        return 1.0
    steps = chosen[second] - chosen[first]  # both advance along a path
    return float(np.median(steps[:, 0] / steps[:, 1]))
