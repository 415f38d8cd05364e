"""Patterns of the players behind the melody in a bar, those of the bass, and their way over chords.

Conventions
-----------
A pattern is a bar of `Hit`s, made once per part from its style and a random generator, so that a player keeps to his
figure while the chords change below it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..score import Chord, Song
from .voicings import nearest, voicing

BASS_STYLES = ("whole", "pulse", "root-fifth", "eighths", "octaves", "walking", "syncopated", "dotted")


class Event(NamedTuple):
    """A note on its way to being played."""

    onset: float  # beats of the arrangement
    duration: float  # beats
    pitch: float  # MIDI number
    velocity: float  # 1 is a plain note
    glide: float = 0.0  # semitones from which the tone slides into its pitch


@dataclass(frozen=True)
class Metre:
    """The beats, steps and pulses of a bar."""

    beats: float  # per bar
    pulses: tuple[float, ...]  # where the foot taps, in beats
    step: float  # the next smaller value, in beats

    @classmethod
    def of(cls, song: Song) -> Metre:
        """The metre of a song; off-beat notes on thirds make its beats ternary."""
        beats = song.beats_per_bar
        if beats in (6, 9, 12):
            return cls(beats, tuple(range(0, beats, 3)), 1.0)
        fractions = np.array([note.onset % 1 for section in song.sections for note in section.melody])
        thirds = np.count_nonzero(np.abs(np.abs(fractions - 0.5) - 1 / 6) < 0.05)
        halves = np.count_nonzero(np.abs(fractions - 0.5) < 0.05)
        step = 1 / 3 if thirds > 2 * halves else 0.5
        return cls(beats, tuple(range(beats)), step)

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(i * self.step for i in range(round(self.beats / self.step)))

    def felt(self, rate: float) -> Metre:
        """The same music counted in bars `rate` times as long: 2 is half-time feel, 0.5 double-time feel."""
        return Metre(self.beats * rate, tuple(pulse * rate for pulse in self.pulses), self.step * rate)


class Hit(NamedTuple):
    beat: float  # within the bar
    duration: float  # beats
    tones: str | int  # "all", "upper", "power", a bass degree ("root", "fifth", ...), or an index into the voicing
    velocity: float
    spread: float = 0.0  # beats between the tones of a strummed or rolled chord


def bass_bar(style: str, metre: Metre, rng: np.random.Generator) -> tuple[Hit, ...]:
    """One bar of bass in a style of `BASS_STYLES`."""
    bar, pulses, step, steps = metre.beats, metre.pulses, metre.step, metre.steps
    gap = bar / len(pulses)
    match style:
        case "whole":
            return (Hit(0, bar, "root", 1.0),)
        case "pulse":
            return tuple(Hit(b, 0.9 * gap, "root", 0.9) for b in pulses)
        case "root-fifth":
            halves = (pulses[0],) if len(pulses) == 3 else pulses[::2]
            return tuple(Hit(b, gap * 1.4, "fifth" if i % 2 else "root", 1.0) for i, b in enumerate(halves))
        case "eighths":
            return tuple(Hit(b, 0.85 * step, "root", 1.0 if b in pulses else 0.8) for b in steps)
        case "octaves":
            return tuple(Hit(b, 0.8 * step, "octave" if i % 2 else "root", 0.9) for i, b in enumerate(steps))
        case "walking":
            walk = ("root", "third", "fifth", "approach") if len(pulses) != 3 else ("root", "fifth", "approach")
            return tuple(Hit(b, 0.95 * gap, walk[i % len(walk)], 0.9) for i, b in enumerate(pulses))
        case "syncopated":
            beats = [b for b in steps if b == 0 or rng.random() < (0.25 if b in pulses else 0.45)]
            degrees = rng.choice(["root", "root", "fifth", "octave"], size=len(beats))
            return tuple(
                Hit(b, 1.2 * step, "root" if b == 0 else str(d), 0.95) for b, d in zip(beats, degrees, strict=True)
            )
        case "dotted":
            return tuple(
                hit
                for b in pulses[::2]
                for hit in (Hit(b, 1.4 * gap, "root", 1.0), Hit(b + gap + step, step, "root", 0.8))
            )
    raise KeyError(style)


def play_pattern(
    pattern: Sequence[Hit],
    chords: Sequence[Chord],
    span: tuple[float, float],
    metre: Metre,
    centre: float,
    kind: str = "close",
) -> list[Event]:
    """A pattern over the chords between two beats; no tone outlasts its chord by more than half a step.

    Parameters
    ----------
    chords : sequence of Chord
        At least one, in beats of the arrangement, in order.
    centre : float
        MIDI number around which the chords lie.
    kind : str
        Of `VOICINGS`.
    """
    events: list[Event] = []
    start, stop = span
    changes = [chord.onset for chord in chords]
    voicings = [voicing(chord, centre, kind) for chord in chords]
    for bar in np.arange(start, stop - 1e-6, metre.beats).tolist():
        hits = list(pattern)
        # A chord that enters between the hits of a sparse pattern would go unheard.
        first, last = bisect_right(changes, bar + 0.01), bisect_left(changes, min(bar + metre.beats, stop) - 0.01)
        for beat in (change - bar for change in changes[first:last]):
            if all(abs(hit.beat - beat) > metre.step + 0.01 for hit in pattern):
                hits.append(pattern[0]._replace(beat=beat))
        for hit in hits:
            onset = bar + hit.beat
            if onset >= stop - 1e-6:
                continue
            index = max(0, bisect_right(changes, onset + 1e-6) - 1)
            chord, following = chords[index], chords[min(index + 1, len(chords) - 1)]
            end = min(onset + hit.duration, chord.onset + chord.duration + metre.step / 2, stop)
            tones = _tones(hit.tones, chord, following, voicings[index], centre)
            for i, pitch in enumerate(tones if hit.spread >= 0 else tones[::-1]):
                delay = i * abs(hit.spread)
                events.append(Event(onset + delay, max(0.05, end - onset - delay), pitch, hit.velocity))
    return events


def _tones(tones: str | int, chord: Chord, following: Chord, voiced: list[int], centre: float) -> list[int]:
    if isinstance(tones, int):
        octave, index = divmod(tones, len(voiced))
        return [voiced[index] + 12 * octave]
    if tones == "all":
        return voiced
    root = nearest(chord.root, centre)
    bass = root if chord.bass is None else nearest(chord.bass, centre)
    intervals = [(pitch_class - chord.root) % 12 for pitch_class in chord.pitch_classes]
    match tones:
        case "upper":
            return voiced[-3:]
        case "power":
            return [root, root + intervals[-1 if len(intervals) == 2 else 2], root + 12]
        case "root":
            return [bass]
        case "third":
            return [root + intervals[1]]
        case "fifth":
            return [root + intervals[min(2, len(intervals) - 1)] - (12 if root > centre else 0)]
        case "octave":
            return [bass + 12]
        case "approach":
            target = nearest(following.root if following.bass is None else following.bass, centre)
            return [target + (1 if target < root else -1) if target != root else root - 5]
    raise KeyError(tones)
