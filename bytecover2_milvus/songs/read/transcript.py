"""The contents of a music file before it becomes a song: notes and bar lines on one line of beats.

Conventions
-----------
Times are beats from the start of the file. A beat is the note value under the time signature, a quarter in 3/4 and an
eighth in 6/8, but 2/2 is read as 4/4. Long bars are read as several short ones: 9/8 as three of 3, 12/8 as two of 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from ..score import Chord, Note

GRID = 24  # positions per beat: keeps 32nds and triplets, removes the jitter of played notes
BREATH = 0.5  # beats
DEFAULT_BPM = 100.0  # where the file names no tempo

# Bounds beyond which a file is no song, but damaged or made to exhaust memory.
LONGEST_BEATS = 20_000  # two hours at 160 beats a minute
MOST_NOTES = 100_000
SLOWEST_BPM, FASTEST_BPM = 5.0, 2_000.0  # beats may be eighths
LARGEST_METRE = 64  # of either number of a time signature


@dataclass(frozen=True)
class TimeSignature:
    """A time signature and how its beats are counted."""

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if not (1 <= self.numerator <= LARGEST_METRE and 1 <= self.denominator <= LARGEST_METRE):
            raise ValueError(f"a time signature of {self.numerator}/{self.denominator}")

    @property
    def beats_per_quarter(self) -> float:
        return 1.0 if self._alla_breve else self.denominator / 4

    @property
    def beats_per_bar(self) -> int:
        beats = 2 * self.numerator if self._alla_breve else self.numerator
        return beats if beats <= 7 else next((part for part in (6, 4, 3, 5) if beats % part == 0), beats)

    @property
    def quarters_per_bar(self) -> float:
        return self.beats_per_bar / self.beats_per_quarter

    @property
    def _alla_breve(self) -> bool:
        return self.denominator == 2 and self.numerator % 2 == 0


@dataclass(frozen=True)
class Transcript:
    """The notes and bars of a file.

    Raises
    ------
    ValueError
        If they are more, or last longer, than those of any song.
    """

    title: str
    origin: str
    melody: tuple[Note, ...]  # one note at a time
    notes: tuple[Note, ...]  # everything that sounds, the melody included
    downbeats: tuple[float, ...]  # beats, start of each bar and end of the last
    beats_per_bar: int
    bpm: float  # beats, as defined above, per minute
    chords: tuple[Chord, ...] = ()  # as annotated; empty: to be estimated

    def __post_init__(self) -> None:
        if not SLOWEST_BPM <= self.bpm <= FASTEST_BPM:
            raise ValueError(f"a tempo of {self.bpm:g} beats per minute")
        if not 1 <= self.beats_per_bar <= LARGEST_METRE:
            raise ValueError(f"bars of {self.beats_per_bar} beats")
        if len(self.notes) > MOST_NOTES:
            raise ValueError(f"{len(self.notes)} notes, at most {MOST_NOTES} are read")
        events: tuple[Note | Chord, ...] = (*self.notes, *self.chords)
        times = [time for event in events for time in (event.onset, event.onset + event.duration)]
        for time in (*times, *self.downbeats):
            if not (isfinite(time) and abs(time) <= LONGEST_BEATS):
                raise ValueError(f"a note, chord or bar line at beat {time:g}, beyond {LONGEST_BEATS}")


def bars_between(start: float, end: float, beats_per_bar: float) -> list[float]:
    """Downbeats in ``[start, end)``; a remainder of less than a grid step opens no bar."""
    if end - start > LONGEST_BEATS:
        raise ValueError(f"{end - start:g} beats, at most {LONGEST_BEATS} are read")
    n_bars = max(1, ceil((end - start - 1 / GRID) / beats_per_bar))
    return [start + bar * beats_per_bar for bar in range(n_bars)]


def on_grid(onset: float, end: float, pitch: int) -> Note:
    """The note moved to the grid, at least one grid step long."""
    first = round(onset * GRID)
    last = max(first + 1, round(end * GRID))
    return Note(first / GRID, (last - first) / GRID, pitch)


def skyline(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The upper line of `notes`, one note at a time.

    A note that sounds for more than half of its length under a higher one is left out; the rest end where the next
    begins. Rests shorter than BREATH are articulation, which belongs to an arrangement: the note before takes them.
    """
    line: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.onset, -note.pitch)):
        if line:
            last = line[-1]
            last_end = last.onset + last.duration
            covered = note.pitch < last.pitch and last_end - note.onset > note.duration / 2
            if covered or note.onset == last.onset:
                continue
            if note.onset - last_end < BREATH:
                line[-1] = Note(last.onset, note.onset - last.onset, last.pitch)
        line.append(note)
    return tuple(line)


def upper_line(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Melody of a texture without a named part: the skyline of what lies above the average pitch; of one line, all."""
    if is_monophonic(notes):
        return skyline(notes)
    average = sum(note.pitch for note in notes) / len(notes)
    return skyline(note for note in notes if note.pitch >= average)


def is_monophonic(notes: Sequence[Note]) -> bool:
    """True if one note at a time sounds, but for a few overlaps."""
    return len(skyline(notes)) >= 0.95 * len(notes)
