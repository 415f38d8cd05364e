"""Tracks as they are listed now, beside what is stored of them: where an ingest begins."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..audio.limits import Limits
from ..audio.segments import Segments, Span
from ..audio.tags import Tags
from ..errors import InputRefused
from ..manifest import Track
from ..milvus.schema import RESERVED, Row, check_row
from .batch import IngestRecord, Outcome
from .store import Store


@dataclass(frozen=True)
class ListedTrack:
    """A track as it is listed now, beside the rows that are stored of it; the file that a `Reader` reads."""

    track: Track
    absolute_path: str
    rows: list[Row]
    segments: Segments  # that it should have
    limits: Limits
    unheard: frozenset[str] = frozenset()  # ids of rows whose chroma is missing
    refusal: str = ""  # why Milvus cannot be asked about it, or hold it

    @property
    def path(self) -> Path:
        """The path as it is listed; messages about the audio name it."""
        return self.track.path

    @property
    def known(self) -> list[str]:
        """Hashes of what is stored with all its segments, and need not be decoded: of contents, then of their audio."""
        contents = dict.fromkeys(row.content_hash for row in self.rows)
        complete = [content for content in contents if self.is_complete(self.rows_with(content))]
        # What is damaged is decoded again: its packets are those of the whole file, should that be what is there now.
        audio = {row.audio_hash for row in self.rows if row.content_hash in complete and not row.warning}
        return complete + sorted(audio - {""})

    @property
    def stored(self) -> dict[str, list[Span]]:
        """The parts that are embedded already, by the hash of the content."""
        stored: defaultdict[str, list[Span]] = defaultdict(list)
        for row in (row for row in self.rows if row.id not in self.unheard):
            stored[row.content_hash].append(row.span)
        return dict(stored)

    def rows_with(self, content: str) -> list[Row]:
        return [row for row in self.rows if row.content_hash == content]

    def parts(self, row: Row) -> list[Row]:
        """The rows of the track of `row` where no segment is silent: the whole, then the segments."""
        whole = row.whole()
        _, *spans = self.segments.spans(whole.span[1])
        return [whole, *map(whole.part, spans)]

    def is_complete(self, rows: list[Row]) -> bool:
        """True if `rows`, of one content, are all that it should have, with chroma."""
        stored = {row.id for row in rows}
        return {part.id for part in self.parts(rows[0])} <= stored and self.unheard.isdisjoint(stored)

    def changes(self, row: Row, size: int, mtime_ns: int, tags: Tags | None = None) -> dict[str, Any]:
        """The fields in which `row` is out of date; `tags` are the file's, None where it was not read."""
        now = self._names(row, tags if self.track.from_file is None else None)
        if self.track.work_id is not None:
            now["work_id"] = self.track.work_id
        now |= {"track_id": self.track.track_id, "path": self.absolute_path, "size": size, "mtime_ns": mtime_ns}
        return {name: value for name, value in now.items() if getattr(row, name) != value}

    def _names(self, row: Row, tags: Tags | None) -> dict[str, Any]:
        """Title, artist and metadata: what is said now, else what was said, else what the file's tags say.

        A stored name was said by somebody unless `Row.from_file` has it, or it is the title that the path gives.
        """
        track, ours = self.track, set(row.from_file)
        by_path = bool(row.title) and row.title == Path(row.path).stem
        if by_path or not row.path or "title" in ours:
            kept_title = ""
            default = Path(self.absolute_path).stem if by_path or track.title == track.path.stem else ""
        else:
            kept_title, default = row.title, ""
        if tags is None:
            tagged = {key: value for key, value in row.metadata.items() if key in ours}
            title, artist = (getattr(row, name) if name in ours else "" for name in ("title", "artist"))
        else:
            tagged, title, artist = dict(tags.metadata), tags.title, tags.artist
        said = {key: value for key, value in track.metadata.items() if key not in RESERVED.values()}
        said_title = track.title if track.title != track.path.stem else ""  # a folder's files have no other title
        names: dict[str, Any] = {
            "title": said_title or kept_title or title or default,
            "artist": track.artist or ("" if "artist" in ours else row.artist) or artist,
            "metadata": tagged | (said or {key: value for key, value in row.metadata.items() if key not in ours}),
        }
        if track.from_file is not None:
            return names | {"from_file": track.from_file}
        own = [name for name, value in (("title", title), ("artist", artist)) if value and names[name] == value]
        own += sorted(key for key, value in tagged.items() if names["metadata"][key] == value)
        return names | {"from_file": tuple(own)}

    def record(self, status: str, reason: str = "", row: Row | None = None, warning: str = "") -> IngestRecord:
        return IngestRecord(
            str(self.track.path),
            self.track.track_id,
            row.work_id if row else self.track.work_id or "",
            status,
            reason,
            warning,
            row.duration_s if row else None,
        )

    def failed(self, reason: str) -> Outcome:
        """The failure for a reason that does not name the file."""
        return Outcome(self.record("failed", f"{self.absolute_path}: {reason}"))

    def taken(self, path: str) -> Outcome:
        """The failure of a track whose track_id is that of the file at `path`."""
        remedy = "give each its own in the manifest, or delete that track first"
        return self.failed(f"track_id {self.track.track_id!r} is already that of {path}; {remedy}")

    def other_label(self, what: str, work_id: str | None) -> str:
        """A warning where the label of this track, which is not stored, is another one than that of what is."""
        own = self.track.work_id
        if not own or own == work_id:
            return ""
        labels = f"with work_id {work_id or ''!r}; {own!r} is not stored, so say which is right"
        return f"{self.absolute_path}: {what}, {labels}"


