"""Tracks whose file is gone from where it was ingested."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..manifest import Track
from ..milvus.collection import TrackCollection


@dataclass
class Gone:
    """The tracks without a file, and the places that were not looked at."""

    paths: dict[str, str] = field(default_factory=dict)  # by track_id
    passed_over: list[str] = field(default_factory=list)  # a line for each place, with the reason


def find_gone(collection: TrackCollection, folders: Iterable[Path], tracks: Sequence[Track]) -> Gone:
    """The stored tracks below `folders`, and those at the files of `tracks`, whose file does not exist any more.

    Parameters
    ----------
    collection : TrackCollection
    folders : iterable of Path
        A folder that is missing, or in which there is no file of `tracks`, is passed over: a share that is not mounted
        looks like that.
    tracks : sequence of Track
        What was found in the folders and what a manifest names. If none of those that lie in no folder is there, they
        are passed over too.

    Raises
    ------
    CollectionError
    """
    gone = Gone()
    at = [os.path.abspath(track.path) for track in tracks]
    below: list[str] = []
    given = set()
    for folder in folders:
        given.add(os.path.abspath(folder))
        start = os.path.join(os.path.abspath(folder), "")
        if not os.path.isdir(folder):
            gone.passed_over.append(f"{folder} is not there; is it mounted?")
        elif not any(path.startswith(start) and os.path.isfile(path) for path in at):
            gone.passed_over.append(f"no audio files in {folder}; is it mounted?")
        else:
            below.append(start)
    named = {path for path in at if path not in given and not path.startswith(tuple(below))}
    if named and not any(map(os.path.isfile, named)):
        gone.passed_over.append("none of the files that are named is there; are they mounted?")
        named = set()
    for page in collection.pages(["track_id", "path"]):
        for entity in page:
            path = entity["path"]
            if (path in named or path.startswith(tuple(below))) and _is_gone(path):
                gone.paths[entity["track_id"]] = path
    return gone


def _is_gone(path: str) -> bool:
    """True if there is nothing at `path`; False where one may not look, or the disk fails."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.islink(path)  # what it points to may be on another disk
    except (OSError, ValueError):
        return False
    return False
