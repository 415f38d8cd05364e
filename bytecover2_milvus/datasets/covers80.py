"""Covers80: 80 songs in two versions each or more; 164 files, of which two lists pair 160.

Protocols
---------
160x160
    The tracks of the lists, each a query for the 159 others: what papers give MAP and MR1 of.
80x80
    Tracks of the first list ask, those of the second are the gallery (D. P. W. Ellis).
all
    All files of the archive; two works have three tracks, one has four.

Forms: ``list1.list`` and ``list2.list`` of the archive, with aligned lines ``Work/track``; a CSV of
``work_id,track_id``; JSON lines of ``{"utt", "wav", "song" or "work", ...}``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from ..audio.load import find_audio
from ..errors import ManifestError
from .dataset import DataSet, ListedTrack, leaks, lines_of, malformed, the_only, without_suffix

LISTS = r"list[12]\.list|.*covers80.*\.(csv|jsonl?|txt)"
PROTOCOLS = ("160x160", "80x80", "all")
PAIRS = 80  # of the published lists
WORKS = 80


def read_covers80(folder: Path, lists: Sequence[Path], protocol: str) -> DataSet:
    """Covers80 by its lists.

    Raises
    ------
    ManifestError
        If a list is malformed, there are several versions, or the protocol needs the two lists of pairs.
    """
    halves = [[path for path in lists if path.name == f"list{half}.list"] for half in (1, 2)]
    if not any(halves):
        if protocol != PROTOCOLS[0]:
            raise ManifestError(f"{folder}: the protocol {protocol} is told by list1.list and list2.list; add them")
        path = the_only(lists, "the list of Covers80")
        tracks = _of_csv(path) if path.suffix == ".csv" else _of_json(path)
        return _checked(f"Covers80, {path.name}, each track against all others", tracks)
    if not all(halves):
        raise ManifestError(f"{folder}: list1.list and list2.list belong together, and one is missing; add it")
    first, second = ([*lines_of(the_only(paths, paths[0].name))] for paths in halves)
    if len(first) != len(second):
        raise ManifestError(
            f"{halves[0][0]} has {len(first)} lines and {halves[1][0]} {len(second)}: two versions; take both of one"
        )
    tracks = []
    for (place, one), (other_place, other) in zip(first, second, strict=True):
        pair = [_of_archive(place, one), _of_archive(other_place, other, "gallery")]
        if pair[0].work_id != pair[1].work_id:
            raise ManifestError(
                f"{other_place}: {pair[1].work_id} beside {pair[0].work_id}: two versions; take both lists of one"
            )
        tracks += pair
    if protocol == "80x80":
        tracks = [_with_role(track, track.role or "query") for track in tracks]
        return _checked(f"Covers80, {len(first)} queries of list 1 for list 2", tracks, len(first))
    tracks = [_with_role(track, "") for track in tracks]
    if protocol == "all":
        tracks += _unlisted(folder, tracks)
        return _checked("Covers80, all files, each against all others", tracks, len(first))
    return _checked(f"Covers80, {len(tracks)} x {len(tracks)}", tracks, len(first))


def _checked(title: str, tracks: Sequence[ListedTrack], pairs: int | None = None) -> DataSet:
    """The data set, with what differs from the published one."""
    works = len({track.work_id for track in tracks})
    facts = leaks(tracks)
    if works != WORKS or pairs not in (None, PAIRS):
        facts.append(f"these lists have {len(tracks)} tracks of {works} works; the published ones 160 of {WORKS}")
    return DataSet(title, tuple(tracks), tuple(facts))


def _of_archive(place: str, line: str, role: str = "") -> ListedTrack:
    name = without_suffix(line)
    work, slash, track = name.partition("/")
    if not (work and slash and track):
        raise malformed(place, line, "Work/track")
    return ListedTrack((name,), name, work, title=work.replace("_", " "), role=role)


def _with_role(track: ListedTrack, role: str) -> ListedTrack:
    return ListedTrack(track.names, track.track_id, track.work_id, track.title, role=role)


def _unlisted(folder: Path, listed: Sequence[ListedTrack]) -> list[ListedTrack]:
    """Files that no list names, beside those of a work."""
    known, works = {track.track_id for track in listed}, {track.work_id for track in listed}
    names = {f"{path.parent.name}/{path.stem}" for path in find_audio([folder]) if path.parent.name in works}
    return [_of_archive(str(folder), name) for name in sorted(names - known)]


def _of_csv(path: Path) -> list[ListedTrack]:
    rows = [*lines_of(path)]
    tracks = []
    for (place, text), row in zip(rows, csv.reader(text for _, text in rows), strict=True):
        if row[:2] == ["work_id", "track_id"]:
            continue
        if len(row) != 2 or not all(row):
            raise malformed(place, text, "work_id,track_id")
        work, track = row[0].strip(), without_suffix(row[1])
        tracks.append(ListedTrack((f"{work}/{track}", track), f"{work}/{track}", work, title=work.replace("_", " ")))
    return tracks


def _of_json(path: Path) -> list[ListedTrack]:
    tracks = []
    for place, text in lines_of(path):
        try:
            row = json.loads(text)
            work, wav = str(row.get("song") or row["work"]), without_suffix(row["wav"])
            name = str(row.get("utt") or row.get("perf") or wav)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise malformed(place, text, '{"utt", "wav", "song"}') from error
        tracks.append(ListedTrack((wav, Path(wav).name), name, work, title=work))
    return tracks
