"""Patterns of the accompaniment: a bar for every style, as block chords, broken chords or rhythms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .patterns import Hit, Metre


def comping_bar(style: str, metre: Metre, rng: np.random.Generator) -> tuple[Hit, ...]:
    """One bar of accompaniment in a style of `COMPING_STYLES`."""
    return _COMPING[style](_Bar.of(metre), rng)


@dataclass(frozen=True)
class _Bar:
    """A metre as the accompaniment counts it."""

    beats: float
    pulses: tuple[float, ...]
    step: float
    steps: tuple[float, ...]
    accent: dict[float, float]  # velocity of each step
    late: float  # beats from a pulse to its off-beat

    @classmethod
    def of(cls, metre: Metre) -> _Bar:
        beats, pulses, step, steps = metre.beats, metre.pulses, metre.step, metre.steps
        accent = {beat: 1.0 if beat == 0 else 0.85 if beat in pulses else 0.65 for beat in steps}
        late = step * (round((pulses[1] if len(pulses) > 1 else beats) / step) // 2 or 1)
        return cls(beats, pulses, step, steps, accent, late)

    @property
    def backbeats(self) -> tuple[float, ...]:
        """The weak pulses, in three all but the first."""
        return self.pulses[1:] if len(self.pulses) == 3 else self.pulses[1::2]

    @property
    def fine(self) -> tuple[float, ...]:
        """Steps, and the middle between two."""
        return tuple(b + d for b in self.steps for d in (0, self.step / 2))


def _halves(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    long = 2 * bar.pulses[-1] / max(1, len(bar.pulses) - 1)
    return tuple(Hit(beat, long, "all", 0.9) for beat in bar.pulses[::2])


def _pulse(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    return tuple(Hit(beat, 0.85 * (bar.beats / len(bar.pulses)), "all", bar.accent[beat]) for beat in bar.pulses)


def _boom_chuck(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    chucks = tuple(Hit(b, 0.6, "upper", 0.7, 0.02) for b in bar.backbeats)
    booms = (bar.pulses[0],) if len(bar.pulses) == 3 else bar.pulses[::2]
    return tuple(Hit(b, 0.9, "fifth" if i % 2 else "root", 1.0) for i, b in enumerate(booms)) + chucks


def _figure(*tones: int) -> Callable[[_Bar, np.random.Generator], tuple[Hit, ...]]:
    """A broken chord: these tones of it in turn, or random ones if there are none, each held over some steps."""

    def play(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
        drawn = tuple(int(i) for i in rng.integers(0, 5, len(bar.steps)))  # by all, as songs stay what they were
        figure = tones or drawn
        held = bar.step * rng.choice([1.0, 2.0, 4.0])
        return tuple(Hit(b, held, figure[i % len(figure)], bar.accent[b]) for i, b in enumerate(bar.steps))

    return play


def _strum(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    struck = [b for b in bar.steps if b == 0 or rng.random() < (0.75 if b in bar.pulses else 0.5)]
    return tuple(Hit(b, 1.6 * bar.step, "all", bar.accent[b], 0.03 if b in bar.pulses else -0.02) for b in struck)


def _riff(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    half = bar.step / 2
    onsets = [b + d for b in bar.steps for d in (0, half) if rng.random() < (0.6 if d == 0 else 0.25)] or [0.0]
    return tuple(Hit(b, 0.8 * bar.step, int(rng.integers(0, 5)), bar.accent.get(b, 0.6)) for b in onsets)


def _stabs(bar: _Bar, rng: np.random.Generator) -> tuple[Hit, ...]:
    chosen = rng.choice(bar.steps, size=min(len(bar.steps), int(rng.integers(1, 4))), replace=False)
    return tuple(Hit(float(b), 0.5 * bar.step, "all", 1.0) for b in sorted(chosen))


_COMPING: dict[str, Callable[[_Bar, np.random.Generator], tuple[Hit, ...]]] = {
    "block": lambda bar, rng: (Hit(0, bar.beats, "all", 0.9),),
    "pad": lambda bar, rng: (Hit(0, bar.beats * 1.05, "all", 0.7),),
    "halves": _halves,
    "pulse": _pulse,
    "eighths": lambda bar, rng: tuple(Hit(b, 0.7 * bar.step, "all", bar.accent[b]) for b in bar.steps),
    "offbeat": lambda bar, rng: tuple(Hit(b + bar.late, 0.6 * bar.step, "all", 0.9) for b in bar.pulses),
    "backbeat": lambda bar, rng: tuple(Hit(b, 0.7, "all", 0.9, 0.02) for b in bar.backbeats or bar.pulses),
    "boom-chuck": _boom_chuck,
    "arpeggio up": _figure(0, 1, 2, 3),
    "arpeggio down": _figure(3, 2, 1, 0),
    "arpeggio wave": _figure(0, 1, 2, 3, 2, 1),
    "alberti": _figure(0, 2, 1, 2),
    "broken": _figure(),
    "strum": _strum,
    "riff": _riff,
    "power": lambda bar, rng: tuple(
        Hit(b, bar.step * (0.95 if b in bar.pulses else 0.7), "power", bar.accent[b]) for b in bar.steps
    ),
    "tremolo": lambda bar, rng: tuple(Hit(b, 0.5 * bar.step, "all", 0.6) for b in bar.fine),
    "charleston": lambda bar, rng: (
        Hit(0, 0.9, "all", 0.9),
        Hit(bar.pulses[min(1, len(bar.pulses) - 1)] + bar.late, 0.5, "all", 0.8),
    ),
    "stabs": _stabs,
    "roll": lambda bar, rng: (Hit(0, bar.beats, "all", 0.9, float(rng.uniform(0.05, 0.15))),),
}

COMPING_STYLES = tuple(_COMPING)
