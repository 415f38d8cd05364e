"""Ingest: files in, rows of the collection out; what is there already is not done again.

A track whose path, size and modification time are the stored ones is skipped without being read; one whose bytes have
the stored hash is skipped without being decoded; audio that is stored under another name is not embedded again. Of
title, artist and metadata, an empty field of a manifest says nothing: what is stored stays.

A track_id that was made from the path gives way: a file that is stored keeps the track_id that it has, and where
another file has taken that track_id, the path is the track_id.

Beside the whole, a track has the segments that the collection asks for. If the stored segments differ, missing ones are
embedded and surplus ones deleted. A silent segment cannot be embedded: a track with one is decoded again, to see that
it is silent. A track whose chroma is missing, where the collection and the model have a second stage, is read again.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..audio.decode_pool import Job, hash_content, mtime_ns
from ..audio.limits import Limits, check_regular
from ..audio.segments import Segments, Span, span_at, times_s
from ..config import SAMPLE_RATE
from ..embedding.embedder import Embedder
from ..errors import AudioError, ChromaError, CollectionMismatch, DeviceError, InputRefused
from ..manifest import Track
from ..milvus.cohort import BACKGROUNDS
from ..milvus.schema import WARNING, Row, check_features, check_row
from .batch import Batch, IngestRecord, Outcome
from .cohort_statistics import renew_statistics
from .reader import LocalReader, Reader, ReadFile
from .store import Store

TRACKS_PER_LOOKUP = 5_000
BATCH_SIZE = 64  # tracks
FLUSH_ROWS = 1_000  # fewer are searched fast without an index, and many small flushes are a burden on a server


@dataclass(frozen=True)
class _Listed:
    """A track as it is listed now, beside the rows that are stored of it."""

    track: Track
    path: str  # absolute
    rows: list[Row]
    refusal: str = ""  # why Milvus cannot be asked about it, or hold it
    unheard: frozenset[str] = frozenset()  # ids of rows whose chroma is missing

    def done(self, status: str, reason: str = "", row: Row | None = None, warning: str = "") -> IngestRecord:
        return IngestRecord(
            str(self.track.path),
            self.track.track_id,
            row.work_id if row else self.track.work_id or "",
            status,
            reason,
            warning,
            row.duration_s if row else None,
        )

    def refused(self) -> Outcome | None:
        """The failure of a track that cannot be stored, whatever its audio."""
        return Outcome(self.done("failed", f"{self.path}: {self.refusal}")) if self.refusal else None

    def known(self, segments: Segments) -> list[str]:
        """Hashes of the contents that are stored with all their segments, and need not be decoded."""
        contents = dict.fromkeys(row.content_hash for row in self.rows)
        return [content for content in contents if self.has_all(self.rows_with(content), segments)]

    def has_all(self, rows: list[Row], segments: Segments) -> bool:
        """True if `rows`, of one content, are all that it should have, with chroma."""
        return _are_all(rows, segments) and self.unheard.isdisjoint(row.id for row in rows)

    def job(self, segments: Segments, limits: Limits) -> Job[_Listed]:
        stored: defaultdict[str, list[Span]] = defaultdict(list)
        for row in (row for row in self.rows if row.id not in self.unheard):
            stored[row.content_hash].append(span_at(row.start_s, row.end_s))
        return Job(self, self.track.path, self.known(segments), stored, limits)

    def rows_with(self, content: str) -> list[Row]:
        return [row for row in self.rows if row.content_hash == content]

    def changes(self, row: Row, size: int, mtime_ns: int) -> dict[str, Any]:
        """The fields in which `row` is out of date."""
        track = self.track
        metadata = {key: value for key, value in track.metadata.items() if key != WARNING}
        told: dict[str, Any] = {"artist": track.artist, "metadata": metadata}
        if track.title != track.path.stem:  # a folder's files have no other title
            told["title"] = track.title
        now = {name: value for name, value in told.items() if value}
        if track.work_id is not None:
            now["work_id"] = track.work_id
        now |= {"track_id": track.track_id, "path": self.path, "size": size, "mtime_ns": mtime_ns}
        return {name: value for name, value in now.items() if getattr(row, name) != value}


def ingest(
    tracks: Iterable[Track],
    embedder: Embedder,
    collection: Store,
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    batch_size: int = BATCH_SIZE,
) -> Generator[IngestRecord, None, None]:
    """Embed tracks into a collection; one record per track, given when Milvus has acknowledged what it says.

    Parameters
    ----------
    tracks : iterable of Track
    embedder : Embedder
        Of the model that the collection belongs to.
    collection : TrackCollection or Staging
        Which says how tracks are cut: `TrackCollection.set_segmentation` changes it.
    workers : int, optional
        Processes that decode; see `Decoder`.
    limits : Limits, optional
        Bounds on what a file may ask of the machine; by default `Limits.here()`.
    batch_size : int
        Tracks stored at once, or fewer every two seconds.

    Yields
    ------
    record : IngestRecord
        As tracks are done, not in their order. What cannot be embedded gives a record with the status "failed" and the
        reason, and what is stored of it stays. Ctrl-C, or closing the iterator, loses only what was not yet given.

    Raises
    ------
    CollectionMismatch
        If the collection belongs to another model.
    CollectionError
        If Milvus fails; all records given until then stay true.
    DeviceError
        If ONNX Runtime fails, as where memory is short: the next track would hardly fare better.
    """
    return ingest_with(LocalReader(embedder, workers), tracks, collection, limits=limits, batch_size=batch_size)


def ingest_with(
    reader: Reader,
    tracks: Iterable[Track],
    collection: Store,
    *,
    limits: Limits | None = None,
    batch_size: int = BATCH_SIZE,
) -> Generator[IngestRecord, None, None]:
    """The records of `ingest`, with another way to decode and embed: a `Cluster`, which is left at the end."""
    if reader.model_id != collection.model_id:
        raise CollectionMismatch.of_model(collection.name, collection.model_id, reader.model_id)
    collection.check_chroma_of(reader)
    return _ingest(iter(tracks), reader, collection, limits or Limits.here(), batch_size)


def _ingest(
    tracks: Iterator[Track], reader: Reader, collection: Store, limits: Limits, batch_size: int
) -> Generator[IngestRecord, None, None]:
    backgrounds = reader.verdict.backgrounds if reader.verdict else BACKGROUNDS
    batch = Batch(collection, batch_size, backgrounds)
    seen = _Seen()
    with reader:
        while chunk := list(islice(tracks, TRACKS_PER_LOOKUP)):
            jobs: list[Job[_Listed]] = []
            for listed in _look_up(chunk, collection, seen, bool(reader.chroma_id)):
                outcome = listed.refused() or seen.again(listed) or _unread(listed, collection.segments, limits)
                if outcome:
                    yield from batch.take(outcome)
                else:
                    jobs.append(listed.job(collection.segments, limits))
            for listed, file in reader.read(jobs, collection.segments):
                yield from batch.take(_read(listed, file, collection, batch))
        yield from batch.store()
    renew_statistics(collection, backgrounds)
    if batch.n_stored >= FLUSH_ROWS:
        collection.flush()
    if batch.n_stored:
        collection.note_ingest()


def _look_up(tracks: Sequence[Track], collection: Store, seen: _Seen, chroma: bool) -> Iterator[_Listed]:
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
            yield from _look_up(tracks[:half], collection, seen, chroma)
            yield from _look_up(tracks[half:], collection, seen, chroma)
        else:
            yield _Listed(tracks[0], paths[0], [], str(error))
        return
    for track, path, refusal in zip(tracks, paths, refusals, strict=True):
        if refusal:
            yield _Listed(track, path, [], refusal)
            continue
        if not track.named:
            taken = seen.taken(track.track_id, path) or _has_other(stored[track.track_id].values(), path)
            track = replace(track, track_id=kept.get(path) or (path if taken else track.track_id))
        rows = list(stored[track.track_id].values())
        yield _Listed(track, path, rows, unheard=frozenset(row.id for row in rows if row.id in unheard))


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
) -> tuple[defaultdict[str, dict[str, Row]], dict[str, str]]:
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


class _Seen:
    """The tracks that came before in this run."""

    def __init__(self) -> None:
        self._path_of: dict[str, str] = {}  # by track_id
        self._track_at: dict[str, Track] = {}  # by path

    def taken(self, track_id: str, path: str) -> bool:
        """True if another file came with that track_id."""
        return self._path_of.get(track_id, path) != path

    def again(self, listed: _Listed) -> Outcome | None:
        """The outcome of a track whose track_id or whose file came before; None if neither did."""
        track_id, path = listed.track.track_id, listed.path
        if self.taken(track_id, path):
            return _taken(listed, self._path_of[track_id])
        if (known := self._track_at.get(path)) is not None:
            reason = "listed twice" if known.track_id == track_id else f"listed already as track {known.track_id}"
            return Outcome(listed.done("skipped", reason, warning=_unlike(listed, "listed before", known.work_id)))
        self._path_of[track_id], self._track_at[path] = path, listed.track
        return None


def _unlike(listed: _Listed, what: str, work_id: str | None) -> str:
    """A warning where the label of a track that is not stored is another one than that of what is."""
    own = listed.track.work_id
    if not own or own == work_id:
        return ""
    return f"{listed.path}: {what}, with work_id {work_id or ''!r}; {own!r} is not stored, so say which is right"


def _taken(listed: _Listed, path: str) -> Outcome:
    """A track whose track_id is that of another file."""
    reason = f"{listed.path}: track_id {listed.track.track_id!r} is already that of {path}"
    remedy = "give each its own in the manifest, or delete that track first"
    return Outcome(listed.done("failed", f"{reason}; {remedy}"))


def _unread(listed: _Listed, segments: Segments, limits: Limits) -> Outcome | None:
    """The outcome of a track whose file need not be read; None where it must be."""
    try:
        status = os.stat(listed.path)
        check_regular(listed.path, status, limits)
    except OSError as error:
        return Outcome(listed.done("failed", f"{listed.path}: {error.strerror}; check the path and its permissions"))
    except AudioError as error:
        return Outcome(listed.done("failed", str(error)))
    except ValueError as error:  # no file can be called that
        return Outcome(listed.done("failed", f"{listed.path}: {error}; check the path"))
    file = (listed.path, status.st_size, mtime_ns(status))
    contents = {row.content_hash for row in listed.rows}
    if len(contents) != 1 or any((row.path, row.size, row.mtime_ns) != file for row in listed.rows):
        return None
    if not listed.has_all(listed.rows, segments):
        return None
    return _refreshed(listed, listed.rows, segments, status.st_size, mtime_ns(status))


def _read(listed: _Listed, file: ReadFile | AudioError, collection: Store, batch: Batch) -> Outcome:
    """The outcome of a track whose file was read."""
    if isinstance(file, AudioError):
        return Outcome(listed.done("failed", str(file)))
    decoded, segments = file.decoded, collection.segments
    content = decoded.content_hash
    own = listed.rows_with(content)
    replaces = len(own) < len(listed.rows)
    if not own:
        twin = batch.waiting.get(content)
        for row in [] if twin else collection.rows_with([content]):
            if row.path == listed.path or not _is_still(row):
                own = [part for part in collection.rows_of([row.track_id]) if part.content_hash == content]
            else:
                twin = row
        if not own and (others := [row.path for row in listed.rows if row.path != listed.path and _is_still(row)]):
            return _taken(listed, others[0])
        if twin:
            unlike = _unlike(listed, f"the same recording as {twin.path}", twin.work_id)
            warning = "; ".join(filter(None, (twin.warning, unlike)))
            return Outcome(listed.done("skipped", f"same content as {twin.path}", warning=warning), replaces=replaces)
    if not file.spans or (own and listed.has_all(own, segments)):
        return _refreshed(listed, own, segments, decoded.size, decoded.mtime_ns, replaces)
    return _embedded(listed, own, segments, file, replaces)


def _refreshed(
    listed: _Listed, rows: list[Row], segments: Segments, size: int, mtime_ns: int, replaces: bool = False
) -> Outcome:
    """The same audio as in `rows`, perhaps with other facts about it, perhaps in fewer segments."""
    first = _first(rows)
    changes = listed.changes(first, size, mtime_ns)
    row = replace(first, **changes)
    wanted = {part.id for part in _parts(row, segments)}
    # What was another track's is taken over as it is: what is left behind would stay with that track.
    kept = [part for part in rows if part.id in wanted or "track_id" in changes]
    updated = tuple(_part(row, part.start_s, part.end_s) for part in kept)
    reason = _reason(first, changes, len(kept) < len(rows))
    record = listed.done("updated" if reason else "skipped", reason, row, row.warning)
    replaces = replaces or len(kept) < len(rows)
    return _checked(Outcome(record, updated if replaces or list(updated) != kept else (), replaces=replaces), listed)


def _embedded(listed: _Listed, own: list[Row], segments: Segments, file: ReadFile, replaces: bool) -> Outcome:
    """A track of which no row is stored, or not all segments."""
    decoded, (_, duration_s) = file.decoded, times_s(file.spans[0])
    whole: dict[str, Any] = {
        "content_hash": decoded.content_hash,
        "duration_s": duration_s,
        "start_s": 0.0,
        "end_s": duration_s,
    }
    whole |= {"warning": decoded.warning}
    known = own or listed.rows
    first = replace(_first(known), **whole) if known else Row("", title=listed.track.title, **whole)
    changes = listed.changes(first, decoded.size, decoded.mtime_ns)
    row = replace(first, **changes)
    parts = {part.id: part for part in (_part(row, *times_s(span)) for span in file.spans)}
    stored = {part.id: _part(row, part.start_s, part.end_s) for part in own if part.id not in listed.unheard}
    missing = {id: span for id, span in zip(parts, file.spans, strict=True) if id not in stored}
    if own and not missing:  # what is not there is silent
        return _refreshed(listed, own, segments, decoded.size, decoded.mtime_ns, replaces)
    try:
        features = dict(zip(missing, file.hear(list(missing.values())), strict=True))
        for heard in features.values():
            check_features(heard, len(heard.embedding))
    except (AudioError, ChromaError, InputRefused) as error:
        return Outcome(listed.done("failed", f"{listed.path}: {error}"))
    except DeviceError as error:  # the next track would hardly fare better
        raise DeviceError(f"{listed.path}: {error}") from error
    if "track_id" in changes:  # see `_refreshed`
        parts |= stored
    if own:
        recut = not missing.keys() <= listed.unheard or not stored.keys() <= parts.keys()
        status, reason = "updated", _reason(first, changes, recut) or "chroma added"
    else:
        status, reason = ("updated", "the file changed") if known else ("added", "")
    record = listed.done(status, reason, row, decoded.warning)
    replaces = replaces or not stored.keys() <= parts.keys()
    return _checked(Outcome(record, tuple(parts.values()), features, replaces), listed)


def _first(rows: list[Row]) -> Row:
    """The row that the others follow: the whole track where it is there."""
    return min(rows, key=lambda row: (row.start_s, -row.end_s))


def _part(row: Row, start_s: float, end_s: float) -> Row:
    return replace(row, start_s=start_s, end_s=end_s)


def _parts(row: Row, segments: Segments) -> list[Row]:
    """The rows that there are of a track with no silent segment."""
    _, *spans = segments.spans(round(row.duration_s * SAMPLE_RATE))
    return [_part(row, 0.0, row.duration_s), *(_part(row, *times_s(span)) for span in spans)]


def _are_all(rows: list[Row], segments: Segments) -> bool:
    """True if a track has all rows that it should have."""
    return {part.id for part in _parts(rows[0], segments)} <= {row.id for row in rows}


def _reason(before: Row, changes: Mapping[str, Any], recut: bool) -> str:
    """The reason why rows are updated although the audio is the same; "" where only facts about the file changed."""
    if "track_id" in changes:
        return f"was track {before.track_id} at {before.path}"
    told = sorted(set(changes) - {"path", "size", "mtime_ns"}) + (["segments"] if recut else [])
    return f"{', '.join(told)} changed" if told else ""


def _checked(outcome: Outcome, listed: _Listed) -> Outcome:
    """`outcome`, or a failure where the collection cannot hold its rows."""
    try:
        for row in outcome.rows:
            check_row(row)
    except InputRefused as error:
        return Outcome(listed.done("failed", f"{listed.path}: {error}"))
    return outcome


def _is_still(row: Row) -> bool:
    """True if the file that `row` was made from still holds the same."""
    try:
        status = os.stat(row.path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != row.size:
            return False
        if mtime_ns(status) == row.mtime_ns:
            return True
        with open(row.path, "rb") as file:
            return hash_content(file) == row.content_hash
    except (OSError, ValueError):
        return False
