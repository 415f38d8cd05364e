"""Qmax: how long the longest stretch is over which two tracks run through the same chroma, gaps and tempo allowed for.

After J. Serra, X. Serra and R. G. Andrzejak, "Cross recurrence quantification for cover song identification", New
Journal of Physics 11, 093017, 2009:

1. The query is transposed to fit the candidate, by the two best transpositions: those whose mean chroma has the largest
   products with that of the candidate (optimal transposition index). The better one counts: that in which the maxima of
   all groups of channels have the larger sum.
2. Windows of `embedding` successive frames are compared by their Euclidean distance.
3. Two windows recur where each is among the nearest neighbours of the other: at most the share `kappa` of all windows,
   in its row and in its column. Where more are equally near, none of these counts: silence does not recur.
4. Q counts recurrences along paths that advance by (1, 1), (1, 2) or (2, 1) windows, and takes `onset` or `extension`
   away for each step within a gap; its maximum is the length of the longest such path.

The score divides that maximum by the fourth root of the product of both lengths in frames, so that it is the same in
both directions; the paper divides by the square root of one length.

Chroma is rounded to 16 levels (`chroma.to_levels`), and all that follows is exact: a pair has one score, in both
directions and in every key. Nothing here starts threads, but the compiled code lets others run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ChromaError, ConfigError, ShortChroma
from .chroma import PITCH_CLASSES, to_levels

ALIGNMENT = 2  # version: one more where the scores of pairs change, as statistics and calibrations are of their scores
LONGEST_FRAMES = 32_767  # of a track, four hours of frames of 0.464 s: neighbours are counted in 16 bits


@dataclass(frozen=True)
class Qmax:
    """The parameters of the alignment. `PUBLISHED` are the paper's (section 4.1, frames of 0.464 s, too).

    The paper needs long windows and many neighbours, as its chroma is made by hand. The learned chroma says more in a
    frame: by shorter windows it finds more covers on every held-out set (``docs/alignment.md``).

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    embedding: int = 4  # frames of a window, without gaps
    kappa: float = 0.07  # share of windows that may be neighbours of one
    onset: float = 0.5  # taken away where a gap begins
    extension: float = 0.5  # taken away where it goes on

    def __post_init__(self) -> None:
        if not 1 <= self.embedding <= 24:  # 24 windows of 12 squares of 15 fit 16 bits
            raise ConfigError(f"embedding = {self.embedding}: from 1 to 24 frames")
        if not 0 < self.kappa < 1:
            raise ConfigError(f"kappa = {self.kappa}: between 0 and 1")
        if not (self.onset >= 0 and self.extension >= 0):
            raise ConfigError(f"onset = {self.onset}, extension = {self.extension}: 0 or more")

    def units(self) -> NDArray[np.uint16] | NDArray[np.float32]:
        """The gain of a recurrence and the costs of a gap, its onset and extension: (3,), in the unit of Q.

        That is a half, in 16 bits, where the penalties are multiples of it: the paths of two tracks of `LONGEST_FRAMES`
        fit, and two of them are computed in the time of one in float32.
        """
        units = np.array([1, self.onset, self.extension])
        halves = 2 * units
        if (halves % 1 == 0).all() and (halves <= np.iinfo(np.uint16).max).all():
            return halves.astype(np.uint16)
        return units.astype(np.float32)


PUBLISHED = Qmax(embedding=9, kappa=0.095, onset=0.5, extension=0.5)


