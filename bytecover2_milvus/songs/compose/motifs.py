"""Figures that melodies are made of: a rhythm whose strong places are the surest, and a line with a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Motif(NamedTuple):
    """A figure that can return; onsets and durations in beats, the contour in scale steps around home."""

    onsets: tuple[float, ...]
    durations: tuple[float, ...]
    contour: tuple[int, ...]

    def moved(self, steps: int) -> Motif:
        return self._replace(contour=tuple(height + steps for height in self.contour))

    def with_other_end(self, rng: np.random.Generator) -> Motif:
        kept = max(1, len(self.contour) - int(rng.integers(1, 4)))
        end = (height + int(rng.integers(-2, 3)) for height in self.contour[kept:])
        return self._replace(contour=(*self.contour[:kept], *end))


@dataclass(frozen=True)
class Melodist:
    """The habits of one song's melodies."""

    beats: int  # per bar
    step: float  # the value the melody moves in, in beats
    pulses: tuple[int, ...]  # where the foot taps, in beats
    n_steps: int  # of the scale
    density: float  # chance of a note on an off-beat
    leaps: float  # chance of moving by more than a step
    repeats: float  # chance of staying on a tone
    push: float  # chance of a downbeat sung a step early
    rests: float  # chance that a phrase begins late, and that it leaves its last bar to an answer

    def motif(self, bars: int, reach: float, rng: np.random.Generator) -> Motif:
        """A rhythm that may breathe at its end or lead into what follows; `reach` widens or narrows the line."""
        total, last_bar = float(bars * self.beats), float((bars - 1) * self.beats)
        cell = self.rhythm(rng)
        onsets: list[float] = []
        for bar in range(bars):
            if bar and rng.random() < 0.45:
                cell = self.rhythm(rng)
            onsets += [bar * self.beats + beat for beat in cell]
        if rng.random() < self.rests and bars > 1:
            onsets = [onset for onset in onsets if onset < last_bar + 0.01]
        elif rng.random() < 0.75:  # breathe: the phrase ends on a longer note
            last = last_bar + float(rng.choice([0, self.pulses[len(self.pulses) // 2]]))
            onsets = [onset for onset in onsets if onset <= last]
        if rng.random() < self.rests:
            late = float(rng.choice([self.step, self.pulses[1 % len(self.pulses)], self.beats / 2]))
            onsets = [onset for onset in onsets if onset >= late]
        if rng.random() < 0.35:  # the upbeat to what follows
            upbeat = [total - i * self.step for i in range(1, int(rng.integers(2, 5)))]
            onsets = sorted({*onsets, *(onset for onset in upbeat if onset > last_bar)})
        pushed = {
            onset - self.step if onset and onset % self.beats == 0 and rng.random() < self.push else onset
            for onset in onsets
        }
        onsets = sorted(pushed) or [0.0]
        durations = []
        for onset, following in zip(onsets, [*onsets[1:], total], strict=True):
            durations.append(min(following - onset, float(self.beats)) * (0.95 if rng.random() < 0.8 else 0.6))
        return Motif(tuple(onsets), tuple(durations), self.contour(len(onsets), reach, rng))

    def contour(self, n_notes: int, reach: float, rng: np.random.Generator) -> tuple[int, ...]:
        """Scale steps around home: an arc with a walk of small steps and some leaps, which are soon made good."""
        place = np.linspace(0, 1, n_notes)
        arcs = (
            3 * np.sin(np.pi * place) - 1,
            2 - 3 * place,
            3 * place - 1,
            2 * np.sin(2 * np.pi * (place + rng.random())),
            0 * place,
        )
        heights: list[int] = []
        walk = 0.0
        for height in arcs[rng.integers(len(arcs))].tolist():
            if heights and rng.random() < self.repeats:
                heights.append(heights[-1])
                continue
            moves = [-3, -2, 2, 3] if rng.random() < self.leaps else [-1, -1, 0, 1, 1]
            walk = 0.8 * walk + moves[rng.integers(len(moves))]
            heights.append(round(reach * (height + walk) * self.n_steps / 7))
        return tuple(heights)

    def rhythm(self, rng: np.random.Generator) -> list[float]:
        """Onsets in one bar; the stronger the place, the surer a note."""
        onsets = []
        for i in range(round(self.beats / self.step)):
            beat = i * self.step
            on_half = abs(beat * 2 - round(beat * 2)) < 0.01
            pulse = self.on_pulse(beat)
            chance = 0.85 if beat == 0 else 0.3 + 0.6 * self.density if pulse else self.density
            if self.step == 0.25 and not on_half:
                chance *= 0.4
            if rng.random() < chance:
                onsets.append(beat)
        return onsets or [0.0]

    def on_pulse(self, beat: float, every: int = 1) -> bool:
        """True if a beat of a bar falls on a pulse, or on every second one."""
        return min(abs(beat - pulse) for pulse in self.pulses[::every]) < 0.01
