"""How a melody is delivered: nobody sings or plays it exactly as written, and nobody twice the same way.

Events are tuples (onset, duration, pitch, velocity, glide): beats, MIDI numbers, and the semitones from which a tone
slides into its pitch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .patterns import voicing
from .score import Chord, Note

LeadEvent = tuple[float, float, float, float, float]

SECOND_VOICES = ("thirds", "sixths", "octave")


@dataclass(frozen=True)
class Manner:
    """One performer's habits."""

    freedom: float  # chance per note of a changed rhythm
    ornaments: float  # chance per note of a grace, a mordent or a passing note
    glides: float  # chance per note of sliding into it
    legato: float  # share of the written duration that sounds
    back_phrasing: float  # beats behind the accompaniment, all the time


def deliver(notes: Sequence[Note], manner: Manner, scale: Sequence[int], rng: np.random.Generator) -> list[LeadEvent]:
    """The melody as this performer brings it this time; pitch classes of the notes themselves stay as written.

    Parameters
    ----------
    notes : sequence of Note
        In order of onset; onsets in beats of the arrangement.
    scale : sequence of int
        Pitch classes from which ornaments are taken.
    """
    events: list[LeadEvent] = []
    draws = rng.random((len(notes), 4))
    previous = None
    for i, note in enumerate(notes):
        changed, ornamented, slid, kind = draws[i]
        onset, duration, pitch = note.onset, note.duration * manner.legato, float(note.pitch)
        until = notes[i + 1].onset if i + 1 < len(notes) else onset + note.duration
        velocity = 0.75 + 0.2 * (onset % 1 < 0.01) + 0.1 * rng.random()
        glide = 0.0
        if slid < manner.glides:
            glide = -float(rng.choice([1, 2])) if previous is None else float(np.clip(previous - pitch, -4, 4))
        if changed < manner.freedom:
            if kind < 0.4 and onset >= 0.5 and (not events or events[-1][0] < onset - 0.5):  # comes early
                onset, duration = onset - 0.5, duration + 0.5
            elif kind < 0.6 and duration > 0.75:  # comes late
                onset, duration = onset + 0.25, duration - 0.25
            elif kind < 0.8 and duration >= 1:  # one long note becomes two
                half = duration / 2
                events.append((onset, 0.9 * half, pitch, velocity, glide))
                onset, duration, glide = onset + half, half, 0.0
            elif kind < 0.9:  # clipped short
                duration *= 0.5
            else:  # held over the rest that follows
                duration = max(duration, min(until - onset, 4.0))
        elif ornamented < manner.ornaments and duration >= 0.4:
            upper, lower = _neighbour(pitch, scale, 1), _neighbour(pitch, scale, -1)
            if kind < 0.45:  # grace note
                grace = 0.1
                events.append((onset, grace, lower if kind < 0.2 else upper, 0.8 * velocity, 0.0))
                onset, duration = onset + grace, duration - grace
            elif kind < 0.7:  # mordent
                turn = min(0.12, duration / 4)
                events.append((onset, turn, pitch, velocity, glide))
                events.append((onset + turn, turn, upper, 0.8 * velocity, 0.0))
                onset, duration = onset + 2 * turn, duration - 2 * turn
            elif i + 1 < len(notes) and abs(notes[i + 1].pitch - pitch) in (3, 4):  # passing note
                step = _neighbour(pitch, scale, 1 if notes[i + 1].pitch > pitch else -1)
                tail = min(0.5, duration / 2)
                events.append((onset, duration - tail, pitch, velocity, glide))
                onset, duration, pitch, glide = onset + duration - tail, tail, step, 0.0
        if events and events[-1][0] + events[-1][1] > onset:  # one voice: the new note cuts the old one
            start, _, *rest = events[-1]
            events[-1] = (start, max(0.05, onset - start), *rest)
        events.append((onset, max(0.05, duration), pitch, velocity, glide))
        previous = float(note.pitch)
    return [(onset + manner.back_phrasing, *rest) for onset, *rest in events]


def second_voice(events: Sequence[LeadEvent], kind: str, scale: Sequence[int]) -> list[LeadEvent]:
    """The same rhythm in parallel: a third or a sixth below within the scale, or an octave above."""
    if kind == "octave":
        return [(onset, duration, pitch + 12, velocity, glide) for onset, duration, pitch, velocity, glide in events]
    steps = {"thirds": -2, "sixths": -5}[kind]
    return [
        (onset, duration, _neighbour(pitch, scale, steps), 0.85 * velocity, 0.0)
        for onset, duration, pitch, velocity, _ in events
    ]


def improvise(
    chords: Sequence[Chord],
    start: float,
    stop: float,
    centre: float,
    step: float,
    scale: Sequence[int],
    rng: np.random.Generator,
) -> list[LeadEvent]:
    """A solo over the chords: chord tones where they change, scale runs and rests between."""
    events: list[LeadEvent] = []
    beat, pitch = start, centre
    while beat < stop - step:
        chord = next(c for c in reversed(chords) if c.onset <= beat + 0.01 or c is chords[0])
        duration = step * float(rng.choice([1, 1, 2, 2, 3, 4]))
        if rng.random() < 0.15:
            beat += duration
            continue
        pitch = _neighbour(pitch, scale, int(rng.choice([-2, -1, 1, 2])))
        if abs(beat - chord.onset) < step:
            pitch = float(min(voicing(chord, pitch), key=lambda tone: abs(tone - pitch)))
        pitch += 12 * ((pitch < centre - 10) - (pitch > centre + 10))
        events.append((beat, 0.9 * min(duration, stop - beat), pitch, float(rng.uniform(0.7, 1.0)), 0.0))
        beat += duration
    return events


def fill_gaps(
    melody: Sequence[LeadEvent], chords: Sequence[Chord], centre: float, step: float, rng: np.random.Generator
) -> list[LeadEvent]:
    """Answers of another instrument in the singer's rests: a few chord tones up or down."""
    events: list[LeadEvent] = []
    for (onset, duration, *_), (following, *_) in zip(melody, melody[1:], strict=False):
        gap = following - onset - duration
        if gap < 1.4 or rng.random() < 0.4:
            continue
        start = onset + duration + gap % step + 0.25 * (gap > 2)
        chord = next(c for c in reversed(chords) if c.onset <= start + 0.01 or c is chords[0])
        tones = voicing(chord, centre)
        run = (tones + [tones[0] + 12])[:: int(rng.choice([-1, 1]))]
        for i, pitch in enumerate(run[: int((following - start) / step)]):
            events.append((start + i * step, 0.9 * step, float(pitch), 0.7, 0.0))
    return events


def _neighbour(pitch: float, scale: Sequence[int], steps: int) -> float:
    """The pitch so many scale steps away; from outside the scale the first step leads into it."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while round(pitch) % 12 not in scale:
            pitch += direction
    return pitch
