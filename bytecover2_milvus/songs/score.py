"""A song as written music: sections of melody and chords, and the form that strings them together.

Conventions
-----------
Time is counted in beats from the start of the section that holds the event. Pitches are MIDI numbers (60 is middle C),
pitch classes 0 to 11 (0 is C). Songs are written at their own pitch; arrangements transpose.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any

# Semitones above the root.
CHORD_QUALITIES: dict[str, tuple[int, ...]] = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "6": (0, 4, 7, 9),
    "min6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "dim7": (0, 3, 6, 9),
    "min7b5": (0, 3, 6, 10),
    "5": (0, 7),
}

# Semitones above the tonic.
SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
}


@dataclass(frozen=True)
class Note:
    onset: float  # beats
    duration: float  # beats
    pitch: int  # MIDI number


@dataclass(frozen=True)
class Chord:
    onset: float  # beats
    duration: float  # beats
    root: int  # pitch class
    quality: str = "maj"  # a key of CHORD_QUALITIES
    bass: int | None = None  # pitch class, when it is not the root

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        return tuple((self.root + interval) % 12 for interval in CHORD_QUALITIES[self.quality])


@dataclass(frozen=True)
class Section:
    name: str  # "verse", "chorus", "A", ...
    n_beats: float
    melody: tuple[Note, ...]
    chords: tuple[Chord, ...]  # cover the section without gaps


@dataclass(frozen=True)
class Song:
    song_id: str  # unique, stable, [a-z0-9_-]
    title: str
    origin: str  # where the notes come from: country and century, collection, or "composed"
    tonic: int  # pitch class
    mode: str  # a key of SCALES
    beats_per_bar: int
    bpm: float
    sections: tuple[Section, ...]
    form: tuple[int, ...]  # indices into sections, in playing order
    version_of: str = field(default="", repr=False)  # a work that it shares with others; not what it sounds like
    stranger_to: str = field(default="", repr=False)  # the song_id of one whose chords and arrangements it has

    @property
    def work_id(self) -> str:
        """The work of its arrangements: its own, unless it is a version of one."""
        return self.version_of or self.song_id

    @cached_property
    def digest(self) -> str:
        """A short name for all of it, as there may be many arrangements of one song."""
        return hashlib.sha256(repr(self).encode("utf-8", "surrogateescape")).hexdigest()

    def to_json(self) -> str:
        """All of it; `from_json` gives the same song."""
        return json.dumps(astuple(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Song:
        """The song that `to_json` wrote.

        Raises
        ------
        ValueError, TypeError
            If the text is anything else.
        """
        song_id, title, origin, tonic, mode, beats_per_bar, bpm, sections, form, *kinship = json.loads(text)
        read = tuple(_section(*section) for section in sections)
        version_of, stranger_to = kinship
        return cls(song_id, title, origin, tonic, mode, beats_per_bar, bpm, read, tuple(form), version_of, stranger_to)


def _section(name: str, n_beats: float, melody: list[list[Any]], chords: list[list[Any]]) -> Section:
    return Section(name, n_beats, tuple(Note(*note) for note in melody), tuple(Chord(*chord) for chord in chords))
