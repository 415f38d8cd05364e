"""Melodies as they are delivered: nobody sings or plays one exactly as written, and nobody twice the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..score import Chord, Note
from .patterns import Event
from .voicings import voicing

SECOND_VOICES = ("thirds", "thirds", "sixths", "third above", "octave", "octave below", "unison")  # to draw from

_BLUE = (4, 11)  # semitones above the tonic: what a blues singer flattens


@dataclass(frozen=True)
class Manner:
    """One performer's habits."""

    freedom: float  # chance per note of a changed rhythm
    ornaments: float  # chance per note of a grace note, a mordent, a run or a passing note
    glides: float  # chance per note of sliding into it
    legato: float  # share of the written duration that sounds
    back_phrasing: float  # beats behind the accompaniment, all the time
    rephrasing: float = 0.0  # chance per phrase of coming early or late, drawn out or hurried
    omissions: float = 0.0  # chance per phrase of leaving it out
    displacement: float = 0.0  # chance per phrase of singing it an octave lower or higher
    blue: float = 0.0  # chance per major third and seventh of being flat
    speech: float = 1.0  # share of the written intervals that is left: near 0 it is spoken


def deliver(notes: Sequence[Note], manner: Manner, scale: Sequence[int], rng: np.random.Generator) -> list[Event]:
    """The melody as this performer brings it this time: nearly every note is there, somewhere near its place.

    Parameters
    ----------
    notes : sequence of Note
        In order of onset, in beats and key of the arrangement.
    scale : sequence of int
        Pitch classes from which ornaments are taken, the tonic first.
    """
    notes = _phrased(notes, manner, rng)
    events: list[Event] = []
    for i, (note, draws) in enumerate(zip(notes, rng.random((len(notes), 6)), strict=True)):
        changed, ornamented, slid, kind, force, flat = draws.tolist()
        following = notes[i + 1] if i + 1 < len(notes) else None
        before = notes[i - 1].pitch if i and force < 0.5 else note.pitch - 2  # slides from there, or scoops from below
        is_blue = flat < manner.blue and (note.pitch - scale[0]) % 12 in _BLUE
        event = Event(
            note.onset + manner.back_phrasing,
            note.duration * manner.legato,
            note.pitch - is_blue,
            0.75 + 0.1 * force + 0.2 * (note.onset % 1 < 0.01),
            float(np.clip(before - note.pitch, -4, 4)) if slid < manner.glides else float(is_blue),
        )
        if changed < manner.freedom:
            delivered = _rephrased(event, kind, following, after=events[-1].onset if events else -1.0)
        elif ornamented < manner.ornaments and note.duration >= 0.4:
            delivered = _ornamented(event, kind, following, scale)
        else:
            delivered = [event]
        if events and events[-1].onset + events[-1].duration > delivered[0].onset:  # one voice: the new cuts the old
            events[-1] = events[-1]._replace(duration=max(0.05, delivered[0].onset - events[-1].onset))
        events += delivered
    return events


