"""Patterns of the players behind the melody in a bar: accompaniment, bass and drums, and their way over chords.

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

COMPING_STYLES = (
    "block", "pad", "halves", "pulse", "eighths", "offbeat", "backbeat", "boom-chuck", "arpeggio up", "arpeggio down",
    "arpeggio wave", "alberti", "broken", "strum", "riff", "power", "tremolo", "charleston", "stabs", "roll",
)  # fmt: skip
BASS_STYLES = ("whole", "pulse", "root-fifth", "eighths", "octaves", "walking", "syncopated", "dotted")
DRUM_STYLES = (
    "rock", "four on the floor", "half time", "shuffle", "waltz", "brushes", "shaker", "one drop", "bossa", "march",
    "train", "breakbeat", "wash", "motown", "disco", "sixteenths", "toms", "percussion",
)  # fmt: skip
DRUM_SOUNDS = (
    "kick", "snare", "rim", "clap", "hat", "open hat", "ride", "crash", "tom", "shaker", "brush", "tambourine", "conga",
)  # fmt: skip


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


def comping_bar(style: str, metre: Metre, rng: np.random.Generator) -> tuple[Hit, ...]:
    """One bar of accompaniment in a style of `COMPING_STYLES`."""
    bar, pulses, step, steps = metre.beats, metre.pulses, metre.step, metre.steps
    accent = {beat: 1.0 if beat == 0 else 0.85 if beat in pulses else 0.65 for beat in steps}
    late = step * (round((pulses[1] if len(pulses) > 1 else bar) / step) // 2 or 1)  # from a pulse to its off-beat
    match style:
        case "block":
            return (Hit(0, bar, "all", 0.9),)
        case "pad":
            return (Hit(0, bar * 1.05, "all", 0.7),)
        case "halves":
            return tuple(Hit(beat, 2 * pulses[-1] / max(1, len(pulses) - 1), "all", 0.9) for beat in pulses[::2])
        case "pulse":
            return tuple(Hit(beat, 0.85 * (bar / len(pulses)), "all", accent[beat]) for beat in pulses)
        case "eighths":
            return tuple(Hit(beat, 0.7 * step, "all", accent[beat]) for beat in steps)
        case "offbeat":
            return tuple(Hit(beat + late, 0.6 * step, "all", 0.9) for beat in pulses)
        case "backbeat":
            beats = pulses[1:] if len(pulses) == 3 else pulses[1::2] or pulses
            return tuple(Hit(beat, 0.7, "all", 0.9, 0.02) for beat in beats)
        case "boom-chuck":
            chucks = tuple(Hit(b, 0.6, "upper", 0.7, 0.02) for b in (pulses[1:] if len(pulses) == 3 else pulses[1::2]))
            booms = (pulses[0],) if len(pulses) == 3 else pulses[::2]
            return tuple(Hit(b, 0.9, "fifth" if i % 2 else "root", 1.0) for i, b in enumerate(booms)) + chucks
        case "arpeggio up" | "arpeggio down" | "arpeggio wave" | "alberti" | "broken":
            figures = {
                "arpeggio up": (0, 1, 2, 3),
                "arpeggio down": (3, 2, 1, 0),
                "arpeggio wave": (0, 1, 2, 3, 2, 1),
                "alberti": (0, 2, 1, 2),
                "broken": tuple(int(i) for i in rng.integers(0, 5, len(steps))),
            }
            figure = figures[style]
            held = step * rng.choice([1.0, 2.0, 4.0])
            return tuple(Hit(b, held, figure[i % len(figure)], accent[b]) for i, b in enumerate(steps))
        case "strum":
            struck = [b for b in steps if b == 0 or rng.random() < (0.75 if b in pulses else 0.5)]
            return tuple(Hit(b, 1.6 * step, "all", accent[b], 0.03 if b in pulses else -0.02) for b in struck)
        case "riff":
            onsets = [b + d for b in steps for d in (0, step / 2) if rng.random() < (0.6 if d == 0 else 0.25)] or [0.0]
            return tuple(Hit(b, 0.8 * step, int(rng.integers(0, 5)), accent.get(b, 0.6)) for b in onsets)
        case "power":
            return tuple(Hit(b, step * (0.95 if b in pulses else 0.7), "power", accent[b]) for b in steps)
        case "tremolo":
            return tuple(Hit(b + d, 0.5 * step, "all", 0.6) for b in steps for d in (0, step / 2))
        case "charleston":
            return (Hit(0, 0.9, "all", 0.9), Hit(pulses[min(1, len(pulses) - 1)] + late, 0.5, "all", 0.8))
        case "stabs":
            chosen = rng.choice(steps, size=min(len(steps), int(rng.integers(1, 4))), replace=False)
            return tuple(Hit(float(b), 0.5 * step, "all", 1.0) for b in sorted(chosen))
        case "roll":
            return (Hit(0, bar, "all", 0.9, float(rng.uniform(0.05, 0.15))),)
    raise KeyError(style)


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


def drum_bar(style: str, metre: Metre, rng: np.random.Generator) -> tuple[tuple[float, str, float], ...]:
    """One bar of drums in a style of `DRUM_STYLES`, as (beat, sound, velocity)."""
    pulses, step, steps = metre.pulses, metre.step, metre.steps
    strong, weak = (pulses[:1], pulses[1:]) if len(pulses) == 3 else (pulses[::2], pulses[1::2])
    middle = pulses[len(pulses) // 2]
    hats = [(b, "hat", 0.5 if b in pulses else 0.3) for b in steps]
    ghost = [(b, "kick", 0.7) for b in steps if b not in weak and rng.random() < 0.2]
    match style:
        case "rock":
            hits = [(b, "kick", 1.0) for b in strong] + [(b, "snare", 0.9) for b in weak] + hats + ghost
        case "four on the floor":
            hits = [(b, "kick", 1.0) for b in pulses] + [(b, "clap", 0.8) for b in weak]
            hits += [(b, "open hat", 0.35) for b in steps if b not in pulses]
        case "half time":
            hits = [(0.0, "kick", 1.0), (middle, "snare", 1.0), *hats, *ghost]
        case "shuffle":
            hits = [(b, "kick", 0.9) for b in strong] + [(b, "snare", 0.8) for b in weak]
            hits += [(b, "ride", 0.45 if b in pulses else 0.3) for b in steps]
        case "waltz":
            hits = [(0.0, "kick", 0.9)] + [(b, str(rng.choice(["hat", "rim", "brush"])), 0.5) for b in pulses[1:]]
        case "brushes":
            hits = [(b, "brush", 0.6 if b in weak else 0.35) for b in pulses] + [(0.0, "kick", 0.4)]
            hits += [(b, "ride", 0.25) for b in steps if b in pulses or rng.random() < 0.4]
        case "shaker":
            hits = [(b, "shaker", 0.7 if b in pulses else 0.45) for b in steps]
        case "one drop":
            hits = [(middle, "kick", 1.0), (middle, "rim", 0.9), *hats]
        case "bossa":
            hits = [(b, "rim", 0.7) for b in steps if rng.random() < 0.4] + [(b, "shaker", 0.4) for b in steps]
            hits += [(b, "kick", 0.6) for b in strong]
        case "march":
            hits = [(b, "kick", 0.9) for b in strong] + [(b, "snare", 0.8) for b in weak]
            hits += [(b, "snare", 0.35) for b in steps if rng.random() < 0.5]
        case "train":
            hits = [(b, "snare", 0.8 if b in weak else 0.35) for b in steps] + [(b, "kick", 0.8) for b in strong]
        case "breakbeat":
            fine = [b + d for b in steps for d in (0, step / 2)]
            hits = [(0.0, "kick", 1.0)] + [(b, "kick", 0.8) for b in fine if rng.random() < 0.2]
            hits += [(b, "snare", 0.9) for b in weak] + [(b, "snare", 0.3) for b in fine if rng.random() < 0.15] + hats
        case "wash":  # cymbals left ringing
            ringing = str(rng.choice(["open hat", "crash", "ride"]))
            hits = [(b, "kick", 1.0) for b in strong] + [(b, "snare", 1.0) for b in weak] + ghost
            hits += [(b, ringing, 0.6) for b in pulses]
        case "motown":  # the snare on every pulse
            hits = [(b, "snare", 0.9) for b in pulses] + [(b, "kick", 0.9) for b in strong] + hats
            hits += [(b, "tambourine", 0.6) for b in pulses]
        case "disco":
            hits = [(b, "kick", 1.0) for b in pulses] + [(b, "snare", 0.8) for b in weak]
            hits += [(b, "hat" if b in pulses else "open hat", 0.5) for b in steps]
        case "sixteenths":
            fine = [b + d for b in steps for d in (0, step / 2)]
            hits = [(0.0, "kick", 1.0)] + [(b, "kick", 0.9) for b in fine if rng.random() < 0.15]
            hits += [(b, "snare", 0.9) for b in weak] + [(b, "hat", 0.5 if b in pulses else 0.3) for b in fine]
        case "toms":
            hits = [(b, "tom", 0.9 if b in pulses else 0.5) for b in steps if b in pulses or rng.random() < 0.5]
            hits += [(b, "kick", 1.0) for b in strong]
        case "percussion":
            fine = [b + d for b in steps for d in (0, step / 2)]
            hits = [(b, "conga", 0.8 if b in pulses else 0.5) for b in fine if b == 0 or rng.random() < 0.5]
            hits += [(b, str(rng.choice(["shaker", "tambourine"])), 0.5) for b in steps]
        case _:
            raise KeyError(style)
    return tuple(hits)


def drum_fill(metre: Metre, rng: np.random.Generator) -> tuple[tuple[float, str, float], ...]:
    """The last pulses of a section, in place of the bar's end."""
    start = metre.pulses[-int(rng.integers(1, min(3, len(metre.pulses) + 1)))]
    sound = str(rng.choice(["snare", "tom"]))
    return tuple((b, sound, 0.5 + 0.4 * b / metre.beats) for b in metre.steps if b >= start)


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
