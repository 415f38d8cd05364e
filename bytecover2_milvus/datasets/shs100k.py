"""SHS100K: 8858 works of SecondHandSongs, by a list and three splits.

Every track of a split asks, and the others of the split are ranked: ``covers.csv@test``. Two divisions are about, which
papers call by the same name; the counts tell which of them a folder has. In the usual one, two works are in two splits.

Forms: ``list``, tab-separated ``set_id, ver_id, title, performer, url, status`` without a header; ``SHS100K-TRAIN``,
``-VAL`` and ``-TEST`` with ``set_id<TAB>ver_id`` or ``set_id_ver_id`` on each line. Audio files are called
``<set_id>_<ver_id>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import ManifestError
from .dataset import SPLITS, DataSet, ListedTrack, leaks, lines_of, malformed, the_only

LISTS = r"list(\.txt|\.tsv)?|SHS100K-(TRAIN|VAL|TEST)\w*(\.txt|\.tsv)?"
PUBLISHED = {  # tracks and works of a split, and what papers have it
    ("train", 87_091, 5_324): "the usual division",
    ("val", 10_884, 1_842): "the usual division",
    ("test", 10_547, 1_692): "the usual division",
    ("test", 2_983, 116): "the other division, whose results are not to be compared with those of the usual one",
}


def read_shs100k(folder: Path, lists: Sequence[Path], protocol: str) -> DataSet:
    """SHS100K by its list, its splits, or both.

    Raises
    ------
    ManifestError
        If a list is malformed, there are several versions of one, or a track stands in two splits.
    """
    described = [path for path in lists if path.name.startswith("list")]
    rows = _described(the_only(described, "the list of SHS100K")) if described else {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for split in SPLITS:
        if paths := [path for path in lists if path.name.upper().startswith(f"SHS100K-{split.upper()}")]:
            splits[split] = _pairs(the_only(paths, f"SHS100K-{split.upper()}"))
    if not splits and not described:
        raise ManifestError(
            f"{folder}: no list of SHS100K has a known name; call them list, SHS100K-TRAIN, -VAL, -TEST"
        )
    tracks, facts = [], []
    for split, pairs in (splits or {"": list(rows)}).items():
        tracks += [_track(*pair, *rows.get(pair, ("", "")), split) for pair in pairs]
        works = len({work for work, _ in pairs})
        if split:
            known = PUBLISHED.get((split, len(pairs), works), "no published division that is known here")
            facts.append(f"{split} has {len(pairs)} tracks of {works} works: {known}")
    facts += leaks(tracks)
    if rows and (unknown := sum(1 for pairs in splits.values() for pair in pairs if pair not in rows)):
        facts.append(
            f"{unknown} tracks of the splits are not in {described[0].name}: two versions, or not of one origin"
        )
    return DataSet("SHS100K, each track against all others of its split", tuple(tracks), tuple(facts))


def _track(work: str, version: str, title: str, artist: str, split: str) -> ListedTrack:
    return ListedTrack((f"{work}_{version}",), f"{work}_{version}", work, title, artist, split)


def _described(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Title and performer of each set_id and ver_id."""
    rows = {}
    for place, line in lines_of(path):
        columns = line.split("\t")
        if len(columns) < 4 or not all(re.fullmatch(r"\d+", column.strip()) for column in columns[:2]):
            raise malformed(place, line, "set_id<TAB>ver_id<TAB>title<TAB>performer<TAB>...")
        rows[columns[0].strip(), columns[1].strip()] = columns[2].strip(), columns[3].strip()
    return rows


def _pairs(path: Path) -> list[tuple[str, str]]:
    """The set_id and ver_id of each line."""
    pairs = []
    for place, line in lines_of(path):
        if not (match := re.fullmatch(r"(\d+)(?:\s+|_)(\d+)", line.strip())):
            raise malformed(place, line, "set_id<TAB>ver_id")
        pairs.append((match[1], match[2]))
    return pairs
