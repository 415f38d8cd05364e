"""From the page to the stage: beats become seconds, notes get their player's timing, intonation and loudness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..instruments import INSTRUMENTS
from .bands import Band
from .drums import DRUM_SOUNDS
from .form import Passage
from .patterns import Event, Metre

LOWEST_PITCH, HIGHEST_PITCH = 24, 108  # MIDI numbers

NOTE_DTYPE = np.dtype(
    [
        ("onset_s", "f8"),
        ("duration_s", "f8"),
        ("pitch", "f4"),  # MIDI number, fractions are heard
        ("velocity", "f4"),  # linear amplitude, 1 is a plain note
        ("glide", "f4"),  # semitones from which the tone slides into its pitch
    ]
)
DRUM_DTYPE = np.dtype([("onset_s", "f8"), ("sound", "u1"), ("velocity", "f4")])  # sound: index into DRUM_SOUNDS


class Performance:
    """One evening's tempo and dynamics: a breathing pulse, swung off-beats, loud and soft sections, a slower end."""

    def __init__(
        self,
        segments: Sequence[Passage],
        band: Band,
        metre: Metre,
        bpm: float,
        swing: float,
        ending: str,
        rng: np.random.Generator,
    ) -> None:
        self.rng, self.jitter_s, self.swing = rng, band.jitter_s, swing
        n_beats = segments[-1].end
        self.beats = np.arange(0, n_beats + 2 * metre.beats, 0.5)
        knots = np.arange(0, self.beats[-1] + 8, 8)
        drift = np.interp(self.beats, knots, rng.normal(0, 1, len(knots)))
        phrases = np.sin(2 * np.pi * self.beats / (4 * metre.beats) + rng.uniform(0, 2 * np.pi))
        pace = 1 + band.rubato * (drift + 0.7 * phrases)
        if band.rubato:
            pace *= np.linspace(1, 1 + rng.choice([0, 0, 0, 0.05, 0.12, -0.05]), len(pace))  # they hurry or tire
        if rng.random() < 0.05 and len(segments) > 3:  # the band falls in at another tempo
            pace *= np.where(self.beats < segments[int(rng.integers(1, 3))].at, rng.choice([0.7, 0.8, 1.25]), 1)
        if ending == "ritard":
            pace *= np.interp(self.beats, [n_beats - 2 * metre.beats, n_beats], [1, rng.uniform(0.55, 0.8)])
        lengths_s = 0.5 * 60 / bpm / np.clip(pace, 0.5, 1.5)
        silence_s = min(3.0, rng.exponential(0.5))
        self.seconds = silence_s + np.concatenate([[0], np.cumsum(lengths_s[:-1])])
        self.end_s = float(np.interp(n_beats, self.beats, self.seconds))
        levels = rng.uniform(0.6, 1.0, 1 + max(segment.section for segment in segments))
        self.starts = np.array([segment.at for segment in segments])
        self.loudness = np.array([levels[segment.section] for segment in segments])

    def notes(self, events: Sequence[Event], instrument: str) -> NDArray[np.void]:
        """Events as notes in seconds within the instrument's range.

        Returns
        -------
        notes : np.ndarray of NOTE_DTYPE [shape=(n_events,)]
        """
        rng, plays, n_notes = self.rng, INSTRUMENTS[instrument], len(events)
        onset, duration, pitch, velocity, glide = np.array(events, dtype=np.float64).T
        lowest, highest = max(LOWEST_PITCH, plays.lowest), min(HIGHEST_PITCH, plays.highest)
        pitch += 12 * np.ceil(np.maximum(0, lowest - pitch) / 12)
        pitch -= 12 * np.ceil(np.maximum(0, pitch - highest) / 12)
        if plays.finds_its_pitch:
            spread, drift = rng.choice([0.04, 0.08, 0.08, 0.15, 0.2]), rng.choice([0.0, 0.0, 0.1, 0.15])  # semitones
            knots = rng.normal(0, drift, 12)
            off = rng.normal(0, spread, n_notes) + np.interp(onset, np.linspace(0, self.beats[-1], 12), knots)
            step = max(0.1, spread)
            pitch += step * np.round(np.clip(off, -0.4, 0.4) / step)  # in steps: equal tones are made once
        late_s = rng.normal(0, self.jitter_s) + rng.normal(0, self.jitter_s, n_notes)  # by habit, and by accident
        notes = np.zeros(n_notes, dtype=NOTE_DTYPE)
        notes["onset_s"] = np.maximum(0, self._seconds(onset) + late_s)
        notes["duration_s"] = np.maximum(0.04, self._seconds(onset + duration) - self._seconds(onset))
        notes["pitch"] = pitch
        notes["velocity"] = velocity * self._loudness(onset) * rng.uniform(0.85, 1.1, n_notes)
        notes["glide"] = glide
        return notes

    def drums(self, hits: Sequence[tuple[float, str, float]]) -> NDArray[np.void]:
        """Drum hits, as (beat, sound, velocity), in seconds.

        Returns
        -------
        drums : np.ndarray of DRUM_DTYPE [shape=(n_hits,)]
        """
        rng, n_hits = self.rng, len(hits)
        beat = np.array([beat for beat, _, _ in hits])
        velocity = np.array([velocity for _, _, velocity in hits])
        drums = np.zeros(n_hits, dtype=DRUM_DTYPE)
        drums["onset_s"] = np.maximum(0, self._seconds(beat) + rng.normal(0, 0.4 * self.jitter_s, n_hits))
        drums["sound"] = [DRUM_SOUNDS.index(sound) for _, sound, _ in hits]
        drums["velocity"] = velocity * self._loudness(beat) * rng.uniform(0.85, 1.1, n_hits)
        return drums

    def _seconds(self, beats: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.floor(beats)
        within = np.interp(beats - whole, [0, 0.5, 1], [0, self.swing, 1])
        return np.interp(whole + within, self.beats, self.seconds)

    def _loudness(self, beats: NDArray[np.float64]) -> NDArray[np.float64]:
        segment = np.searchsorted(self.starts, beats + 1e-6, side="right") - 1
        return self.loudness[np.maximum(0, segment)]
