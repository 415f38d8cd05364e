"""Da-TACOS: 1000 works of 13 performances each, and 2000 songs that nothing covers.

The 13 000 performances ask. Those without another of their work are gallery only: they are ranked, and never ask.

Forms: JSON ``{W_id: {P_id: {work_title, perf_artist, ...}}}``, or CSV lines ``W_163930,P_546633``. Audio files
are called ``P_id``, wherever they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ManifestError
from ..untrusted import parse_json, read_text
from .dataset import LIST_BYTES, DataSet, ListedTrack, leaks, lines_of, malformed, the_only

LISTS = r".*tacos.*\.(json|csv)"
BENCHMARK = (15_000, 1_000, 2_000)  # tracks, works of 13, singletons


def read_datacos(folder: Path, lists: Sequence[Path], protocol: str) -> DataSet:
    """A subset of Da-TACOS by its metadata.

    Raises
    ------
    ManifestError
        If the metadata is malformed, or there are several subsets or versions.
    """
    path = the_only(lists, "the metadata of Da-TACOS")
    rows = _of_csv(path) if path.suffix == ".csv" else _of_json(path)
    versions = Counter(work for work, _, _ in rows)
    tracks = tuple(
        ListedTrack(
            (f"{work}/{name}", name),
            name,
            work,
            str(facts.get("perf_title") or facts.get("work_title") or ""),
            str(facts.get("perf_artist") or ""),
            role="gallery" if versions[work] == 1 else "",
        )
        for work, name, facts in rows
    )
    alone = sum(1 for count in versions.values() if count == 1)
    told = f"{len(tracks)} tracks: {len(versions) - alone} works with covers, {alone} tracks without"
    if "benchmark" in path.name:
        same = (len(tracks), len(versions) - alone, alone) == BENCHMARK
        told += ", as published" if same else "; the published benchmark has 15000: 1000 works of 13, 2000 without"
    queries = len(tracks) - alone
    return DataSet(f"Da-TACOS, {queries} queries for {len(tracks)} tracks", tracks, (told, *leaks(tracks)))


def _of_json(path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    try:
        works = parse_json(read_text(path, LIST_BYTES))
        return [(work, name, dict(facts)) for work, tracks in works.items() for name, facts in tracks.items()]
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise malformed(str(path), str(error), "{W_id: {P_id: {...}}}") from error


def _of_csv(path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, (place, line) in enumerate(lines_of(path)):
        columns = [column.strip() for column in line.split(",")]
        if number == 0 and not columns[0].startswith("W_"):
            continue  # a header
        if len(columns) != 2 or not columns[0].startswith("W_") or not columns[1].startswith("P_"):
            raise malformed(place, line, "W_163930,P_546633")
        rows.append((columns[0], columns[1], {}))
    return rows
