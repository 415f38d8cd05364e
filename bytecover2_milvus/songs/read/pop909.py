"""Folders of the POP909 data set (music-x-lab/POP909-Dataset): a MIDI file, its beats and its chords.

Conventions
-----------
``beat_midi.txt`` has one line per beat: time in seconds, weak downbeat, downbeat. ``chord_midi.txt`` has one line per
chord: start and end in seconds, and a label as ``Eb:min7/b3``, or ``N`` for none.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median, mode

import numpy as np
from numpy.typing import NDArray

from ...errors import SongError
from ...untrusted import read_text, shorten
from ..score import CHORD_QUALITIES, Chord, Note
from .midi import MidiScore, read_midi_score
from .transcript import Transcript, on_grid, skyline

BEATS = "beat_midi.txt"
CHORDS = "chord_midi.txt"

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Only the labels that are not names of score.CHORD_QUALITIES.
QUALITIES = {"maj6": "6", "hdim7": "min7b5", "minmaj7": "min", "sus4(b7)": "sus4"}
DEGREES = (0, 2, 4, 5, 7, 9, 11)  # semitones of degrees 1 to 7 above the root


def read_pop909(folder: Path) -> Transcript:
    """Song of one POP909 folder, with its annotated chords.

    Raises
    ------
    SongError
        If a file is missing or not what it should be.
    """
    score = read_midi_score(folder / f"{folder.name}.mid")
    beat_s, downbeats = _read_beats(folder / BEATS)
    lead = next((track for track in score.tracks if track.name == "MELODY"), None)
    if lead is None:
        raise SongError(f"{folder}: no MELODY track in {folder.name}.mid")
    notes = {track.name: _notes_on_beats(score, track.name, beat_s) for track in score.tracks}
    return Transcript(
        title=f"POP909 {folder.name}",
        origin="POP909 (MIT licence)",
        melody=skyline(notes["MELODY"]),
        notes=tuple(note for track in notes.values() for note in track),
        downbeats=tuple(downbeats),
        beats_per_bar=mode(int(bar) for bar in np.diff(downbeats)),
        bpm=60 / median(np.diff(beat_s).tolist()),
        chords=_read_chords(folder / CHORDS, beat_s),
    )


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SongError(f"{path}: cannot be read as text ({error})") from error


def _read_beats(path: Path) -> tuple[NDArray[np.float64], list[int]]:
    """Times of all beats in seconds, and the downbeats counted in beats."""
    try:
        rows = np.array([[float(field) for field in line] for line in _lines(path)])  # (n_beats, 3)
        beat_s, downbeats = rows[:, 0], np.flatnonzero(rows[:, 2] > 0).tolist()
    except (ValueError, IndexError) as error:
        raise SongError(f"{path}: not lines of time, weak downbeat, downbeat ({error})") from error
    if len(downbeats) < 2 or not np.isfinite(beat_s).all() or np.any(np.diff(beat_s) <= 0):
        raise SongError(f"{path}: needs increasing times and at least two downbeats")
    return beat_s, downbeats


def _to_beats(seconds: NDArray[np.float64], beat_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of `seconds` on the line of beats; the first and last beat lengths go on outside of it."""
    index = np.clip(np.searchsorted(beat_s, seconds, side="right") - 1, 0, len(beat_s) - 2)
    return index + (seconds - beat_s[index]) / (beat_s[index + 1] - beat_s[index])


def _notes_on_beats(score: MidiScore, track_name: str, beat_s: NDArray[np.float64]) -> list[Note]:
    notes = [note for track in score.tracks if track.name == track_name for note in track.notes]
    onsets = _to_beats(score.seconds([note.start for note in notes]), beat_s)
    ends = _to_beats(score.seconds([note.end for note in notes]), beat_s)
    return [on_grid(onset, end, note.pitch) for onset, end, note in zip(onsets, ends, notes, strict=True)]


def _read_chords(path: Path, beat_s: NDArray[np.float64]) -> tuple[Chord, ...]:
    chords: list[Chord] = []
    for line in _lines(path):
        try:
            start_s, end_s, label = float(line[0]), float(line[1]), line[2]
            if label != "N":
                # Chords change on half beats.
                start, end = np.round(2 * _to_beats(np.array([start_s, end_s]), beat_s)) / 2
                if end > start:
                    chords.append(Chord(float(start), float(end - start), *_parse_chord(label)))
        except (ValueError, LookupError) as error:
            raise SongError(f"{path}: not a line of start, end, chord: {shorten(' '.join(line))!r}") from error
    return tuple(chords)


def _parse_chord(label: str) -> tuple[int, str, int | None]:
    """Root, quality and bass of a label such as ``F#:maj/3``."""
    name, _, degree = label.partition("/")
    note, _, quality = name.partition(":")
    root = (NATURALS[note[0]] + _accidentals(note[1:])) % 12
    bass = None
    if degree:
        bass = (root + DEGREES[int(degree.lstrip("b#")) - 1] + _accidentals(degree)) % 12
    quality = QUALITIES.get(quality, quality)
    if quality not in CHORD_QUALITIES:
        raise ValueError(f"{label}: a chord of unknown quality")
    return root, quality, bass


def _accidentals(signs: str) -> int:
    return signs.count("#") - signs.count("b")
