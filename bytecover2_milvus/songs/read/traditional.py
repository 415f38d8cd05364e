"""Traditional melodies that come with the package, read from ``songs/melodies/*.toml``.

Each file is a list of songs::

    [[song]]
    id = "frere-jacques"
    title = "Frère Jacques"
    origin = "France, 18th century"
    key = "F major"
    beats_per_bar = 4
    bpm = 110
    form = "A"

    [song.sections.A]
    melody = "F4 G4 A4 F4 | F4 G4 A4 F4 | A4 Bb4 C5:2 | A4 Bb4 C5:2"
    chords = "F | F | F C7 | F"

Bars are separated by ``|``. A note is its name with octave (C4 is middle C), a rest is ``-``; ``:2``, ``:1/2`` or
``:3/2`` gives the beats where they are not one. A chord is its root with ``m``, ``7``, ``m7``, ``maj7``, ``dim``,
``aug``, ``sus4``, ``6`` or nothing; the chords of a bar share it equally unless ``:`` says otherwise. In compound metre
the beat is the eighth (6/8 has six).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from ...errors import SongError
from ..score import SCALES, Chord, Note, Section, Song

_PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "b": -1}
_CHORD_SUFFIXES = {
    "": "maj",
    "m": "min",
    "7": "7",
    "m7": "min7",
    "maj7": "maj7",
    "dim": "dim",
    "aug": "aug",
    "sus4": "sus4",
    "6": "6",
}
_NAME = r"(?P<letter>[A-G])(?P<accidental>[#b]?)"

_Event = TypeVar("_Event")


@cache
def traditional_songs() -> tuple[Song, ...]:
    """All songs of the package, in the order of their song_id.

    Raises
    ------
    SongError
        If a file is not in the form above; the message names song, section and bar.
    """
    songs: list[Song] = []
    for file in files(__package__).joinpath("melodies").iterdir():
        if file.name.endswith(".toml"):
            songs += read_melodies(file.read_text(encoding="utf-8"))
    return tuple(sorted(songs, key=lambda song: song.song_id))


def read_melodies(text: str) -> list[Song]:
    """The songs in the text of one file."""
    return [_song(table) for table in tomllib.loads(text)["song"]]


def _song(table: dict[str, Any]) -> Song:
    song_id, beats_per_bar = table["id"], table["beats_per_bar"]
    tonic, _, mode = table["key"].partition(" ")
    if mode not in SCALES or not (name := re.fullmatch(_NAME, tonic)):
        raise SongError(f"{song_id}: key {table['key']!r}; a tonic and one of {', '.join(SCALES)}, as in 'A minor'")
    names = list(table["sections"])
    unknown = set(table["form"]) - set(names)
    if unknown:
        raise SongError(f"{song_id}: form {table['form']!r} names sections that are not there: {sorted(unknown)}")
    return Song(
        song_id=song_id,
        title=table["title"],
        origin=table["origin"],
        tonic=_pitch_class(name),
        mode=mode,
        beats_per_bar=beats_per_bar,
        bpm=float(table["bpm"]),
        sections=tuple(
            _section(f"{song_id}, section {name}", name, section, beats_per_bar)
            for name, section in table["sections"].items()
        ),
        form=tuple(names.index(name) for name in table["form"]),
    )


def _section(place: str, name: str, table: dict[str, str], beats_per_bar: int) -> Section:
    melody = list(_events(f"{place}, melody", table["melody"], beats_per_bar, _pitch, share_bar=False))
    chords = list(_events(f"{place}, chords", table["chords"], beats_per_bar, _chord, share_bar=True))
    n_bars = [table[line].count("|") + 1 for line in ("melody", "chords")]
    if n_bars[0] != n_bars[1]:
        raise SongError(f"{place}: {n_bars[0]} bars of melody, {n_bars[1]} of chords; they must be as many")
    return Section(
        name=name,
        n_beats=float(n_bars[0] * beats_per_bar),
        melody=tuple(Note(onset, beats, pitch) for onset, beats, pitch in melody if pitch is not None),
        chords=tuple(Chord(onset, beats, root, quality) for onset, beats, (root, quality) in chords),
    )


def _events(
    place: str, text: str, beats_per_bar: int, read: Callable[[str], _Event], share_bar: bool
) -> Iterator[tuple[float, float, _Event]]:
    """Onset and duration in beats, and what `read` makes of the name, for every word of every bar."""
    for bar, words in enumerate(text.split("|")):
        position = Fraction(bar * beats_per_bar)
        split = [word.partition(":") for word in words.split()]
        default = Fraction(beats_per_bar, max(1, len(split))) if share_bar else Fraction(1)
        for name, _, length in split:
            try:
                beats = Fraction(length) if length else default
                event = read(name)
            except (ValueError, KeyError, ZeroDivisionError) as error:
                raise SongError(f"{place}, bar {bar + 1}: {name}{':' * bool(length)}{length} cannot be read") from error
            yield float(position), float(beats), event
            position += beats
        if position != (bar + 1) * beats_per_bar:
            filled = position - bar * beats_per_bar
            raise SongError(f"{place}, bar {bar + 1}: {filled} beats, a bar has {beats_per_bar}: {words.strip()!r}")


def _pitch(name: str) -> int | None:
    """MIDI number of "F#4"; None for a rest."""
    if name == "-":
        return None
    match = re.fullmatch(_NAME + r"(?P<octave>\d)", name)
    if match is None:
        raise ValueError(name)
    accidental = _ACCIDENTALS[match["accidental"]]
    return 12 * (int(match["octave"]) + 1) + _PITCH_CLASSES[match["letter"]] + accidental


def _chord(name: str) -> tuple[int, str]:
    """Root and quality of "Dm7"."""
    match = re.fullmatch(_NAME + r"(?P<suffix>.*)", name)
    if match is None:
        raise ValueError(name)
    return _pitch_class(match), _CHORD_SUFFIXES[match["suffix"]]


def _pitch_class(match: re.Match[str]) -> int:
    return (_PITCH_CLASSES[match["letter"]] + _ACCIDENTALS[match["accidental"]]) % 12