def qmax_scores(
    query: NDArray[np.generic],
    candidates: Sequence[NDArray[np.generic]],
    parameters: Qmax | None = None,
    groups: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """The scores of a query and each of its candidates, one for each group of twelve channels.

    Parameters
    ----------
    query : np.ndarray [shape=(n_frames, 12 * groups)]
        Chroma in [0, 1], or levels, of one group or several. All groups are transposed alike.
    candidates : sequence of np.ndarray [shape=(n_frames, 12 * groups)]
    parameters : Qmax, optional
    groups : sequence of int, optional
        Which of the groups are aligned, by default all. The two transpositions are those of all groups, the better one
        of them is that of these.

    Returns
    -------
    scores : np.ndarray [shape=(n_candidates, groups)] of float32
        Not negative, higher is closer. 0 for a candidate that is shorter than a window: nothing of it can recur.

    Raises
    ------
    ShortChroma
        If the query is shorter than a window: it can be compared by its embedding alone.
    ChromaError
        If chroma holds NaN, is longer than `LONGEST_FRAMES`, or has another number of channels than the query.
    """
    maxima = qmax_maxima(query, candidates, parameters, groups)
    return scores_of(maxima, len(query), [len(candidate) for candidate in candidates])


def qmax_maxima(
    query: NDArray[np.generic],
    candidates: Sequence[NDArray[np.generic]],
    parameters: Qmax | None = None,
    groups: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """The maxima of Q in both of the best two transpositions, before the better one is taken: see `scores_of`.

    Groups that are aligned by several calls may be put beside each other: the two transpositions are the same.

    Parameters, Raises
        As `qmax_scores`.

    Returns
    -------
    maxima : np.ndarray [shape=(n_candidates, groups, 2)] of float32
        In recurrences.
    """
    parameters = parameters or Qmax()
    query = checked_query(query, parameters)
    levels = [checked_candidate(candidate, query, f"candidate {i}") for i, candidate in enumerate(candidates)]
    chosen = np.arange(query.shape[1] // PITCH_CLASSES) if groups is None else np.asarray(groups, dtype=np.int64)
    units = parameters.units()
    maxima = np.zeros((len(levels), len(chosen), 2), units.dtype)
    if maxima.size:
        from .kernel.paths import longest_paths

        offsets = np.concatenate([[0], np.cumsum([len(candidate) for candidate in levels])])
        frames = np.concatenate(levels)
        longest_paths(query, frames, offsets, chosen, parameters.embedding, parameters.kappa, units, maxima)
    return maxima.astype(np.float32) / np.float32(units[0])


def scores_of(maxima: NDArray[np.float32], query_frames: int, candidate_frames: Sequence[int]) -> NDArray[np.float32]:
    """The scores (n_candidates, groups) of `qmax_maxima`, in the transposition whose maxima have the larger sum."""
    better = maxima.sum(axis=1).argmax(axis=1)  # the first one of two that are equal
    longest = np.take_along_axis(maxima, better[:, None, None], axis=2)[..., 0]
    return longest / normaliser(query_frames, np.asarray(candidate_frames, dtype=np.int64))[:, None]


def normaliser(query_frames: int, candidate_frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """The fourth root of the product of both lengths, 1 for an empty candidate."""
    return (np.maximum(query_frames * candidate_frames, 1) ** 0.25).astype(np.float32)


def checked_query(query: NDArray[np.generic], parameters: Qmax) -> NDArray[np.uint8]:
    """The query's levels, if it can be aligned; raises as `qmax_scores`."""
    levels = _within_length(to_levels(query, "query"), "query")
    if len(levels) < parameters.embedding:
        raise ShortChroma(
            f"query: {len(levels)} frames of chroma, {parameters.embedding} are needed to align it;"
            " compare it by its embedding alone"
        )
    return levels


def checked_candidate(candidate: NDArray[np.generic], query: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """The candidate's levels, if the query can be aligned with it; raises as `qmax_scores`."""
    levels = _within_length(to_levels(candidate, name), name)
    if levels.shape[1] != query.shape[1]:
        raise ChromaError(f"{name}: {levels.shape[1]} channels of chroma, the query has {query.shape[1]}")
    return levels


def _within_length(levels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    if len(levels) > LONGEST_FRAMES:
        raise ChromaError(f"{name}: {len(levels)} frames of chroma; at most {LONGEST_FRAMES} can be aligned: cut it")
    return levels
