"""MusicXML files as transcripts. Needs partitura."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING

from ..errors import SongError
from ..reading import open_regular, read_bytes, shorten
from .midi import MELODY_NAME
from .score import Note
from .transcript import DEFAULT_BPM, TimeSignature, Transcript, bars_between, on_grid, skyline, upper_line

if TYPE_CHECKING:
    from lxml.etree import _ElementTree
    from partitura.score import Part, Score

XML_BYTES = 16 << 20  # of a score, unpacked
CONTAINER = "META-INF/container.xml"  # of a compressed score: says which of its files is the score
VOICE_NAME = re.compile(r"soprano|lead|stimme|voix|voce|alto|tenor|bariton|bass", re.IGNORECASE)
INSTRUMENT_NAME = re.compile(
    r"sax|horn|trombone|posaune|guitar|gitarre|clarinet|klarinette|flute|fl\u00f6te|recorder|bassoon|contra|kontra|double"
    r"|electric|string|synth|drum|tuba|viol",
    re.IGNORECASE,
)


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
    voice = next((part for part in parts if _sings(part.part_name or "")), None)
    lead = voice or parts[0]
    metre = mode(_metres(lead))
    beats_per_quarter = metre.beats_per_quarter
    lines = {part.id: _notes(part, beats_per_quarter) for part in parts}
    return Transcript(
        title=(score.movement_title or score.work_title or score.title or path.stem).strip(),
        origin=f"{(score.composer or 'unknown composer').strip()}, {path.name}",
        melody=skyline(lines[lead.id]) if voice else upper_line(lines[lead.id]),
        notes=tuple(note for line in lines.values() for note in line),
        downbeats=_downbeats(lead, beats_per_quarter),
        beats_per_bar=metre.beats_per_bar,
        bpm=_quarters_per_minute(score) * beats_per_quarter,
    )


def _sings(name: str) -> bool:
    """Whether a part of that name is a voice: an alto, but no alto saxophone."""
    return bool(MELODY_NAME.search(name) or (VOICE_NAME.search(name) and not INSTRUMENT_NAME.search(name)))


def _load(path: Path) -> Score:
    import partitura

    try:
        content = _unpacked(path)
        _refuse_entities(content)
        with _without_doubts():
            return partitura.load_musicxml(io.BytesIO(content))
    except FileNotFoundError as error:
        raise SongError(f"{path}: no such file") from error
    except ImportError:
        raise
    except Exception as error:  # partitura does not check what it reads: a malformed file ends in any of them
        raise SongError(f"{path}: not a readable MusicXML file ({shorten(error) or type(error).__name__})") from error


def _unpacked(path: Path) -> bytes:
    """The XML of a score, compressed or not; a `ValueError` or one of zipfile's if it is none, or unpacks to more."""
    with open_regular(path, XML_BYTES) as file:
        if not zipfile.is_zipfile(file):
            return read_bytes(path, XML_BYTES)
        with zipfile.ZipFile(file) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if sum(sizes.values()) > XML_BYTES:
                raise ValueError(f"it unpacks to more than {XML_BYTES} bytes")
            container = archive.read(CONTAINER)
            named = _refuse_entities(container).getroot().find(".//{*}rootfile")
            if named is None or named.get("full-path") not in sizes:
                raise ValueError(f"its {CONTAINER} names no score in it")
            return archive.read(named.get("full-path"))


def _refuse_entities(content: bytes) -> _ElementTree:
    """The tree of an XML document; a `ValueError` if it declares entities, which read files or grow without end."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    tree = etree.parse(io.BytesIO(content), parser)
    declared = tree.docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise ValueError("it declares XML entities; write what they stand for in their places")
    return tree


@contextmanager
def _without_doubts() -> Iterator[None]:
    """Silence partitura's warnings: notational doubts that do not touch the notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _metres(part: Part) -> list[TimeSignature]:
    """Time signature of each bar."""
    with _without_doubts():
        signatures = part.time_signature_map([bar.start.t for bar in part.measures])
    return [TimeSignature(int(numerator), int(denominator)) for numerator, denominator, *_ in signatures]


def _notes(part: Part, beats_per_quarter: float) -> list[Note]:
    written = [note for note in part.notes_tied if note.duration_tied > 0]  # grace notes have no length
    onsets = part.quarter_map([note.start.t for note in written]) * beats_per_quarter
    ends = part.quarter_map([note.end_tied.t for note in written]) * beats_per_quarter
    return [on_grid(*time, note.midi_pitch) for *time, note in zip(onsets, ends, written, strict=True)]


def _downbeats(part: Part, beats_per_quarter: float) -> tuple[float, ...]:
    """Starts of full bars: neither a pickup before the first nor a bar that completes the one before it counts."""
    bars = list(part.measures)
    starts = (part.quarter_map([bar.start.t for bar in bars]) * beats_per_quarter).tolist()
    ends = (part.quarter_map([bar.end.t for bar in bars]) * beats_per_quarter).tolist()
    lengths = [metre.quarters_per_bar * beats_per_quarter for metre in _metres(part)]
    downbeats: list[float] = []
    for start, end, length in zip(starts, ends, lengths, strict=True):
        is_pickup = not downbeats and end - start < length and len(bars) > 1
        completes = downbeats and start - downbeats[-1] < length and end - downbeats[-1] <= length
        if not is_pickup and not completes:
            downbeats += bars_between(start, end, length)
    return (*downbeats, ends[-1])


def _quarters_per_minute(score: Score) -> float:
    from partitura.score import Tempo

    tempi = [tempo for part in score.parts for tempo in part.iter_all(Tempo)]
    first = min(tempi, key=lambda tempo: tempo.start.t, default=None)
    return 60e6 / first.microseconds_per_quarter if first else DEFAULT_BPM
