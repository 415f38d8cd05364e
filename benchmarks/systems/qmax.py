"""Qmax: two chroma sequences aligned, and the longest path of what recurs in both.

J. Serra, X. Serra, R. G. Andrzejak, "Cross recurrence quantification for cover song identification", New J. Phys.
2009.

Fixed by the paper: harmonic pitch-class profiles of 12 bins; the optimal transposition; windows of 9 frames of 0.464
s (section 4.1); a recurrence where both are among each other's nearest 9.5 %; gaps cost 0.5 at the onset and 0.5
further.

Chosen: the profile is made of the peaks over pitch of the CQT, where theirs is of the peaks of a spectrum. Beside it
stands the learned chroma of the shipped model, notes and lead added, with the package's parameters
(``docs/alignment.md``). Pairs are scored by the path's length over the normaliser of the package, without a cohort.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bytecover2_milvus.alignment.chroma import fold, to_levels
from bytecover2_milvus.alignment.qmax import PUBLISHED, Qmax, qmax_scores
from bytecover2_milvus.model.note_map import TIME_STRIDE, Chroma, NoteMap, note_input

from .system import FRONT_END, Magnitude

Levels = NDArray[np.uint8]  # (n_frames, channels)


class QmaxOfPeaks:
    """Qmax of pitch-class profiles of spectral peaks, as published."""

    name = "Qmax"

    def hear(self, magnitude: Magnitude) -> Levels:
        """The profile of the track in levels, (n_frames, 12)."""
        n_frames = magnitude.shape[1] // TIME_STRIDE
        blocks = np.asarray(magnitude[:, : n_frames * TIME_STRIDE], dtype=np.float32)
        blocks = blocks.reshape(len(magnitude), n_frames, TIME_STRIDE).mean(axis=2)
        around = np.pad(blocks, ((1, 1), (0, 0)))
        peaks = np.where((blocks >= around[:-2]) & (blocks >= around[2:]), blocks, 0)
        return to_levels(fold(np.sqrt(peaks)))

    def scores(self, query: Levels, tracks: Sequence[Levels]) -> NDArray[np.floating]:
        """The length of the longest path with each track, normalised."""
        return qmax_scores(query, tracks, PUBLISHED)[:, 0]


class QmaxOfNotes:
    """Qmax of the learned chroma: of the notes, and of those that carry the tune."""

    name = "Qmax, learned chroma"

    def __init__(self, note_map: NoteMap) -> None:
        self.note_map = note_map.eval()
        self.chroma = Chroma(FRONT_END.n_bins)

    @torch.inference_mode()
    def hear(self, magnitude: Magnitude) -> Levels:
        """Both groups of chroma in levels, (n_frames, 24)."""
        batch = torch.from_numpy(np.ascontiguousarray(magnitude, dtype=np.float32))[None]
        return to_levels(self.chroma(self.note_map(note_input(batch)))[0].numpy())

    def scores(self, query: Levels, tracks: Sequence[Levels]) -> NDArray[np.floating]:
        """The sum of both groups' paths, normalised."""
        return qmax_scores(query, tracks, Qmax()).sum(axis=1)
