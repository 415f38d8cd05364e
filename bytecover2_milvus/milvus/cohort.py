"""A cohort: some tracks of a collection, to which the similarity of any other track is compared.

The mean and the standard deviation of a track's similarities to the cohort are its *statistics*, by which
`alignment.score` normalises its scores. They are stored with the track. The cohort are the tracks with the smallest
ids: ids are hashes of the files' contents, so this is a random sample, and it hardly changes while a collection grows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import decode
from ..alignment.qmax import ALIGNMENT, Qmax, qmax_scores
from ..alignment.score import Background, cohort_statistics
from ..config import CHROMA_GROUPS
from ..cpu import usable_cores
from ..errors import ChromaError, ShortChroma
from .schema import Features

SIZE = 40  # tracks; a random cohort of 20 normalises nearly as well
# Of tracks of different works, before any has been measured: those of 300 rendered tracks of two minutes. They count
# where there is no calibration, which has those of its bundle: a bundle without one, rows that come as vectors.
BACKGROUNDS = {"vector": Background(0.02, 0.11), "notes": Background(0.98, 0.4), "lead": Background(1.14, 0.37)}
DIGITS = 6  # after the point, of a statistic


@dataclass(frozen=True, eq=False, slots=True)
class StoredChroma:
    """Chroma, embedding and statistics of a stored track."""

    id: str  # of its row
    embedding: NDArray[np.float32]  # (D,), of the whole track
    chroma: str  # as `alignment.chroma.encode` gives it
    statistics: Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class CohortTrack:
    """A track of a cohort."""

    id: str  # of its row
    track_id: str
    embedding: NDArray[np.float32]  # (D,)
    levels: NDArray[np.uint8]  # (n_frames, channels)


class Cohort:
    """The `SIZE` tracks with the smallest ids among those that it was given."""

    def __init__(self, tracks: Iterable[CohortTrack] = (), backgrounds: Mapping[str, Background] = BACKGROUNDS) -> None:
        self._backgrounds = backgrounds
        self.tracks: list[CohortTrack] = []
        self.admit(tracks)

    def admit(self, tracks: Iterable[CohortTrack]) -> None:
        """Count some more among those that it was given; of two with one id, the later."""
        by_id = {track.id: track for track in [*self.tracks, *tracks]}
        self.tracks = [by_id[id] for id in sorted(by_id)[:SIZE]]

    def statistics(
        self, embedding: NDArray[np.float32], levels: NDArray[np.uint8], track_id: str | None = None
    ) -> dict[str, Any]:
        """Mean and deviation of a track's similarities with the cohort.

        Parameters
        ----------
        embedding : np.ndarray [shape=(D,)]
            Of unit norm.
        levels : np.ndarray [shape=(n_frames, channels)] of uint8
        track_id : str, optional
            Of the track, which does not count as one of its own cohort.

        Returns
        -------
        statistics : dict
            ``n``, how many others there are, ``alignment``, the version of the alignment, and the mean and standard
            deviation of the similarities of the embedding ("vector") and of each group of chroma, as
            `alignment.score.cohort_statistics` gives them. What is too short to be aligned has the backgrounds for
            those.
        """
        others = [track for track in self.tracks if track.track_id != track_id]
        scores = np.full((len(others), len(CHROMA_GROUPS)), np.nan)
        long = [i for i, track in enumerate(others) if len(track.levels) >= Qmax().embedding]
        with suppress(ShortChroma):
            scores[long] = qmax_scores(levels, [others[i].levels for i in long])
        similarities = {"vector": [float(track.embedding @ embedding) for track in others]}
        similarities |= dict(zip(CHROMA_GROUPS, scores.T, strict=True))
        told: dict[str, Any] = {"n": len(others), "alignment": ALIGNMENT}
        for name, values in similarities.items():
            told[name] = [round(float(v), DIGITS) for v in cohort_statistics(values, self._backgrounds[name])]
        return told

    def statistics_in_turn(self, tracks: Sequence[CohortTrack]) -> list[dict[str, Any]]:
        """Admit tracks one after the other; the statistics of each with the cohort of that moment, on all cores.

        So they are the same however an ingest, which stores what it has every few seconds, divides the tracks.
        """
        cohorts = []
        for track in tracks:
            self.admit([track])
            cohorts.append(Cohort(self.tracks, self._backgrounds))

        def of(cohort: Cohort, track: CohortTrack) -> dict[str, Any]:
            return cohort.statistics(track.embedding, track.levels, track.track_id)

        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(of, cohorts, tracks))


def cohort_tracks(rows: Iterable[tuple[str, str, Features]], channels: int) -> list[CohortTrack]:
    """The tracks with chroma among rows of id, track_id and features; damaged chroma is left out with a warning."""
    tracks = []
    for id, track_id, features in rows:
        if not features.chroma:
            continue
        try:
            levels = decode(features.chroma, channels, track_id)
        except ChromaError as error:
            warnings.warn(f"{error}; until then it counts in no cohort", stacklevel=2)
        else:
            tracks.append(CohortTrack(id, track_id, features.embedding, levels))
    return tracks
