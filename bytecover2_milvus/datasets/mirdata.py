"""Data sets that the package mirdata has a loader for, if their tracks have works.

The loader's index is what is expected; nothing is downloaded. Tracks whose loader knows a file of audio are taken from
there; those of others, such as Da-TACOS, are found by their id in the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import ManifestError
from ..untrusted import shorten
from .dataset import DataSet, ListedTrack, leaks, without_suffix

WORK = ("work_id", "clique_id", "work", "piece")  # what loaders call the work of a track
_AUDIO = ("audio_path", "audio_path_mix", "audio_path_stereo", "audio_path_mono")


def read_mirdata(name: str, folder: Path) -> DataSet:
    """A data set by mirdata's loader of that name, with `folder` as its home.

    Raises
    ------
    ManifestError
        If there is no such loader, it needs more packages or files than are there, or its tracks have no works.
    ImportError
        Without the extra ``mirdata``.
    """
    import mirdata

    try:
        loader = mirdata.initialize(name, data_home=str(folder))
        listed = [_listed(track_id, track, folder) for track_id, track in loader.load_tracks().items()]
    except Exception as error:  # loaders raise what they like over files and packages that are not there
        reason = shorten(error) or type(error).__name__
        raise ManifestError(f"mirdata:{name}: {reason}; is {folder} its home, as mirdata.initialize says?") from error
    if not listed or not any(track.work_id for track in listed):
        raise ManifestError(
            f"mirdata:{name}: its tracks have no works ({', '.join(WORK)}), so there are no covers to find"
        )
    return DataSet(f"mirdata's {name}, each track against all others", tuple(listed), tuple(leaks(listed)))


def _listed(track_id: str, track: Any, folder: Path) -> ListedTrack:
    work = next((str(value) for name in WORK if (value := _value(track, name))), "")
    audio = next((str(value) for name in _AUDIO if (value := _value(track, name))), "")
    names = (without_suffix(os.path.relpath(audio, folder)),) if audio else ()
    performance = str(_value(track, "performance_id") or track_id)
    title = str(_value(track, "performance_title") or _value(track, "title") or "")
    artist = str(_value(track, "performance_artist") or _value(track, "artist") or "")
    return ListedTrack((*names, performance), track_id, work, title, artist)


def _value(track: Any, name: str) -> Any:
    """An attribute of a track, None where it has none or the file that tells it is not there."""
    try:
        return getattr(track, name, None)
    except (OSError, AttributeError, TypeError, KeyError):
        return None
