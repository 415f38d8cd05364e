"""Two files of one recording: another encoding or master of the same performance, where a cover is another one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .evidence import evidence
from .qmax import PUBLISHED

# Different performances of one score on one instrument, in one tempo, come to 0.90; encodings of one to 0.99 and more.
ALIKE = 0.98  # cosine of the embeddings
_COVERED = 0.95  # share of the windows of the shorter one that recur on the path
_TEMPO = 0.01  # by which the tempo ratio may differ from 1


def same_recording(similarity: float, first: NDArray[np.generic], second: NDArray[np.generic]) -> bool:
    """True if two tracks are one recording, perhaps in two encodings, or with the ends cut off.

    Parameters
    ----------
    similarity : float
        Cosine of their embeddings.
    first, second : np.ndarray [shape=(n_frames, 12 * groups)]
        Their chroma, or its levels. Two that are too short to be aligned are told by their similarity alone.

    Raises
    ------
    ChromaError
        As `evidence`.
    """
    if similarity < ALIKE:
        return False
    window = PUBLISHED.embedding
    n_windows = min(len(first), len(second)) - window + 1
    if n_windows < 1:
        return abs(len(first) - len(second)) <= 1
    seen = evidence(first, second, parameters=PUBLISHED)  # of long windows, which repetition hardly disturbs
    if seen is None:
        return False
    covered = len(seen.path) / n_windows
    return seen.transposition == 0 and abs(seen.tempo_ratio - 1) <= _TEMPO and covered >= _COVERED
