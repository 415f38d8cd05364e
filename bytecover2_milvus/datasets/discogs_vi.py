"""Discogs-VI: versions that Discogs names, with the videos that were matched to them.

Every track of a split asks, and the others of the split are ranked: ``covers.csv@test``.

Forms: JSON lines ``{"clique_id", "versions": [{"version_id", "tracks", "youtube_video": [{"url"}]}]}``, or the light
form ``{clique_id: [{"version_id", "youtube_id"}]}``. A list whose name ends in ``.train``, ``.val`` or ``.test`` is
that split. Audio files are called by the video's or the version's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ManifestError
from ..untrusted import parse_json, read_text
from .dataset import LIST_BYTES, SPLITS, DataSet, ListedTrack, leaks, lines_of, malformed, the_only

LISTS = r".*discogs-?vi.*\.jsonl?(\.(train|val|test))?"
_VIDEO = re.compile(r"(?:v=|youtu\.be/|^)([\w-]{11})(?:[&?].*)?$")


def read_discogs_vi(folder: Path, lists: Sequence[Path], protocol: str) -> DataSet:
    """Discogs-VI by its splits, or by one list of all.

    Raises
    ------
    ManifestError
        If a list is malformed, there are several versions of one, or a track stands in two splits.
    """
    splits = {split: [path for path in lists if path.suffix == f".{split}"] for split in SPLITS}
    whole = [path for path in lists if path.suffix.removeprefix(".") not in SPLITS]
    chosen = {split: the_only(paths, f"the split {split}") for split, paths in splits.items() if paths}
    if not chosen:
        chosen = {"": the_only(whole, "the list of Discogs-VI")}
    tracks = [track for split, path in chosen.items() for track in _tracks(path, split)]
    works = len({track.work_id for track in tracks})
    told = f"{len(tracks)} versions of {works} works in {', '.join(path.name for path in chosen.values())}"
    title = "Discogs-VI, each track against all others" + (" of its split" if "" not in chosen else "")
    return DataSet(title, tuple(tracks), (told, *leaks(tracks)))


def _tracks(path: Path, split: str) -> Iterator[ListedTrack]:
    for place, clique, versions in _cliques(path):
        for version in versions:
            try:
                version_id, videos = str(version["version_id"]), list(_videos(version))
                played = (version.get("tracks") or [{}])[0]
                title, artist = str(played.get("title") or version.get("title") or ""), _artist(played)
            except (LookupError, TypeError, AttributeError) as error:
                raise malformed(place, str(version), '{"version_id", "youtube_id"}') from error
            yield ListedTrack((*videos, version_id), version_id, clique, title, artist, split)


def _cliques(path: Path) -> Iterator[tuple[str, str, list[Any]]]:
    """Place, clique_id and versions of each clique, from JSON lines or one object of the light form."""
    form = '{"clique_id", "versions"} or {clique_id: [...]}'
    try:
        first = next((text for _, text in lines_of(path)), "")
        if '"clique_id"' in first and '"versions"' in first:
            for place, text in lines_of(path):
                row = parse_json(text)
                yield place, str(row["clique_id"]), list(row["versions"])
            return
        for clique, versions in parse_json(read_text(path, LIST_BYTES)).items():
            yield f"{path}, clique {clique}", str(clique), list(versions)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; check the path and its permissions") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise malformed(str(path), str(error), form) from error


def _videos(version: Mapping[str, Any]) -> Iterator[str]:
    """The ids of a version's videos."""
    if youtube := version.get("youtube_id"):
        yield str(youtube)
    for video in version.get("youtube_video") or []:
        if match := _VIDEO.search(str(video["url"])):
            yield match[1]


def _artist(played: Mapping[str, Any]) -> str:
    names = played.get("artists") or []
    return ", ".join(str(artist.get("name", "")) if isinstance(artist, dict) else str(artist) for artist in names)
