"""MusicXML files as transcripts. Needs partitura."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SongError
from .midi import MELODY_NAME
from .score import Note
from .transcript import DEFAULT_BPM, Transcript, bars_between, on_grid, regular_beats_per_bar, skyline

if TYPE_CHECKING:
    from partitura.score import Part, Score

VOICE_NAME = re.compile(rf"{MELODY_NAME.pattern}|stimme|voix|voce|alto|tenor|bariton|bass", re.IGNORECASE)


def read_musicxml(path: Path) -> Transcript:
    """Notes of a MusicXML file, compressed or not, in written order: repeat signs are not followed.

    The melody is the upper line of the part whose name says voice, else of the first part.

    Raises
    ------
    SongError
        If the file is no MusicXML, or has no notes.
    """
    score = _load(path)
    parts = [part for part in score.parts if part.notes_tied]
    if not parts:
        raise SongError(f"{path}: no notes")
    lead = next((part for part in parts if VOICE_NAME.search(part.part_name or "")), parts[0])
    numerator, denominator = _main_metre(lead)
    beats_per_quarter = denominator / 4
    lines = {part.id: _notes(part, beats_per_quarter) for part in parts}
    return Transcript(
        title=(score.work_title or score.movement_title or score.title or path.stem).strip(),
        origin=f"{(score.composer or 'unknown composer').strip()}, {path.name}",
        melody=skyline(lines[lead.id]),
        notes=tuple(note for line in lines.values() for note in line),
        downbeats=_downbeats(lead, beats_per_quarter),
        beats_per_bar=regular_beats_per_bar(numerator),
        bpm=_quarters_per_minute(score) * beats_per_quarter,
    )


def _load(path: Path) -> Score:
    import partitura
    from lxml.etree import LxmlError

    if not path.is_file():
        raise SongError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notational doubts that do not touch the notes
            return partitura.load_musicxml(path)
    # partitura does not check what it reads: a malformed file ends in any of these.
    except (OSError, zipfile.BadZipFile, LxmlError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SongError(f"{path}: not a readable MusicXML file ({error or type(error).__name__})") from error


def _main_metre(part: Part) -> tuple[int, int]:
    """Numerator and denominator of most bars."""
    metres = part.time_signature_map([bar.start.t for bar in part.measures])[:, :2]
    numerator, denominator = mode((int(beats), int(beat_type)) for beats, beat_type in metres)
    return numerator, denominator


def _notes(part: Part, beats_per_quarter: float) -> list[Note]:
    written = [note for note in part.notes_tied if note.duration_tied > 0]  # grace notes have no length
    onsets = part.quarter_map([note.start.t for note in written]) * beats_per_quarter
    ends = part.quarter_map([note.end_tied.t for note in written]) * beats_per_quarter
    return [on_grid(*time, note.midi_pitch) for *time, note in zip(onsets, ends, written, strict=True)]


def _downbeats(part: Part, beats_per_quarter: float) -> tuple[float, ...]:
    bars = list(part.measures)
    starts = part.quarter_map([bar.start.t for bar in bars]) * beats_per_quarter
    ends = part.quarter_map([bar.end.t for bar in bars]) * beats_per_quarter
    numerators = part.time_signature_map([bar.start.t for bar in bars])[:, 0]
    downbeats: list[float] = []
    for start, end, numerator in zip(starts, ends, numerators, strict=True):
        downbeats += bars_between(float(start), float(end), int(numerator))
    return (*downbeats, float(np.max(ends)))


def _quarters_per_minute(score: Score) -> float:
    from partitura.score import Tempo

    tempi = [tempo for part in score.parts for tempo in part.iter_all(Tempo)]
    first = min(tempi, key=lambda tempo: tempo.start.t, default=None)
    return 60e6 / first.microseconds_per_quarter if first else DEFAULT_BPM
