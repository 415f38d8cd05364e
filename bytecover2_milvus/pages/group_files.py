"""Groups in files: JSON lines, a table in CSV, a playlist, or a page to see and hear."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_write
from ..groups.group import Group, in_order
from .playlist import Entry, write_m3u

if TYPE_CHECKING:
    from ..groups.find import Groups

COLUMNS = (
    *("group", "work_id", "recording", "track_id", "stored_work_id", "title", "artist", "path", "duration_s"),
    *("linked_to", "same_recording", "probability", "score", "similarity"),
)


def lines_of(groups: Iterable[Group]) -> Iterator[dict[str, Any]]:
    """The groups as records of JSON; ``schemas/group.schema.json`` says what they mean."""
    for number, group in enumerate(groups, 1):
        links = []
        for link in group.links:
            line = asdict(link)
            stretch = line.pop("stretch")
            if stretch is not None:
                stretch |= {f"first{end}": stretch.pop(f"query{end}") for end in ("_start_s", "_end_s")}
                stretch |= {f"second{end}": stretch.pop(end[1:]) for end in ("_start_s", "_end_s")}
            links.append(line | {"stretch": stretch})
        tracks = [asdict(track) for track in group.tracks]
        yield {"group": number, "work_id": group.work_id, "tracks": tracks, "links": links}


def write_json_lines(groups: Groups, path: Path, name: str) -> None:
    """One line for each group."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        for line in lines_of(groups):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_csv(groups: Groups, path: Path, name: str) -> None:
    """One line for each track, with its strongest link to a track of the group that stands above it."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, group in enumerate(groups, 1):
            table.writerows([number, group.work_id, *cells] for cells in _rows(group))


def _rows(group: Group) -> Iterator[list[object]]:
    for track, link in in_order(group):
        cells: list[object] = [track.recording, track.track_id, track.work_id, track.title, track.artist, track.path]
        cells.append(round(track.duration_s, 3))
        if link is None:
            yield [*cells, "", "", "", "", ""]
        else:
            other = link.second if link.first == track.track_id else link.first
            verdict = (round(number, 6) for number in (link.probability, link.score, link.similarity))
            yield [*cells, other, "yes" if link.same_recording else "no", *verdict]


def write_page(groups: Groups, path: Path, name: str) -> None:
    """The page of the largest groups of the collection `name`."""
    from .groups import groups_page

    html = groups_page(groups, name, path.parent, total=groups.n_groups)
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")


def write_playlist(groups: Iterable[Group], path: Path, name: str) -> None:
    """Extended M3U, group by group, each with its tracks in a row."""
    entries = (
        Entry(track.path, track.title or track.track_id, track.artist, track.duration_s, f"{number} {group.work_id}")
        for number, group in enumerate(groups, 1)
        for track, _ in in_order(group)
    )
    write_m3u(entries, path, name)


WRITERS: dict[str, Callable[[Groups, Path, str], None]] = {
    ".jsonl": write_json_lines,
    ".csv": write_csv,
    ".m3u8": write_playlist,
    ".html": write_page,
}
