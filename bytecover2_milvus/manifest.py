"""The recordings of a manifest, and the works that they are of.

A *manifest* is a CSV file with a header, or JSON lines, with one track per row: `path` and `work_id` are required;
`track_id`, `title`, `artist`, `split` and `role` are optional; further columns are kept as metadata, those of CSV that
hold nothing but numbers as numbers. A row is described by ``schemas/manifest.schema.json``. Relative paths start at the
manifest's folder. An empty `work_id` says that the work is not known: such a track can be found, but an evaluation
does not query it, and a work that was stored before is forgotten. A `role` is for evaluations alone: a "query"
asks and is no candidate, a track of the "gallery" is a candidate and does not ask; without one, a track does both.
``covers.csv@train`` is the tracks of ``covers.csv`` whose `split` is ``train``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from .audio.load import find_audio
from .errors import ManifestError
from .untrusted import shorten

REQUIRED = ("path", "work_id")
OPTIONAL = ("track_id", "title", "artist", "split", "role")
ROLES = ("", "query", "gallery")
MAX_BYTES = 1 << 30  # of a manifest, some millions of tracks
MAX_DEPTH = 100  # of lists and objects within each other: Python's reader is recursive
MAX_DIGITS = 1_000  # of a number; Python converts no more than some thousands
TYPES = ("text", "number")  # of the further columns of CSV
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17}(e[+-]?[0-9]{1,2})?)?", re.IGNORECASE)
_MARKS = re.compile(rf'"(?:[^"\\]|\\.)*"|[\[{{]|[\]}}]|\d{{{MAX_DIGITS + 1},}}')  # what decides these in JSON


@dataclass(frozen=True)
class Track:
    """A recording of a work."""

    path: Path
    track_id: str  # unique in a manifest
    work_id: str | None = None  # "" where a manifest says that the work is not known, None where nothing is said
    title: str = ""
    artist: str = ""
    split: str = ""  # "train", "test", ...
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)  # the further columns, as given
    role: str = ""  # in an evaluation, one of `ROLES`
    named: bool = field(default=True, compare=False)  # False: `track_id` is made from the path, and gives way
    # Names that came from the file's tags, where all names are said here; None leaves to the tags what is not said.
    from_file: tuple[str, ...] | None = field(default=None, compare=False)


def read_manifest(
    path: str | Path, types: Mapping[str, str] | None = None, content: bytes | None = None
) -> list[Track]:
    """The tracks of a manifest, in its order. Whether their audio files exist is not looked at.

    Parameters
    ----------
    path : str or Path
        CSV with a header, or JSON lines, in UTF-8. The first character tells which of the two. With
        ``@SPLIT`` behind it, the tracks of that split only.
    types : mapping, optional
        Of further columns of CSV, "text" or "number". A column that is not among them holds numbers if all its values
        are written as numbers, none of which begins with a 0 that means nothing, as in "007".
    content : bytes, optional
        Of the manifest, from elsewhere: `path` then only stands for it in messages, and its folder is where relative
        paths start.

    Returns
    -------
    tracks : list of Track
        A track without a `track_id` gets its path as written, without the suffix; with the suffix where another track
        would have the same.

    Raises
    ------
    ManifestError
        If the file cannot be read or holds no track, a required column or a path is missing, a row has too many or too
        few fields, a value is no text, or two tracks have the same `track_id`. The message names the line. If no track
        is of the split, or `types` names no further column, or one of numbers that holds something else.
    """
    path, split = _path_and_split(Path(path))
    try:
        if content is None:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path}: more than {MAX_BYTES:,} bytes; split it")
    as_json = text.lstrip().startswith(("{", "["))
    rows = _json_rows(path, text) if as_json else _typed(path, list(_csv_rows(path, text)), types or {})
    tracks: list[Track] = []
    places: list[str] = []
    for line, row in rows:
        places.append(f"{path}, line {line}")
        tracks.append(_track(places[-1], row))
    if not tracks:
        raise ManifestError(f"{path}: no tracks; write a row for each, with the columns {', '.join(REQUIRED)}")
    tracks = _with_ids(tracks, [track.path for track in tracks])
    first: dict[str, tuple[str, Track]] = {}
    for place, track in zip(places, tracks, strict=True):
        there, other = first.setdefault(track.track_id, (place, track))
        if other is track:
            continue
        if other.path == track.path:
            raise ManifestError(f"{place}: {track.path} is listed already ({there}); delete one of the two")
        raise ManifestError(f"{place}: track_id {track.track_id!r} is taken ({there}); give each track its own")
    chosen = [replace(track, path=path.parent / track.path) for track in tracks if split in (None, track.split)]
    if not chosen:
        known = ", ".join(sorted({track.split for track in tracks} - {""})) or "none"
        raise ManifestError(f"{path}: no track of the split {split}; the column split names: {known}")
    return chosen


def tracks_in(paths: Iterable[str | Path]) -> list[Track]:
    """The audio files at `paths` as tracks of unknown works; what counts as an audio file is up to `find_audio`.

    A file's `track_id` is its path below the given folder, without the suffix; the path as given where two files would
    have the same. Its title is the name without the suffix.
    """
    below: dict[Path, Path] = {}
    for given in map(Path, paths):
        folder = given if os.path.isdir(given) else given.parent  # is_dir() raises where it may not look
        for path in find_audio([given]):
            below.setdefault(path, path.relative_to(folder))
    return _with_ids([Track(path, "", title=path.stem) for path in below], list(below.values()))


def write_manifest(tracks: Sequence[Track], path: str | Path) -> None:
    """Write `tracks` as CSV; files in or below the manifest's folder get relative paths, others absolute ones.

    Raises
    ------
    ManifestError
        If the file cannot be written.
    """
    path = Path(path)
    folder = path.parent.absolute()
    metadata = dict.fromkeys(key for track in tracks for key in track.metadata)
    optional = [name for name in OPTIONAL if name != "role" or any(track.role for track in tracks)]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*REQUIRED, *optional, *metadata], lineterminator="\n")
            writer.writeheader()
            for track in tracks:
                place = track.path.absolute()
                place = place.relative_to(folder) if place.is_relative_to(folder) else place
                columns = {name: getattr(track, name) for name in ("work_id", *optional)}
                writer.writerow({"path": place.as_posix(), **columns, **track.metadata})
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error


def _path_and_split(path: Path) -> tuple[Path, str | None]:
    """``covers.csv@train`` in two, unless that is the name of a file."""
    name, at, split = path.name.rpartition("@")
    return (path.with_name(name), split) if at and name and not path.exists() else (path, None)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and columns of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = filter(None, reader)  # an empty line is none
        header = [name.strip() for name in next(rows, [])]
        line = f"{path}, line {reader.line_num}"
        if header:
            _require_columns(line, header)
        for name, count in Counter(header).items():
            if count > 1:
                raise ManifestError(f"{line}: column {name!r} stands there {count} times; keep one")
        for row in rows:
            if len(row) != len(header):
                raise ManifestError(
                    f"{path}, line {reader.line_num}: {len(row)} fields under a header of {len(header)}; "
                    "put values that hold a comma in double quotes"
                )
            yield reader.line_num, dict(zip(header, map(str.strip, row), strict=True))
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not CSV ({error}); check the quotes") from error


def _typed(
    path: Path, rows: list[tuple[int, dict[str, Any]]], types: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with numbers in the further columns that hold numbers; an empty field of such a column is left out."""
    further = [name for name in (rows[0][1] if rows else {}) if name not in (*REQUIRED, *OPTIONAL)]
    if rows and (unknown := types.keys() - set(further)):
        known = ", ".join(further) or "none"
        raise ManifestError(f"{path}: no column {min(unknown)!r} of your own to give a type; there are: {known}")
    numbers = []
    for name in further:
        values = [row[name] for _, row in rows if row[name]]
        as_written = bool(values) and all(map(_NUMBER.fullmatch, values))
        if types.get(name, "number" if as_written else "text") == "number":
            numbers.append(name)
    for line, row in rows:
        for name in numbers:
            if not (value := row.pop(name)):
                continue
            if not _NUMBER.fullmatch(value):
                raise ManifestError(f"{path}, line {line}: column {name} is {shorten(value)!r}, not a number")
            row[name] = int(value) if value.lstrip("-").isdecimal() else float(value)
        yield line, row


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and columns of each row."""
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() would split at U+2028, which JSON allows
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            _check_size(line)
            row = json.loads(line, object_pairs_hook=partial(_object, line))
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"{place}, character {error.colno}: not JSON ({error.msg}); write one object per line"
            ) from error
        if not isinstance(row, dict):
            raise ManifestError(f"{place}: {type(row).__name__} where an object is needed; write one object per line")
        _require_columns(place, row)
        yield number, row


def _check_size(line: str) -> None:
    """Refuse what Python's reader of JSON would not take.

    Raises
    ------
    json.JSONDecodeError
    """
    depth = 0
    for mark in _MARKS.finditer(line):
        if mark[0] in "[{":
            depth += 1
        elif mark[0] in "]}":
            depth -= 1
        elif mark[0][0] != '"':
            raise json.JSONDecodeError(f"a number of {len(mark[0])} digits", line, mark.start())
        if depth > MAX_DEPTH:
            raise json.JSONDecodeError(f"lists or objects more than {MAX_DEPTH} deep", line, mark.start())


def _object(line: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of its keys and values, each of which stands there once."""
    read = dict(pairs)
    if len(read) < len(pairs):
        (name, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise json.JSONDecodeError(f"column {name!r} twice", line, line.rfind(json.dumps(name, ensure_ascii=False)))
    return read


def _require_columns(place: str, columns: Iterable[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ManifestError(
            f"{place}: no column {' and no column '.join(missing)}, only {', '.join(columns)}; "
            "separate columns by commas and leave work_id empty where the work is not known"
        )


def _track(place: str, row: dict[str, Any]) -> Track:
    """The track of one row, with its path as written."""
    columns: dict[str, Any] = {name: _text(place, name, row.get(name)) for name in (*REQUIRED, *OPTIONAL)}
    written = Path(columns.pop("path"))
    if not written.name:
        raise ManifestError(f"{place}: column path is {row['path']!r}; name the audio file")
    if not _can_be_a_name(written):
        raise ManifestError(f"{place}: column path is {row['path']!r}, which no file can be called; mend it")
    if columns["role"] not in ROLES:
        raise ManifestError(f"{place}: column role is {shorten(columns['role'])!r}; it is query, gallery or empty")
    metadata = {name: value for name, value in row.items() if name not in (*REQUIRED, *OPTIONAL)}
    return Track(path=written, metadata=metadata, **columns)


def _can_be_a_name(path: Path) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _text(place: str, column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ManifestError(f"{place}: column {column} is {str(value)[:80]}; give text or a whole number")
    return str(value)


def _with_ids(tracks: Sequence[Track], short: Sequence[PurePath]) -> list[Track]:
    """`tracks`, those without a `track_id` named by the `short` path without its suffix or, if taken, by their path."""
    names = [track.track_id or path.with_suffix("").as_posix() for track, path in zip(tracks, short, strict=True)]
    count = Counter(names)
    return [
        track
        if track.track_id
        else replace(track, track_id=name if count[name] == 1 else track.path.as_posix(), named=False)
        for track, name in zip(tracks, names, strict=True)
    ]
