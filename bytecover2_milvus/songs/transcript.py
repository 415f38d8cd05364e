"""What a music file says before it becomes a song: notes and bar lines on one line of beats.

Conventions
-----------
A beat is the note value under the time signature: a quarter in 3/4, an eighth in 6/8, a half in 2/2. Bars of 9 and 12
beats are read as three bars of 3 and two bars of 6. Times are beats from the start of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .score import Chord, Note

GRID = 24  # positions per beat: keeps 32nds and triplets, removes the jitter of played notes
DEFAULT_BPM = 100.0  # where the file names no tempo


@dataclass(frozen=True)
class Transcript:
    title: str
    origin: str
    melody: tuple[Note, ...]  # one note at a time
    notes: tuple[Note, ...]  # everything that sounds, the melody included
    downbeats: tuple[float, ...]  # beats, start of each bar and end of the last
    beats_per_bar: int
    bpm: float  # beats, as defined above, per minute
    chords: tuple[Chord, ...] = ()  # as annotated; empty: to be estimated


def regular_beats_per_bar(numerator: int) -> int:
    """Beats of a bar as this package counts them: 9 and 12 become bars of 3 and 6."""
    return {9: 3, 12: 6}.get(numerator, numerator)


def bars_between(start: float, end: float, numerator: int) -> list[float]:
    """Downbeats in ``[start, end)`` of a stretch in one metre."""
    step = regular_beats_per_bar(numerator)
    n_bars = max(1, -int((start - end + 1 / GRID) // step))  # a stray tick at the end does not open a bar
    return [start + bar * step for bar in range(n_bars)]


def on_grid(onset: float, end: float, pitch: int) -> Note:
    """The note moved to the grid, at least one grid step long."""
    first = round(onset * GRID)
    last = max(first + 1, round(end * GRID))
    return Note(first / GRID, (last - first) / GRID, pitch)


def skyline(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The upper line of `notes`, one note at a time.

    A note that sounds for more than half of its length under a higher one is left out; the rest end where the next
    begins.
    """
    line: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.onset, -note.pitch)):
        if line and note.pitch <= line[-1].pitch:
            covered = line[-1].onset + line[-1].duration - note.onset
            if note.onset == line[-1].onset or (note.pitch < line[-1].pitch and covered > note.duration / 2):
                continue
        if line and note.onset == line[-1].onset:
            line.pop()
        if line and line[-1].onset + line[-1].duration > note.onset:
            line[-1] = Note(line[-1].onset, note.onset - line[-1].onset, line[-1].pitch)
        line.append(note)
    return tuple(line)


def is_monophonic(notes: Sequence[Note]) -> bool:
    """Whether one note at a time sounds, but for a few overlaps."""
    return len(skyline(notes)) >= 0.95 * len(notes)
