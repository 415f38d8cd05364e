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

from ...errors import SongError
from ...untrusted import open_regular, read_bytes, shorten
from ..score import CHORD_QUALITIES, Chord, Note
from .midi import MELODY_NAME
from .repeats import write_out
from .transcript import DEFAULT_BPM, TimeSignature, Transcript, bars_between, on_grid, skyline, upper_line

if TYPE_CHECKING:
    from lxml.etree import _Element, _ElementTree
    from partitura.score import Part, Score

XML_BYTES = 16 << 20  # of a score, unpacked
BARS_PER_CHORD = 8  # where chord symbols are rarer, they are no harmony but remarks
CONTAINER = "META-INF/container.xml"  # of a compressed score: says which of its files is the score
VOICE_NAME = re.compile(r"soprano|lead|stimme|voix|voce|alto|tenor|bariton|bass", re.IGNORECASE)
INSTRUMENT_NAME = re.compile(
    r"sax|horn|trombone|posaune|guitar|gitarre|clarinet|klarinette|flute|fl\u00f6te|recorder|bassoon|contra|kontra|double"
    r"|electric|string|synth|drum|tuba|viol",
    re.IGNORECASE,
)
_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Kinds of chord symbols; what is added above the seventh is left out.
_QUALITIES = {
    "major": "maj",
    "minor": "min",
    "augmented": "aug",
    "diminished": "dim",
    "dominant": "7",
    "major-seventh": "maj7",
    "minor-seventh": "min7",
    "diminished-seventh": "dim7",
    "augmented-seventh": "aug",
    "half-diminished": "min7b5",
    "major-minor": "min",
    "minor-major": "min",
    "major-sixth": "6",
    "minor-sixth": "min6",
    "maj69": "6",
    "suspended-second": "sus2",
    "suspended-fourth": "sus4",
    "power": "5",
} | {
    f"{kind}-{degree}": quality
    for kind, quality in (("dominant", "7"), ("major", "maj7"), ("minor", "min7"), ("augmented", "aug"))
    for degree in ("ninth", "11th", "13th")
}


def read_musicxml(path: Path) -> Transcript:
    """Notes and chord symbols of a MusicXML file, compressed or not, repeats and endings played.

    The melody is the upper line of the part whose name says voice, else of the first part. The chords are the chord
    symbols, in whichever part they stand.

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
    downbeats = _downbeats(lead, beats_per_quarter)
    chords = max((_chords(part, beats_per_quarter, downbeats[-1]) for part in score.parts), key=len)
    return Transcript(
        title=(score.movement_title or score.work_title or score.title or path.stem).strip(),
        origin=f"{(score.composer or 'unknown composer').strip()}, {path.name}",
        melody=skyline(lines[lead.id]) if voice else upper_line(lines[lead.id]),
        notes=tuple(note for line in lines.values() for note in line),
        downbeats=downbeats,
        beats_per_bar=metre.beats_per_bar,
        bpm=_quarters_per_minute(score) * beats_per_quarter,
        chords=chords if len(chords) * BARS_PER_CHORD >= len(downbeats) - 1 else (),
    )


def _sings(name: str) -> bool:
    """True if a part of that name is a voice: an alto, but no alto saxophone."""
    return bool(MELODY_NAME.search(name) or (VOICE_NAME.search(name) and not INSTRUMENT_NAME.search(name)))


def _load(path: Path) -> Score:
    import partitura
    from lxml import etree

    try:
        root = _refuse_entities(_unpacked(path)).getroot()
        write_out(root)
        _name_chords(root)
        content = etree.tostring(root)
        if len(content) > XML_BYTES:
            raise ValueError(f"its repeats, written out, take more than {XML_BYTES} bytes")
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


def _name_chords(root: _Element) -> None:
    """Write the quality and the bass of every chord symbol, all that is used of it, where partitura keeps a text."""
    for harmony in root.iter("{*}harmony"):
        kind = harmony.find("{*}kind")
        if kind is not None:
            bass = _pitch_class(harmony.findtext("{*}bass/{*}bass-step"), harmony.findtext("{*}bass/{*}bass-alter"))
            quality = _QUALITIES.get((kind.text or "").strip(), "")
            kind.set("text", f"{quality}|{'' if bass is None else bass}")


def _pitch_class(step: str | None, alter: str | None) -> int | None:
    natural = _NATURALS.get((step or "").strip().upper())
    return None if natural is None else (natural + round(float(alter or 0))) % 12


def _chords(part: Part, beats_per_quarter: float, end: float) -> tuple[Chord, ...]:
    """Chord symbols of a part, each until the next; one of unknown kind is left out, and the one before goes on."""
    from partitura.score import ChordSymbol

    found: dict[float, tuple[int, str, int | None]] = {}
    for symbol in part.iter_all(ChordSymbol):
        quality, _, bass = (symbol.kind or "").partition("|")
        root = _pitch_class(symbol.root, str(symbol.alter))
        if quality in CHORD_QUALITIES and root is not None:
            onset = float(part.quarter_map(symbol.start.t)) * beats_per_quarter
            found[onset] = root, quality, int(bass) if bass and int(bass) != root else None
    onsets = sorted(onset for onset in found if onset < end)
    return tuple(
        Chord(onset, until - onset, *found[onset]) for onset, until in zip(onsets, [*onsets[1:], end], strict=False)
    )


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
    return [on_grid(onset, end, note.midi_pitch) for onset, end, note in zip(onsets, ends, written, strict=True)]


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
