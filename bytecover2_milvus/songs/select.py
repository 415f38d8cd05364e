"""Sets of songs by the words that commands take for them."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SongError
from .score import Song


def select_songs(spec: str, cache: Path | None = None, workers: int = 1) -> list[Song]:
    """The songs that `spec` names.

    Parameters
    ----------
    spec : str
        ``composed`` (composed at random; needs a range of seeds), ``traditional`` (the melodies that come with the
        package), or the path of a score or of a folder of scores. ``@FROM-TO`` behind it takes a part, FROM included,
        TO not: ``composed@0-1000``, ``scores/@0-500``. Scores are counted in the order of their paths, and those that
        cannot be read are counted too, so that a part is the same files for everyone.
    cache : Path, optional
        Folder that keeps what was read from scores.
    workers : int
        Processes that read scores.

    Raises
    ------
    SongError
        If there is no such source, no song in the range, or no range behind ``composed``.
    ManifestError
        If a manifest cannot be read.
    """
    match = re.fullmatch(r"(?P<source>.+?)(?:@(?P<start>\d+)-(?P<stop>\d+))?", spec)
    if match is None:
        raise SongError("an empty name for songs: use composed@FROM-TO, traditional or a path")
    source, start = match["source"], int(match["start"] or 0)
    stop = int(match["stop"]) if match["stop"] else None
    if source == "composed":
        from .compose.composer import compose

        if stop is None:
            raise SongError("composed: there are endlessly many, say which, as composed@0-1000")
        songs = [compose(seed) for seed in range(start, stop)]
    elif source == "traditional":
        from .read.traditional import traditional_songs

        songs = list(traditional_songs()[start:stop])
    elif re.search(r"\.(csv|jsonl)(@[^/]*)?$", spec, re.IGNORECASE):
        from ..manifest import read_manifest
        from .readers import read_listed

        songs = list(read_listed(read_manifest(spec), cache, workers))
    else:
        from .readers import read_songs, song_paths

        songs = list(read_songs(song_paths(source)[start:stop], cache, workers))
    if not songs:
        raise SongError(f"{spec}: no song there")
    return songs
