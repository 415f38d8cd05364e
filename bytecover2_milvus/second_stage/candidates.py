"""The candidates of one query, aligned with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..alignment.qmax import Qmax, qmax_maxima, scores_of
from ..alignment.recording import same_recording
from ..alignment.score import s_norm
from ..alignment.verdict import SAME_RECORDING, SHORTEST, Verdict

FIRST_GROUP = [0]  # that all candidates are aligned by
ALL_GROUPS = 50  # candidates that are aligned by all groups, those that are best by the first

Levels = NDArray[np.uint8]  # (n_frames, channels)


class Candidates:
    """The candidates of a query: all aligned by one group of channels, the best of them by all.

    Parameters
    ----------
    verdict : Verdict
    query : np.ndarray [shape=(n_frames, channels)]
        Levels of its chroma, at least a window of the alignment.
    vectors : np.ndarray [shape=(n,)]
        Similarities by embedding that verdicts are given by.
    wholes : np.ndarray [shape=(n,)]
        Those of whole tracks.
    embeddings : np.ndarray [shape=(n, D)]
        0 where there is no chroma.
    own : np.ndarray [shape=(kinds, 2)]
        Statistics of the query, as `Verdict.statistics` gives them.
    statistics : np.ndarray [shape=(n, kinds, 2)]
        Those of the candidates.
    levels : list of np.ndarray [shape=(n_frames, channels)]
        Without frames where there is no chroma.
    """

    def __init__(
        self,
        verdict: Verdict,
        query: Levels,
        vectors: NDArray[np.float64],
        wholes: NDArray[np.float64],
        embeddings: NDArray[np.float32],
        own: NDArray[np.float64],
        statistics: NDArray[np.float64],
        levels: list[Levels],
    ) -> None:
        self._verdict, self._own, self._statistics = verdict, own, statistics
        self._vectors, self._embeddings = vectors, embeddings
        self.levels = levels
        self._known = np.any(embeddings, axis=1)  # has chroma
        # The length of a track without chroma is not known; it counts as long.
        self._frames = np.array([min(len(candidate) or len(query), len(query)) for candidate in levels])
        self.alignable = [i for i, candidate in enumerate(levels) if len(candidate) >= Qmax().embedding]
        self._maxima = np.full((len(levels), len(verdict.groups), 2), np.nan, dtype=np.float32)
        self._aligned = np.full((len(levels), len(verdict.groups)), np.nan)  # NaN where it is not aligned
        self._recordings: list[int] = []  # those that are the same recording as the query
        self._align(query, self.alignable, FIRST_GROUP)
        scores = self.scores()
        best = sorted(self.alignable, key=lambda i: -scores[i])[:ALL_GROUPS]
        self._align(query, best, [group for group in range(len(verdict.groups)) if group not in FIRST_GROUP])
        self._recordings = [i for i in self.alignable if same_recording(float(wholes[i]), query, levels[i])]

    def scores(self) -> NDArray[np.float64]:
        """The scores of the candidates (n,), by the groups that each is aligned by."""
        known = self._vectors, self._aligned, self._own, self._statistics
        scores = self._verdict.scores(self._verdict.features(*known, self._frames))
        scores[self._recordings] = np.maximum(scores[self._recordings], SAME_RECORDING)
        return scores

    def order(self, scores: NDArray[np.float64]) -> list[int]:
        """The numbers of the candidates by descending score; improbable ones shorter than `SHORTEST` come last.

        Tracks so short resemble every short query.
        """
        short = np.array([len(candidate) < SHORTEST for candidate in self.levels]) & self._known
        order: list[int] = np.lexsort((-scores, short & (scores < 0))).tolist()
        return order

    def distinct(self, order: Sequence[int]) -> list[int]:
        """Those in `order` that are not the same recording as one before them."""
        kept: list[int] = []
        for i in order:
            alike = (self._embeddings[i] @ self._embeddings[k] for k in kept)
            if not any(
                same_recording(float(similarity), self.levels[i], self.levels[k])
                for similarity, k in zip(alike, kept, strict=True)
            ):
                kept.append(i)
        return kept

    def best_group(self, i: int) -> int:
        """The group of channels whose alignment with a candidate stands out most from those with the cohort."""
        normalised = s_norm(self._aligned[i], self._own[1:], self._statistics[i, 1:])
        return int(np.nanargmax(normalised))

    def _align(self, query: Levels, some: Sequence[int], groups: Sequence[int]) -> None:
        """Align some candidates by these groups; all groups by which one is aligned are in one transposition."""
        if some:
            levels, rows = [self.levels[i] for i in some], np.array(some)
            self._maxima[np.ix_(rows, np.array(groups, dtype=int))] = qmax_maxima(query, levels, groups=groups)
            aligned = np.ix_(rows, np.flatnonzero(~np.isnan(self._maxima[some[0], :, 0])))
            self._aligned[aligned] = scores_of(self._maxima[aligned], len(query), [len(level) for level in levels])
