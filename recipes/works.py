"""Which scores are one work, as a manifest with the splits train and validation.

    python recipes/works.py SCORES WORKS.csv

SCORES holds the folders that docs/songs.md names and their lists: variants/index.csv, same_tune.csv and
same_as_builtin.csv. A work is what those lists hold together, in however many steps. What shares more than chance with
it, `related_cre`, stays on its side of the split without being the same work. The traditional songs of the package and
the Irish tunes that benchmarks or recipes hold out, and whatever belongs to them, are in no training split.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.readers import song_paths

FOLDERS = ("leadsheets", "carols", "variants", "cre")
CRE_TRAINED = 1000  # of cre, in the order of paths; benchmarks.held_out and bytecover2-128.sh hold out later ones
VARIANTS, SAME_TUNE = 44, 20  # works to validate on, of each list


class Groups:
    """Names that belong together, by union of all that was joined."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The same for all that belong together: the smallest of their names."""
        parent = self._parent.setdefault(name, name)
        if parent != name:
            self._parent[name] = parent = self.of(parent)
        return parent

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.of(one), self.of(other)))
        self._parent[second] = first


def main(scores: Path, out: Path) -> None:
    files = [path.relative_to(scores).as_posix() for folder in FOLDERS for path in song_paths(scores / folder)]
    irish = [file for file in files if file.startswith("cre/")]
    held = {*irish[CRE_TRAINED:], *(f"work:{song.song_id}" for song in traditional_songs())}
    works, sides = Groups(), Groups()

    def same_work(one: str, other: str) -> None:
        works.join(one, other)
        sides.join(one, other)

    lists: dict[str, list[str]] = {"variants": [], "same tune": []}
    for row in _rows(scores / "variants/index.csv"):
        file, group = f"variants/{row['path']}", f"work:{row['group']}"
        same_work(file, group)
        lists["variants"].append(group)
        if row["cre_id"]:
            same_work(file, f"cre/{row['cre_id']}.mid")
        for tune in row["related_cre"].split():
            sides.join(file, f"cre/{tune}.mid")
    for row in _rows(scores / "same_tune.csv"):
        same_work(row["path"], f"work:{row['group']}")
        lists["same tune"].append(f"work:{row['group']}")
    for row in _rows(scores / "same_as_builtin.csv"):
        same_work(row["path"], f"work:{row['builtin_song']}")

    kept_out = {sides.of(name) for name in held}
    chosen: set[str] = set()
    for groups, count in zip(lists.values(), (VARIANTS, SAME_TUNE), strict=True):
        distinct = list(dict.fromkeys(groups))[::-1]  # the last ones, those first that cannot be trained on anyway
        distinct.sort(key=lambda group: sides.of(group) not in kept_out)
        chosen.update(works.of(group) for group in distinct[:count])
    validated = {sides.of(work) for work in chosen}
    named = {works.of(name): name.removeprefix("work:") for name in sorted(works._parent) if name.startswith("work:")}
    named |= {works.of(f"work:{song.song_id}"): song.song_id for song in traditional_songs()}  # as the package calls it
    splits: Counter[str] = Counter()
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "work_id", "track_id", "split"))
        for name in files:
            side, work = sides.of(name), works.of(name)
            if work in chosen and not name.startswith("cre/"):
                split = "validation"
            else:
                split = "held out" if side in validated or side in kept_out else "train"
            splits[split] += 1
            track_id = str(Path(name).with_suffix(""))
            row = ((scores / name).resolve().as_posix(), named.get(work, ""), track_id, split)
            writer.writerow(row)
    print(*(f"{split}: {count} scores" for split, count in splits.items()), sep="\n", file=sys.stderr)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
