"""The tracks that queries found, in files that other commands and players take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..atomic import atomic_write
from ..manifest import Track, write_manifest
from ..milvus.search import Match
from .playlist import Entry, write_m3u


def write_matches_manifest(matches: Sequence[Match], path: Path) -> None:
    """A manifest of the tracks, as they are stored; one that several queries found stands there once."""
    tracks = {
        match.track_id: Track(Path(match.path), match.track_id, match.work_id, match.title, match.artist)
        for match in matches
        if match.path
    }
    with atomic_write(path) as part:
        write_manifest(list(tracks.values()), part)


def write_matches_playlist(matches: Sequence[Match], path: Path) -> None:
    """Extended M3U of the tracks, in the order in which they were found; each stands there once."""
    found = {match.track_id: match for match in matches if match.path}.values()
    entries = (Entry(one.path, one.title or one.track_id, one.artist, one.duration_s) for one in found)
    write_m3u(entries, path, path.stem)


WRITERS: dict[str, Callable[[Sequence[Match], Path], None]] = {
    ".csv": write_matches_manifest,
    ".m3u8": write_matches_playlist,
}
