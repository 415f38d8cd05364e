"""Songs from files: MIDI, MusicXML, and folders of POP909. Needs the extra ``train`` (mido, partitura)."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path

from ..atomic import atomic_write
from ..errors import SongError
from ..extras import why_not_imported
from ..manifest import Track
from ..parallel import map_in_processes
from ..untrusted import DAMAGED, read_bytes, read_text, shorten
from .read.midi import read_midi
from .read.musicxml import XML_BYTES, read_musicxml
from .read.phrases import song_from_transcript
from .read.pop909 import CHORDS, read_pop909
from .read.transcript import Transcript
from .score import Song
from .version import READING

KEPT_BYTES = 64 << 20  # of a song in the cache

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

    Chords are POP909's own, a score's chord symbols or the chord track of a MIDI file, else estimated; the key is
    estimated; sections are phrases of 4 to 16 bars.

    Raises
    ------
    SongError
        If the file is missing, damaged, of another kind, or without a melody.
    """
    path = Path(path)
    pop909 = _is_pop909(path)
    if not pop909 and path.suffix.lower() not in READERS:
        raise SongError(f"{path}: not a song; known are {', '.join(READERS)} and POP909 folders")
    try:
        if pop909:
            return song_from_transcript(read_pop909(path), f"pop909-{_slug(path.name)}")
        return song_from_transcript(READERS[path.suffix.lower()](path), _slug(path.stem))
    except ImportError as error:
        raise SongError(f"{path}: {why_not_imported(error, 'train')}") from error
    except SongError as error:
        if str(error).startswith(str(path)):
            raise
        raise SongError(f"{path}: {error}") from error
    except Exception as error:  # damaged, somehow: what the parsers raise has no common class
        raise SongError(f"{path}: cannot be read as a song ({type(error).__name__}: {shorten(error)})") from error


def song_paths(path: str | Path) -> list[Path]:
    """Everything at or under `path` that looks like a song, in the order of paths.

    Raises
    ------
    SongError
        If there is nothing.
    """
    paths = list(_song_paths(Path(path), set()))
    if not paths:
        raise SongError(f"{path}: no songs here; known are {', '.join(READERS)} and POP909 folders")
    return paths


def read_songs(paths: Sequence[Path], cache: Path | None = None, workers: int = 1) -> Iterator[Song]:
    """The songs at `paths`, in their order.

    A file that cannot be read is left out with a warning. Where two files have one name, the second song's id ends
    in ``-2``, or the next number that is free. Reading a score takes up to a second: a folder `cache` keeps what was
    read, `workers` processes read.
    """
    yield from _numbered(song for _, song in _read(paths, cache, workers))


def read_listed(scores: Sequence[Track], cache: Path | None = None, workers: int = 1) -> Iterator[Song]:
    """The songs of a manifest of scores, as `read_songs` reads them.

    A song's id is made from the `track_id`. Songs of one `work_id` are versions of that work; a song without one is a
    work of its own.
    """
    yield from _numbered(
        replace(song, song_id=_slug(scores[at].track_id), version_of=scores[at].work_id or "")
        for at, song in _read([score.path for score in scores], cache, workers)
    )


def _read(paths: Sequence[Path], cache: Path | None, workers: int) -> Iterator[tuple[int, Song]]:
    """The songs that can be read, with their places in `paths`."""
    read = partial(_read_or_reason, cache)
    songs = map_in_processes(read, paths, workers, chunksize=8) if workers > 1 else map(read, paths)
    for at, song in enumerate(songs):
        if isinstance(song, str):
            logger.warning("left out: %s", song)
        else:
            yield at, song


def _numbered(songs: Iterable[Song]) -> Iterator[Song]:
    seen: set[str] = set()
    for song in songs:
        numbered = (f"{song.song_id}-{number}" for number in count(2))
        song_id = next(name for name in chain([song.song_id], numbered) if name not in seen)
        seen.add(song_id)
        yield replace(song, song_id=song_id)


def _read_or_reason(cache: Path | None, path: Path) -> Song | str:
    """The song in a file, or why it cannot be read; from the cache where it knows the file's content."""
    try:
        if cache is None:
            return read_song(path)
        kept = cache / f"{_content_hash(path)}.json"
        with suppress(*DAMAGED):  # missing too
            return Song.from_json(read_text(kept, KEPT_BYTES))
        song = read_song(path)
    except SongError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); check it and its permissions"
    with atomic_write(kept) as part:
        part.write_text(song.to_json(), encoding="utf-8")
    return song


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256(os.fsencode(f"{READING} {path.name}"))
    for file in sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]:
        digest.update(read_bytes(file, XML_BYTES))
    return digest.hexdigest()[:32]


def _song_paths(path: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """As `song_paths`; a folder that was `seen`, by its device and number, is not looked into again: links may loop."""
    try:
        if _is_pop909(path) or path.suffix.lower() in READERS:
            yield path
        elif path.is_dir():
            status = path.stat()
            folder = (status.st_dev, status.st_ino)
            if folder not in seen:
                seen.add(folder)
                for child in sorted(path.iterdir()):
                    yield from _song_paths(child, seen)
    except OSError as error:
        logger.warning("left out: %s: %s; check its permissions", path, error.strerror)


def _is_pop909(path: Path) -> bool:
    return (path / CHORDS).is_file()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "song"
