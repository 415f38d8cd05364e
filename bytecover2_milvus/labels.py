"""Labels: what people said of a query and a track, that both are one work or that they are not.

A labels file is JSON lines, one judgement each, as ``schemas/label.schema.json`` describes them; lines are only ever
appended. Of one query and one track the last line counts. What is said of works follows: tracks that are one work with
the same recording are one work with each other, and so they get one work_id in a manifest.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .audio.decode_pool import hash_content
from .errors import ManifestError, OutputError
from .manifest import Track
from .untrusted import parse_json, read_bytes, shorten

MAX_BYTES = 1 << 28  # of a labels file: some hundred thousand judgements


@dataclass(frozen=True, slots=True)
class Label:
    """One judgement."""

    query: str  # the name of the file
    content_hash: str  # SHA-256 of the query's file, hexadecimal
    track_id: str
    path: str  # of the track's file, as it is stored
    work_id: str  # of the track, as it is stored; "" where it is not known
    same_work: bool
    probability: float | None  # that the second stage gave; None without one
    time: str  # ISO 8601, UTC


class LabelsFile:
    """A labels file that is open to be appended to, by this process alone.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass
        except OSError as error:
            raise self._problem(error) from error

    def append(self, label: Label) -> None:
        """Write one line, which is whole and on the disk when this returns, or not there at all.

        Raises
        ------
        OutputError
        """
        line = json.dumps(asdict(label)).encode() + b"\n"  # ASCII
        try:
            with self._lock, self.path.open("ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # a line that somebody left unfinished
                if file.write(line) != len(line):  # the disk is full
                    file.truncate(end)
                    raise OSError(None, "the disk is full")
                os.fsync(file.fileno())
        except OSError as error:
            raise self._problem(error) from error

    def _problem(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error.strerror or error}); choose another place")


def read_labels(paths: Iterable[str | Path]) -> list[Label]:
    """The judgements that count in some labels files: of each query and track the latest.

    Raises
    ------
    ManifestError
        If a file cannot be read, is too large, or holds a line that is no label: the message names it.
    """
    latest: dict[tuple[str, str], Label] = {}
    for path in map(Path, paths):
        for number, line in enumerate(_text(path).split("\n"), start=1):
            if not line.strip():
                continue
            label = _label(line, f"{path}, line {number}")
            key = label.content_hash, label.track_id
            if key not in latest or latest[key].time <= label.time:
                latest[key] = label
    return list(latest.values())


def files_by_content(paths: Iterable[Path], hashes: Set[str]) -> dict[str, Path]:
    """Those files whose SHA-256 is among `hashes`, by it; what cannot be read is none of them."""
    found = {}
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            found[hash_content(file)] = path
    return {digest: path for digest, path in found.items() if digest in hashes}


@dataclass(frozen=True)
class Labelled:
    """Tracks of works that labels tell, and what could not be told."""

    tracks: list[Track]
    contradictions: list[Label]  # not the same work, say they, but others say so; none of these tracks is above
    missing: list[str]  # names of queries whose files were not found


def labelled_tracks(labels: Sequence[Label], files: Mapping[str, Path]) -> Labelled:
    """The queries and tracks of labels, with the work_ids that follow from these.

    Parameters
    ----------
    labels : sequence of Label
    files : mapping
        Files of queries by content hash.

    Returns
    -------
    labelled : Labelled
        A work has the stored work_id of its tracks, the first in the alphabet if these differ, as people have judged
        since; else one made of the track_id. A recording that was only told to be another work is a work of its own.
    """
    works = _Joined()
    track_at = {os.path.abspath(label.path): _track(label) for label in labels}
    of_query: dict[str, str] = {}  # what a query is called here, by content hash
    for label in labels:
        path = files.get(label.content_hash)
        itself = track_at.get(os.path.abspath(path)) if path else None  # a query that is a stored track
        of_query[label.content_hash] = itself or f"query {label.content_hash}"
        if label.work_id:  # tracks of one stored work are one work
            works.join(_track(label), f"work {label.work_id}")
        if label.same_work:
            works.join(of_query[label.content_hash], _track(label))
    wrong = [
        label
        for label in labels
        if not label.same_work and works.of(of_query[label.content_hash]) == works.of(_track(label))
    ]
    unclear = {works.of(_track(label)) for label in wrong}
    members: dict[str, dict[str, Track]] = defaultdict(dict)
    ids: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        work = works.of(_track(label))
        ids[work] |= {label.work_id} - {""}
        members[work][_track(label)] = Track(Path(label.path), label.track_id, "")
        query = of_query[label.content_hash]
        if (path := files.get(label.content_hash)) and os.path.abspath(path) not in track_at:
            name = f"query-{label.content_hash[:16]}"
            members[works.of(query)][query] = Track(path, name, "", title=Path(label.query).stem)
    tracks = [
        Track(track.path, track.track_id, _work_id(ids[work], of_work.values()), track.title)
        for work, of_work in members.items()
        if work not in unclear
        for track in of_work.values()
    ]
    missing = sorted({label.query for label in labels if label.content_hash not in files})
    return Labelled(tracks, wrong, missing)


class _Joined:
    """Sets of names that are one."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name that stands for the set of this one."""
        while (above := self._above.setdefault(name, name)) != name:
            name = above
        return name

    def join(self, first: str, second: str) -> None:
        self._above[self.of(first)] = self.of(second)


def _track(label: Label) -> str:
    return f"track {label.track_id}"


def _work_id(known: set[str], tracks: Iterable[Track]) -> str:
    return min(known) if known else f"labelled-{min(track.track_id for track in tracks)}"


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 at byte {error.start}; is it a labels file?") from error


def _label(line: str, place: str) -> Label:
    import jsonschema

    try:
        read: dict[str, Any] = parse_json(line)
        jsonschema.validate(read, _SCHEMA, jsonschema.Draft202012Validator)
    except ValueError as error:
        raise ManifestError(f"{place}: not JSON ({shorten(error)}); delete the line") from error
    except jsonschema.ValidationError as error:
        raise ManifestError(f"{place}: no label ({shorten(error.message)}); is it a labels file?") from error
    return Label(**read)


_SCHEMA = json.loads((resources.files("bytecover2_milvus.schemas") / "label.schema.json").read_text("utf-8"))
