"""Songs from files: MIDI, MusicXML, and folders of POP909. Needs the extra ``train`` (mido, partitura)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import SongError
from .midi import read_midi
from .musicxml import read_musicxml
from .phrases import song_from_transcript
from .pop909 import CHORDS, read_pop909
from .score import Song
from .transcript import Transcript

logger = logging.getLogger(__name__)

READERS: dict[str, Callable[[Path], Transcript]] = {
    ".mid": read_midi,
    ".midi": read_midi,
    ".mxl": read_musicxml,
    ".musicxml": read_musicxml,
    ".xml": read_musicxml,
}


def read_song(path: str | Path) -> Song:
    """The song in a MIDI file, a MusicXML file or a POP909 folder.

    Chords are POP909's own, else estimated; the key is estimated; sections are phrases of 4 to 16 bars.

    Raises
    ------
    SongError
        If the file is missing, damaged, of another kind, or without a melody.
    """
    path = Path(path)
    if _is_pop909(path):
        return song_from_transcript(read_pop909(path), f"pop909-{_slug(path.name)}")
    if path.suffix.lower() not in READERS:
        raise SongError(f"{path}: not a song; known are {', '.join(READERS)} and POP909 folders")
    try:
        return song_from_transcript(READERS[path.suffix.lower()](path), _slug(path.stem))
    except ImportError as error:
        raise SongError(f"{path}: reading it needs {error.name}; pip install 'bytecover2-milvus[train]'") from error


def song_paths(path: str | Path) -> list[Path]:
    """Everything at or under `path` that looks like a song, in the order in which `read_songs` reads it.

    Raises
    ------
    SongError
        If there is nothing.
    """
    paths = list(_song_paths(Path(path)))
    if not paths:
        raise SongError(f"{path}: no songs here; known are {', '.join(READERS)} and POP909 folders")
    return paths


def read_songs(paths: Iterable[Path]) -> Iterator[Song]:
    """The songs at `paths`, in their order.

    A file that cannot be read is left out with a warning. Where two files have one name, the second song's id ends
    in ``-2``.
    """
    seen: dict[str, int] = {}
    for path in paths:
        try:
            song = read_song(path)
        except SongError as error:
            logger.warning("left out: %s", error)
            continue
        seen[song.song_id] = seen.get(song.song_id, 0) + 1
        yield song if seen[song.song_id] == 1 else replace(song, song_id=f"{song.song_id}-{seen[song.song_id]}")


def _song_paths(path: Path) -> Iterator[Path]:
    if _is_pop909(path) or path.suffix.lower() in READERS:
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _song_paths(child)


def _is_pop909(path: Path) -> bool:
    return (path / CHORDS).is_file()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "song"
