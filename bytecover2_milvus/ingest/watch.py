"""Folders and manifests watched for what is new, by looking again and again.

Looking works where the kernel tells nothing: on network shares, where others write, and in containers. It costs one
`stat` per file and look.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from ..audio.decode_pool import mtime_ns
from ..manifest import Track


class _Look(NamedTuple):
    """A track as it was listed, and its file as it was."""

    track: Track
    size: int
    mtime_ns: int


class Watch:
    """The tracks that were seen, to tell which of the next ones are new; `tracks` are ingested as they are now."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self._last = _look_at(tracks)  # by path: as they were at the last look
        self._done = self._last  # as they were ingested
        self._gone = False

    def look(self, tracks: Iterable[Track]) -> tuple[list[Track], bool]:
        """The tracks to ingest, and whether files have gone since that was last said.

        A track is given when it or its file differs from what was ingested and is the same as at the last look: while
        a file is written, its size or time of modification is another at every look. That files have gone is said when
        no other waits for its second look: it may be the one that has gone, under its new name.
        """
        now = _look_at(tracks)
        self._gone |= bool(self._last.keys() - now.keys())
        ready = [look for path, look in now.items() if look == self._last.get(path) and look != self._done.get(path)]
        self._done = {path: look for path, look in self._done.items() if path in now}
        self._done |= {os.path.abspath(look.track.path): look for look in ready}
        self._last = now
        gone = self._gone and all(look == self._done.get(path) for path, look in now.items())
        self._gone &= not gone
        return [look.track for look in ready], gone

    def again(self, tracks: Iterable[Track]) -> None:
        """Take `tracks` as not ingested."""
        for track in tracks:
            self._done.pop(os.path.abspath(track.path), None)


def _look_at(tracks: Iterable[Track]) -> dict[str, _Look]:
    """The tracks whose file is there, by its absolute path."""
    looks = {}
    for track in tracks:
        try:
            status = os.stat(track.path)
        except (OSError, ValueError):  # gone meanwhile, or not to be looked at
            continue
        looks[os.path.abspath(track.path)] = _Look(track, status.st_size, mtime_ns(status))
    return looks
