"""Playlists in extended M3U, which players open and ``ingest -`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_write
from ..terminal import printable


@dataclass(frozen=True, slots=True)
class Entry:
    """One track of a playlist."""

    path: str  # absolute
    title: str
    artist: str
    duration_s: float
    group: str = ""  # entries in a row with the same one belong together


def write_m3u(entries: Iterable[Entry], path: Path, name: str) -> None:
    """Write a playlist called `name`, in UTF-8.

    A path with a line break cannot stand in such a file: a comment takes its place.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    group = ""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(f"#EXTM3U\n#PLAYLIST:{printable(name)}\n")
        for entry in entries:
            if entry.group != group:
                group = entry.group
                file.write(f"#EXTGRP:{printable(group)}\n")
            title = " - ".join(filter(None, (entry.artist, entry.title)))
            file.write(f"#EXTINF:{round(entry.duration_s)},{printable(title)}\n")
            broken = "\n" in entry.path or "\r" in entry.path
            left_out = f"# left out, as there is a line break in its path: {printable(entry.path)}"
            file.write(f"{left_out if broken else entry.path}\n")
