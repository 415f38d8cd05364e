"""A tune as notes: played as sines, and as the chroma that a perfect ear would hear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE

FRAME_S = 10_240 / SAMPLE_RATE
GROUPS = ("notes", "upper", "lead")
SCALE = (0, 2, 4, 5, 7, 9, 11)

Notes = Sequence[tuple[int, float]]  # MIDI pitch and seconds, one after the other


def tune(seed: int, duration_s: float, transposition: int = 0, beat_s: float = 0.5) -> list[tuple[int, float]]:
    """A random walk over a major scale, in notes of half a beat to two."""
    rng = np.random.default_rng(seed)
    notes: list[tuple[int, float]] = []
    step = 7
    while sum(duration for _, duration in notes) < duration_s - 2 * beat_s:
        step = int(np.clip(step + rng.integers(-3, 4), 0, 13))
        pitch = 60 + transposition + 12 * (step // 7) + SCALE[step % 7]
        notes.append((pitch, beat_s * float(rng.choice([0.5, 1, 1, 2]))))
    return notes


def slower(notes: Notes, ratio: float) -> list[tuple[int, float]]:
    return [(pitch, ratio * duration) for pitch, duration in notes]


def played(notes: Notes) -> NDArray[np.float32]:
    """The waveform: sines with an octave above, each note dying away."""
    parts = []
    for pitch, duration in notes:
        time_s = np.arange(round(duration * SAMPLE_RATE)) / SAMPLE_RATE
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time_s
        parts.append((np.sin(phase) + 0.4 * np.sin(2 * phase)) * np.exp(-2 * time_s) * np.minimum(1, 200 * time_s))
    return (0.3 * np.concatenate(parts)).astype(np.float32)


def chroma_of(notes: Notes, seed: int = 0) -> NDArray[np.float32]:
    """Chroma (n_frames, 36): the share of each frame in which a pitch class sounds, and some noise, in each group."""
    rng = np.random.default_rng(seed)
    ends_s = np.cumsum([duration for _, duration in notes])
    chroma = np.zeros((int(ends_s[-1] / FRAME_S), 12))
    edges_s = np.arange(len(chroma) + 1) * FRAME_S
    for (pitch, duration), end_s in zip(notes, ends_s, strict=True):
        sounding = np.minimum(edges_s[1:], end_s) - np.maximum(edges_s[:-1], end_s - duration)
        chroma[:, pitch % 12] += np.maximum(sounding, 0) / FRAME_S
    groups = [chroma + noise * rng.random(chroma.shape) for noise in (0.5, 0.3, 0.1)]
    return np.concatenate(groups, axis=1).clip(0, 1).astype(np.float32)
