"""Data sets by name, and the lists of them that a folder holds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ManifestError
from . import covers80, datacos, discogs_vi, shs100k
from .dataset import DataSet, relative
from .mirdata import read_mirdata


@dataclass(frozen=True)
class Reader:
    """The reader of a data set's lists."""

    lists: str  # regular expression of their names, in either case
    read: Callable[[Path, Sequence[Path], str], DataSet]
    protocols: tuple[str, ...] = ("published",)  # the first is the default


READERS = {
    "covers80": Reader(covers80.LISTS, covers80.read_covers80, covers80.PROTOCOLS),
    "shs100k": Reader(shs100k.LISTS, shs100k.read_shs100k),
    "datacos": Reader(datacos.LISTS, datacos.read_datacos),
    "discogs-vi": Reader(discogs_vi.LISTS, discogs_vi.read_discogs_vi),
}
MIRDATA = "mirdata:"


def read_data_set(name: str, folder: Path, lists: Sequence[Path] = (), protocol: str = "") -> DataSet:
    """A data set by its lists, those in or below `folder` if none are given.

    Parameters
    ----------
    name : str
        A key of `READERS`, or ``mirdata:`` and the name of a loader.
    folder : Path
    lists : sequence of Path
    protocol : str
        One of the reader's; by default its first.

    Raises
    ------
    ManifestError
        If there is no such data set, protocol, folder or list, or a list is malformed or there in two versions.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no folder; name the one of the audio files and lists")
    if name.startswith(MIRDATA):
        return read_mirdata(name.removeprefix(MIRDATA), folder)
    if not (reader := READERS.get(name)):
        raise ManifestError(f"{name}: no data set that is known; there are {', '.join(READERS)} and {MIRDATA}NAME")
    protocol = protocol or reader.protocols[0]
    if protocol not in reader.protocols:
        raise ManifestError(f"{name}: no protocol {protocol!r}; there is {', '.join(reader.protocols)}")
    if not lists and not (lists := [*_lists_in(folder, reader)]):
        others = [other for other, its in READERS.items() if other != name and any(_lists_in(folder, its))]
        hint = f"it looks like {others[0]}" if others else "add them, or name them by --list"
        raise ManifestError(f"{folder}: no lists of {name}; {hint}")
    data_set = reader.read(folder, lists, protocol)
    if not data_set.tracks:
        raise ManifestError(f"{', '.join(relative(path, folder) for path in lists)}: no tracks; are the lists empty?")
    return data_set


def _lists_in(folder: Path, reader: Reader) -> Iterator[Path]:
    """The lists of a data set in or below `folder`, in sorted order."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if re.fullmatch(reader.lists, name, re.IGNORECASE):
                yield Path(place, name)
