"""Patterns of the drums: a bar for every style, and the fill at the end of a section."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .patterns import Metre

DRUM_SOUNDS = (
    "kick", "snare", "rim", "clap", "hat", "open hat", "ride", "crash", "tom", "shaker", "brush", "tambourine", "conga",
)  # fmt: skip


def drum_bar(style: str, metre: Metre, rng: np.random.Generator) -> tuple[tuple[float, str, float], ...]:
    """One bar of drums in a style of `DRUM_STYLES`, as (beat, sound, velocity)."""
    return tuple(_DRUMS[style](_Kit.of(metre, rng), rng))


class _Strike(NamedTuple):
    beat: float
    sound: str
    velocity: float


def _strikes(beats: Iterable[float], sound: str, velocity: float) -> list[_Strike]:
    return [_Strike(beat, sound, velocity) for beat in beats]


@dataclass(frozen=True)
class _Kit:
    """A metre as a drummer counts it, and what he may add to any pattern."""

    pulses: tuple[float, ...]
    steps: tuple[float, ...]
    strong: tuple[float, ...]  # pulses
    weak: tuple[float, ...]  # pulses: the backbeat
    middle: float  # a pulse
    fine: tuple[float, ...]  # steps, and the middle between two
    ghost: list[_Strike]  # of the kick, between the others

    @classmethod
    def of(cls, metre: Metre, rng: np.random.Generator) -> _Kit:
        pulses, step, steps = metre.pulses, metre.step, metre.steps
        strong, weak = (pulses[:1], pulses[1:]) if len(pulses) == 3 else (pulses[::2], pulses[1::2])
        fine = tuple(b + d for b in steps for d in (0, step / 2))
        ghost = [_Strike(b, "kick", 0.7) for b in steps if b not in weak and rng.random() < 0.2]
        return cls(pulses, steps, strong, weak, pulses[len(pulses) // 2], fine, ghost)

    @property
    def offbeats(self) -> list[float]:
        return [b for b in self.steps if b not in self.pulses]

    def on_steps(self, sound: str, on_pulse: float, between: float) -> list[_Strike]:
        """A sound on every step, with one velocity on the pulses and another between them."""
        return [_Strike(b, sound, on_pulse if b in self.pulses else between) for b in self.steps]

    def backbeat(self, kick: float, snare: float) -> list[_Strike]:
        """The kick on the strong pulses and the snare on the weak ones."""
        return _strikes(self.strong, "kick", kick) + _strikes(self.weak, "snare", snare)

    @property
    def hats(self) -> list[_Strike]:
        return self.on_steps("hat", 0.5, 0.3)


def _waltz(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    light = [_Strike(b, str(rng.choice(["hat", "rim", "brush"])), 0.5) for b in kit.pulses[1:]]
    return [_Strike(0.0, "kick", 0.9), *light]


def _brushes(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    hits = [_Strike(b, "brush", 0.6 if b in kit.weak else 0.35) for b in kit.pulses] + [_Strike(0.0, "kick", 0.4)]
    return hits + _strikes([b for b in kit.steps if b in kit.pulses or rng.random() < 0.4], "ride", 0.25)


def _bossa(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    hits = _strikes([b for b in kit.steps if rng.random() < 0.4], "rim", 0.7)
    return hits + _strikes(kit.steps, "shaker", 0.4) + _strikes(kit.strong, "kick", 0.6)


def _march(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    return kit.backbeat(0.9, 0.8) + _strikes([b for b in kit.steps if rng.random() < 0.5], "snare", 0.35)


def _train(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    snare = [_Strike(b, "snare", 0.8 if b in kit.weak else 0.35) for b in kit.steps]
    return snare + _strikes(kit.strong, "kick", 0.8)


def _breakbeat(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    hits = [_Strike(0.0, "kick", 1.0), *_strikes([b for b in kit.fine if rng.random() < 0.2], "kick", 0.8)]
    hits += _strikes(kit.weak, "snare", 0.9)
    return hits + _strikes([b for b in kit.fine if rng.random() < 0.15], "snare", 0.3) + kit.hats


def _wash(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    """Cymbals left ringing."""
    ringing = str(rng.choice(["open hat", "crash", "ride"]))
    return kit.backbeat(1.0, 1.0) + kit.ghost + _strikes(kit.pulses, ringing, 0.6)


def _motown(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    """The snare on every pulse."""
    hits = _strikes(kit.pulses, "snare", 0.9) + _strikes(kit.strong, "kick", 0.9)
    return hits + kit.hats + _strikes(kit.pulses, "tambourine", 0.6)


def _disco(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    hits = _strikes(kit.pulses, "kick", 1.0) + _strikes(kit.weak, "snare", 0.8)
    return hits + [_Strike(b, "hat" if b in kit.pulses else "open hat", 0.5) for b in kit.steps]


def _sixteenths(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    hits = [_Strike(0.0, "kick", 1.0), *_strikes([b for b in kit.fine if rng.random() < 0.15], "kick", 0.9)]
    hats = [_Strike(b, "hat", 0.5 if b in kit.pulses else 0.3) for b in kit.fine]
    return hits + _strikes(kit.weak, "snare", 0.9) + hats


def _toms(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    struck = [b for b in kit.steps if b in kit.pulses or rng.random() < 0.5]
    hits = [_Strike(b, "tom", 0.9 if b in kit.pulses else 0.5) for b in struck]
    return hits + _strikes(kit.strong, "kick", 1.0)


def _percussion(kit: _Kit, rng: np.random.Generator) -> list[_Strike]:
    struck = [b for b in kit.fine if b == 0 or rng.random() < 0.5]
    hits = [_Strike(b, "conga", 0.8 if b in kit.pulses else 0.5) for b in struck]
    return hits + [_Strike(b, str(rng.choice(["shaker", "tambourine"])), 0.5) for b in kit.steps]


_DRUMS: dict[str, Callable[[_Kit, np.random.Generator], list[_Strike]]] = {
    "rock": lambda kit, rng: kit.backbeat(1.0, 0.9) + kit.hats + kit.ghost,
    "four on the floor": lambda kit, rng: (
        _strikes(kit.pulses, "kick", 1.0) + _strikes(kit.weak, "clap", 0.8) + _strikes(kit.offbeats, "open hat", 0.35)
    ),
    "half time": lambda kit, rng: [
        _Strike(0.0, "kick", 1.0),
        _Strike(kit.middle, "snare", 1.0),
        *kit.hats,
        *kit.ghost,
    ],
    "shuffle": lambda kit, rng: kit.backbeat(0.9, 0.8) + kit.on_steps("ride", 0.45, 0.3),
    "waltz": _waltz,
    "brushes": _brushes,
    "shaker": lambda kit, rng: kit.on_steps("shaker", 0.7, 0.45),
    "one drop": lambda kit, rng: [_Strike(kit.middle, "kick", 1.0), _Strike(kit.middle, "rim", 0.9), *kit.hats],
    "bossa": _bossa,
    "march": _march,
    "train": _train,
    "breakbeat": _breakbeat,
    "wash": _wash,
    "motown": _motown,
    "disco": _disco,
    "sixteenths": _sixteenths,
    "toms": _toms,
    "percussion": _percussion,
}

DRUM_STYLES = tuple(_DRUMS)


def drum_fill(metre: Metre, rng: np.random.Generator) -> tuple[tuple[float, str, float], ...]:
    """The last pulses of a section, in place of the bar's end."""
    start = metre.pulses[-int(rng.integers(1, min(3, len(metre.pulses) + 1)))]
    sound = str(rng.choice(["snare", "tom"]))
    return tuple((b, sound, 0.5 + 0.4 * b / metre.beats) for b in metre.steps if b >= start)