class Seen:
    """The tracks that came before in this run."""

    def __init__(self) -> None:
        self._path_of: dict[str, str] = {}  # by track_id
        self._track_at: dict[str, Track] = {}  # by path

    def taken(self, track_id: str, path: str) -> bool:
        """True if another file came with that track_id."""
        return self._path_of.get(track_id, path) != path

    def again(self, listed: ListedTrack) -> Outcome | None:
        """The outcome of a track whose track_id or whose file came before; None if neither did."""
        track_id, path = listed.track.track_id, listed.absolute_path
        if self.taken(track_id, path):
            return listed.taken(self._path_of[track_id])
        if (known := self._track_at.get(path)) is not None:
            reason = "listed twice" if known.track_id == track_id else f"listed already as track {known.track_id}"
            warning = listed.other_label("listed before", known.work_id)
            return Outcome(listed.record("skipped", reason, warning=warning))
        self._path_of[track_id], self._track_at[path] = path, listed.track
        return None


def look_up(
    tracks: Sequence[Track], collection: Store, limits: Limits, seen: Seen, chroma: bool
) -> Iterator[ListedTrack]:
    """Tracks with what is stored of them, one by one: what `seen` knows of a track counts for those behind it.

    With `chroma`, the reader gives it.
    """
    paths = [os.path.abspath(track.path) for track in tracks]
    refusals = list(map(_refusal, tracks, paths))
    fit = [pair for pair, refusal in zip(zip(tracks, paths, strict=True), refusals, strict=True) if not refusal]
    try:
        stored, kept = _stored(fit, collection)
        unheard = collection.without_chroma(list(stored)) if chroma and collection.has_chroma else set()
    except InputRefused as error:  # whichever it is over
        half = len(tracks) // 2
        if half:
            yield from look_up(tracks[:half], collection, limits, seen, chroma)
            yield from look_up(tracks[half:], collection, limits, seen, chroma)
        else:
            yield ListedTrack(tracks[0], paths[0], [], collection.segments, limits, refusal=str(error))
        return
    for track, path, refusal in zip(tracks, paths, refusals, strict=True):
        if refusal:
            yield ListedTrack(track, path, [], collection.segments, limits, refusal=refusal)
            continue
        if not track.named:
            taken = seen.taken(track.track_id, path) or _has_other(stored[track.track_id].values(), path)
            track = replace(track, track_id=kept.get(path) or (path if taken else track.track_id))
        rows = list(stored[track.track_id].values())
        its_unheard = frozenset(row.id for row in rows if row.id in unheard)
        yield ListedTrack(track, path, rows, collection.segments, limits, its_unheard)


def _refusal(track: Track, path: str) -> str:
    """The reason why no row can be of this track; "" where one can."""
    texts: dict[str, Any] = {"work_id": track.work_id or "", "title": track.title, "artist": track.artist, "path": path}
    try:
        check_row(Row(track.track_id, "0" * 64, 1.0, 0.0, 1.0, **texts, metadata=track.metadata))
    except InputRefused as error:
        return str(error)
    return ""


def _stored(
    tracks: Sequence[tuple[Track, str]], collection: Store
) -> tuple[Mapping[str, dict[str, Row]], dict[str, str]]:
    """The stored rows of tracks and of the files at their paths, by track_id and id; and those files' track_ids."""
    stored: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in collection.rows_of([track.track_id for track, _ in tracks]):
        stored[row.track_id][row.id] = row
    elsewhere = [
        path
        for track, path in tracks
        if not track.named and all(row.path != path for row in stored[track.track_id].values())
    ]
    kept: dict[str, str] = {}
    for row in collection.rows_at(elsewhere):
        kept[row.path] = row.track_id
        stored[row.track_id][row.id] = row
    return stored, kept


def _has_other(rows: Iterable[Row], path: str) -> bool:
    """True if rows are of a file that is still there, and not of the one at `path`."""
    places = {row.path for row in rows}
    return path not in places and any(map(os.path.exists, places))
