"""A data set as its lists have it, and the files of a folder that are its tracks.

The lists say which tracks there are, of which works, and what each does in the published protocol. They are small and
can be had; the audio is what a user may have in part, in folders of any depth.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..audio.load import AUDIO_SUFFIXES, find_audio
from ..errors import ManifestError
from ..manifest import Track
from ..untrusted import open_regular, shorten

LIST_BYTES = 1 << 34  # of a list; those of Discogs-VI have gigabytes and are read line by line
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ListedTrack:
    """A track that a list names, wherever its file may lie."""

    names: tuple[str, ...]  # of its file, without suffix, with or without folders; the first that is there counts
    track_id: str
    work_id: str
    title: str = ""
    artist: str = ""
    split: str = ""
    role: str = ""  # as `manifest.Track` has it


@dataclass(frozen=True)
class DataSet:
    """The tracks that the lists of a data set name, and what there is to say of the lists."""

    title: str  # with the protocol
    tracks: tuple[ListedTrack, ...]
    facts: tuple[str, ...] = ()  # counts beside the published ones, leaks between splits; one line each


@dataclass(frozen=True)
class FoundTracks:
    """The tracks of a data set whose files are there."""

    tracks: tuple[Track, ...]
    facts: tuple[str, ...]  # how many of those expected, by split; what is missing


def find_tracks(data_set: DataSet, folder: Path) -> FoundTracks:
    """The tracks of a data set whose files lie in or below `folder`.

    Raises
    ------
    ManifestError
        If there is no file of any.
    """
    files = _by_name(folder)
    found: dict[Path, tuple[ListedTrack, Track]] = {}
    missing, shared, several = [], 0, 0
    for listed in data_set.tracks:
        paths = next((files[name] for name in listed.names if name in files), [])
        if not paths:
            missing.append(listed)
            continue
        several += len(paths) > 1
        if paths[0] in found:
            shared += 1
            continue
        columns = {name: getattr(listed, name) for name in ("track_id", "work_id", "title", "artist", "split", "role")}
        found[paths[0]] = listed, Track(paths[0], **columns)
    if not found:
        raise ManifestError(
            f"{folder}: no audio file of any of the {len(data_set.tracks)} tracks of {data_set.title}, such as "
            f"{data_set.tracks[0].names[0]}; put files of those names below the folder"
        )
    facts = list(_counts(data_set.tracks, [listed for listed, _ in found.values()]))
    if missing:
        facts.append(f"missing: {len(missing)} of {len(data_set.tracks)} tracks, such as {missing[0].names[0]}")
    if shared:
        facts.append(f"left out: {shared} tracks whose file is that of another track of the lists")
    if several:
        facts.append(f"{several} tracks have several files of their name; the first of each is taken")
    return FoundTracks(tuple(track for _, track in found.values()), tuple(facts))


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Audio files by their name without suffix, and by it with one, two, ... of the folders above."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in find_audio([folder]):
        parts = path.relative_to(folder).with_suffix("").parts
        for start in range(len(parts)):
            files["/".join(parts[start:])].append(path)
    return dict(files)


def _counts(expected: Sequence[ListedTrack], found: Sequence[ListedTrack]) -> Iterator[str]:
    """The numbers of tracks, works and queries of each split that were found, of those expected."""
    for split in dict.fromkeys(track.split for track in expected):
        of_split, here = ([track for track in tracks if track.split == split] for tracks in (expected, found))
        works, works_here = ({track.work_id for track in tracks} for tracks in (of_split, here))
        ranked = Counter(track.work_id for track in here if track.role != "query")
        queries = sum(
            1 for track in here if track.role != "gallery" and ranked[track.work_id] > (track.role != "query")
        )
        yield (
            f"{split or 'all'}: {len(here)} of {len(of_split)} tracks, {len(works_here)} of {len(works)} works, "
            f"{queries} queries"
        )


def leaks(tracks: Iterable[ListedTrack]) -> list[str]:
    """A line for works that stand in several splits, if there are such.

    Raises
    ------
    ManifestError
        If a track stands in several splits, or twice.
    """
    splits: dict[str, dict[str, None]] = defaultdict(dict)  # of each work
    seen: dict[str, str] = {}
    for track in tracks:
        if track.track_id in seen:
            where = " and ".join(name or "no split" for name in dict.fromkeys((seen[track.track_id], track.split)))
            raise ManifestError(f"track {track.track_id} is listed twice, in {where}; give one version of each list")
        seen[track.track_id] = track.split
        if track.split:
            splits[track.work_id][track.split] = None
    leaking = {work: names for work, names in splits.items() if len(names) > 1}
    if not leaking:
        return []
    shown = ", ".join(f"{work} ({' and '.join(names)})" for work, names in list(leaking.items())[:3])
    return [f"leak: {len(leaking)} works stand in several splits: {shown}{', ...' if len(leaking) > 3 else ''}"]


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, each with its place for messages.

    Raises
    ------
    ManifestError
        If the file cannot be read or is not UTF-8.
    """
    number = 0
    try:
        with open_regular(path, LIST_BYTES) as file:
            for number, line in enumerate(file, start=1):
                if text := line.decode("utf-8-sig").strip("\r\n"):
                    yield f"{path}, line {number}", text
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}, line {number}: not UTF-8; save it as UTF-8") from error


def count_lines(path: Path) -> int:
    """The number of lines of a list that are not empty."""
    return sum(1 for _ in lines_of(path))


def the_only(paths: Sequence[Path], what: str) -> Path:
    """The one path.

    Raises
    ------
    ManifestError
        If there are several: two versions of a list.
    """
    if len(paths) > 1:
        shown = ", ".join(f"{path} ({count_lines(path)} lines)" for path in paths[:3])
        raise ManifestError(f"{len(paths)} versions of {what}: {shown}; name one by --list")
    return paths[0]


def without_suffix(name: str) -> str:
    """A file's name as a list has it, without the suffix if that is one of audio."""
    path = PurePosixPath(name.strip())
    return str(path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path)


def malformed(place: str, text: str, form: str) -> ManifestError:
    """The error of a line that is not of the form of its list."""
    return ManifestError(f"{place}: {shorten(text)!r} is not of the form {form}; give the list as it is published")


def relative(path: Path, folder: Path) -> str:
    """`path` below `folder`, for messages."""
    return os.path.relpath(path, folder)