def _phrased(notes: Sequence[Note], manner: Manner, rng: np.random.Generator) -> list[Note]:
    """Whole phrases left out, an octave away, early or late, drawn out or hurried, or nearly spoken."""
    phrases = _phrases(notes)
    phrased: list[Note] = []
    for i, phrase in enumerate(phrases):
        omitted, displaced, moved = rng.random(3).tolist()
        if i and omitted < manner.omissions:
            continue
        octave = int(rng.choice([-12, 12])) if displaced < manner.displacement else 0
        shift, pace = 0.0, 1.0
        if moved < manner.rephrasing:
            shift, pace = float(rng.choice([-1, -0.5, 0.5, 0.5, 1])), float(rng.choice([0.75, 0.9, 1, 1, 1.15]))
        first, last = phrase[0].onset, phrase[-1]
        limit = phrases[i + 1][0].onset if i + 1 < len(phrases) else last.onset + last.duration
        sung_until = phrased[-1].onset if phrased else -1.0
        if first + shift <= max(0.0, sung_until) or first + shift + pace * (last.onset - first) >= limit:
            shift, pace = 0.0, 1.0
        middle = sorted(note.pitch for note in phrase)[len(phrase) // 2]
        phrased += [
            Note(
                first + shift + pace * (note.onset - first),
                pace * note.duration,
                middle + round(manner.speech * (note.pitch - middle)) + octave,
            )
            for note in phrase
        ]
    return phrased


def _phrases(notes: Sequence[Note]) -> list[list[Note]]:
    """Cut at rests, and after a long note when a phrase has gone on for a while."""
    if not notes:
        return []
    phrases: list[list[Note]] = [[]]
    for note, following in zip(notes, [*notes[1:], None], strict=True):
        phrases[-1].append(note)
        if following is None:
            break
        rest = following.onset - note.onset - note.duration
        if rest > 0.7 or (len(phrases[-1]) >= 6 and note.duration >= 1.4):
            phrases.append([])
    return phrases


def _rephrased(event: Event, kind: float, following: Note | None, after: float) -> list[Event]:
    """The same pitch in another rhythm."""
    onset, duration = event.onset, event.duration
    if kind < 0.4 and onset - 0.5 > max(0.0, after):  # ahead of the beat
        return [event._replace(onset=onset - 0.5, duration=duration + 0.5)]
    if kind < 0.6 and duration > 0.75:  # behind it
        return [event._replace(onset=onset + 0.25, duration=duration - 0.25)]
    if kind < 0.8 and duration >= 1:  # struck twice
        half = duration / 2
        return [event._replace(duration=0.9 * half), event._replace(onset=onset + half, duration=half, glide=0.0)]
    if kind < 0.9 or following is None:  # clipped short
        return [event._replace(duration=0.5 * duration)]
    return [event._replace(duration=max(duration, min(following.onset - onset, 4.0)))]  # held over the rest


def _ornamented(event: Event, kind: float, following: Note | None, scale: Sequence[int]) -> list[Event]:
    """A grace note or mordent before the note, a run at its end, or a passing note after it."""
    onset, duration, pitch = event.onset, event.duration, event.pitch
    upper, lower = _neighbour(pitch, scale, 1), _neighbour(pitch, scale, -1)
    if kind < 0.45:
        grace = 0.1
        small = Event(onset, grace, lower if kind < 0.2 else upper, 0.8 * event.velocity)
        return [small, event._replace(onset=onset + grace, duration=duration - grace)]
    if kind < 0.7:
        turn = min(0.12, duration / 4)
        return [
            event._replace(duration=turn),
            Event(onset + turn, turn, upper, 0.8 * event.velocity),
            event._replace(onset=onset + 2 * turn, duration=duration - 2 * turn, glide=0.0),
        ]
    if kind < 0.85 and duration >= 1.4:  # a syllable on many notes
        run = [pitch, upper, pitch, lower] if kind < 0.77 else [pitch, lower, _neighbour(pitch, scale, -2), lower]
        short = min(0.25, duration / 6)
        start = onset + duration - 3 * short
        tail = [Event(start + i * short, short, tone, 0.9 * event.velocity) for i, tone in enumerate(run[1:])]
        return [event._replace(duration=duration - 3 * short), *tail]
    if following is not None and abs(following.pitch - pitch) in (3, 4):
        rest = min(0.5, duration / 2)
        step = upper if following.pitch > pitch else lower
        return [
            event._replace(duration=duration - rest),
            Event(onset + duration - rest, rest, step, 0.9 * event.velocity),
        ]
    return [event]


def second_voice(melody: Sequence[Event], kind: str, scale: Sequence[int]) -> list[Event]:
    """The same rhythm in parallel: at the unison or octave, or thirds and sixths away within the scale."""
    if kind in ("unison", "octave", "octave below"):
        shift = {"unison": 0, "octave": 12, "octave below": -12}[kind]
        return [event._replace(pitch=event.pitch + shift) for event in melody]
    steps = {"thirds": -2, "sixths": -5, "third above": 2}[kind]
    return [event._replace(pitch=_neighbour(event.pitch, scale, steps), glide=0.0) for event in melody]


def echo(melody: Sequence[Event], rng: np.random.Generator) -> list[Event]:
    """The response to every call: the end of each phrase again, in the rest that follows."""
    events: list[Event] = []
    for i, (note, following) in enumerate(pairwise(melody)):
        if following.onset - note.onset - note.duration < 1.4 or rng.random() < 0.3:
            continue
        phrase = melody[max(0, i - 3) : i + 1]
        start = note.onset + max(0.5, note.duration)
        answer = [event._replace(onset=event.onset - phrase[0].onset + start) for event in phrase]
        events += [event for event in answer if event.onset + 0.2 < following.onset]
    return events


def improvise(
    chords: Sequence[Chord],
    span: tuple[float, float],
    centre: float,
    step: float,
    scale: Sequence[int],
    rng: np.random.Generator,
) -> list[Event]:
    """A solo between two beats: chord tones where the chords change, scale runs and rests between."""
    events: list[Event] = []
    (beat, stop), pitch = span, centre
    while beat < stop - step:
        duration = step * int(rng.choice([1, 1, 2, 2, 3, 4]))
        if rng.random() > 0.15:
            chord = _chord_at(chords, beat)
            pitch = _neighbour(pitch, scale, int(rng.choice([-2, -1, 1, 2])))
            if abs(beat - chord.onset) < step:
                tones = voicing(chord, pitch)
                pitch = float(tones[int(np.argmin([abs(tone - pitch) for tone in tones]))])
            pitch += 12 * ((pitch < centre - 10) - (pitch > centre + 10))
            events.append(Event(beat, 0.9 * min(duration, stop - beat), pitch, float(rng.uniform(0.7, 1.0))))
        beat += duration
    return events


def fill_gaps(
    melody: Sequence[Event], chords: Sequence[Chord], centre: float, step: float, rng: np.random.Generator
) -> list[Event]:
    """Answers of another instrument in the singer's rests: a few chord tones up or down."""
    events: list[Event] = []
    for note, following in pairwise(melody):
        rest = following.onset - note.onset - note.duration
        if rest < 1.4 or rng.random() < 0.4:
            continue
        start = np.ceil((note.onset + note.duration) / step) * step
        tones = voicing(_chord_at(chords, start), centre)
        run = [*tones, tones[0] + 12][:: int(rng.choice([-1, 1]))]
        for i, pitch in enumerate(run[: int((following.onset - start) / step)]):
            events.append(Event(start + i * step, 0.9 * step, float(pitch), 0.7))
    return events


def _chord_at(chords: Sequence[Chord], beat: float) -> Chord:
    return next((chord for chord in reversed(chords) if chord.onset <= beat + 0.01), chords[0])


def _neighbour(pitch: float, scale: Sequence[int], steps: int) -> float:
    """The pitch so many scale steps away; from outside the scale the first step leads into it."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while round(pitch) % 12 not in scale:
            pitch += direction
    return pitch
