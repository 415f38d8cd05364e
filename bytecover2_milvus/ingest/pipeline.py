"""Ingest: files in, rows of the collection out; files that are stored already are not read, or not embedded, again.

A track whose path, size and modification time are the stored ones is skipped without being read; one whose bytes have
the stored hash is skipped without being decoded; audio that is stored under another name, or with other tags around it,
is not embedded again. Title, artist and metadata that a manifest leaves empty stay as they are stored; where none are
stored, they are taken from the file's tags when it is read (`ListedTrack.changes`).

A track_id that was made from the path may be another than that of the row: a file that is stored keeps the track_id
that it has, and where another file has taken that track_id, the path is the track_id.

Beside the whole, a track has the segments that the collection asks for. If the stored segments differ, missing ones are
embedded and surplus ones deleted. A silent segment cannot be embedded: a track with one is decoded again, to see that
it is silent. A track whose chroma is missing, where the collection and the model have a second stage, is read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from ..audio.decode_pool import Decoded, hash_content, mtime_ns
from ..audio.limits import Limits, check_regular
from ..audio.segments import times_s
from ..audio.tags import Tags
from ..embedding.embedder import Embedder
from ..errors import AudioError, ChromaError, CollectionMismatch, DeviceError, InputRefused
from ..manifest import Track
from ..milvus.cohort import BACKGROUNDS
from ..milvus.schema import Row, check_features, check_row
from .batch import Batch, IngestRecord, Outcome
from .cohort_statistics import renew_statistics
from .listing import ListedTrack, Seen, look_up
from .reader import LocalReader, Reader
from .store import Store

TRACKS_PER_LOOKUP = 5_000
BATCH_SIZE = 64  # tracks
FLUSH_ROWS = 1_000  # fewer are searched fast without an index, and many small flushes are a burden on a server


def ingest(
    tracks: Iterable[Track],
    model: Embedder | Reader,
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
    model : Embedder or Reader
        Of the model that the collection belongs to. A `Cluster` decodes and embeds on other machines; a reader is left
        at the end.
    collection : TrackCollection or Staging
        Which says how tracks are cut: `TrackCollection.set_segmentation` changes it.
    workers : int, optional
        Processes that decode for an `Embedder`; see `Decoder`.
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
    reader = model if isinstance(model, Reader) else LocalReader(model, workers)
    if reader.model_id != collection.model_id:
        raise CollectionMismatch.of_model(collection.name, collection.model_id, reader.model_id)
    collection.check_chroma_of(reader)
    return _ingest(iter(tracks), reader, collection, limits or Limits.here(), batch_size)


def _ingest(
    tracks: Iterator[Track], reader: Reader, collection: Store, limits: Limits, batch_size: int
) -> Generator[IngestRecord, None, None]:
    backgrounds = reader.verdict.backgrounds if reader.verdict else BACKGROUNDS
    batch = Batch(collection, batch_size, backgrounds)
    seen = Seen()
    with reader:
        while chunk := list(islice(tracks, TRACKS_PER_LOOKUP)):
            to_read: list[ListedTrack] = []
            for listed in look_up(chunk, collection, limits, seen, bool(reader.chroma_id)):
                refused = listed.failed(listed.refusal) if listed.refusal else None
                if outcome := refused or seen.again(listed) or _unread(listed):
                    yield from batch.take(outcome)
                else:
                    to_read.append(listed)
            for listed, decoded in reader.read(to_read, collection.segments):
                yield from batch.take(_read(listed, decoded, reader, collection, batch))
        yield from batch.store()
    renew_statistics(collection, backgrounds)
    if batch.n_stored >= FLUSH_ROWS:
        collection.flush()
    if batch.n_stored:
        collection.note_ingest()


def _unread(listed: ListedTrack) -> Outcome | None:
    """The outcome of a track whose file need not be read; None where it must be."""
    path = listed.absolute_path
    try:
        status = os.stat(path)
        check_regular(path, status, listed.limits)
    except OSError as error:
        return listed.failed(f"{error.strerror}; check the path and its permissions")
    except AudioError as error:
        return Outcome(listed.record("failed", str(error)))
    except ValueError as error:  # no file can be called that
        return listed.failed(f"{error}; check the path")
    file = (path, status.st_size, mtime_ns(status))
    contents = {row.content_hash for row in listed.rows}
    if len(contents) != 1 or any((row.path, row.size, row.mtime_ns) != file for row in listed.rows):
        return None
    if not listed.is_complete(listed.rows):
        return None
    return _refreshed(listed, listed.rows, status.st_size, mtime_ns(status))


def _read(
    listed: ListedTrack, decoded: Decoded | AudioError, reader: Reader, collection: Store, batch: Batch
) -> Outcome:
    """The outcome of a track whose file was read."""
    if isinstance(decoded, AudioError):
        return Outcome(listed.record("failed", str(decoded)))
    content, path = decoded.content_hash, listed.absolute_path
    own = listed.rows_with(content)
    replaces = len(own) < len(listed.rows)
    if not own:
        twin = batch.waiting.get(content)
        for row in [] if twin else collection.rows_with([content]):
            if row.path == path or not _is_still(row):
                own = [part for part in collection.rows_of([row.track_id]) if part.content_hash == content]
            else:
                twin = row
        if not own and (others := [row.path for row in listed.rows if row.path != path and _is_still(row)]):
            return listed.taken(others[0])
        if twin:
            other_label = listed.other_label(f"the same recording as {twin.path}", twin.work_id)
            warning = "; ".join(filter(None, (twin.warning, other_label)))
            record = listed.record("skipped", f"same content as {twin.path}", warning=warning)
            return Outcome(record, replaces=replaces)
    if not own and not decoded.spans:
        return _retagged(listed, decoded, collection)
    if not decoded.spans or (own and listed.is_complete(own)):
        return _refreshed(listed, own, decoded.size, decoded.mtime_ns, replaces, decoded.tags)
    return _embedded(listed, own, decoded, reader, replaces)


def _refreshed(
    listed: ListedTrack, rows: list[Row], size: int, mtime_ns: int, replaces: bool = False, tags: Tags | None = None
) -> Outcome:
    """The same audio as in `rows`, perhaps with other facts about it, perhaps in fewer segments."""
    first = _first(rows)
    changes = listed.changes(first, size, mtime_ns, tags)
    row = replace(first, **changes)
    wanted = {part.id for part in listed.parts(row)}
    # What was another track's is taken over as it is: what is left behind would stay with that track.
    kept = [part for part in rows if part.id in wanted or "track_id" in changes]
    updated = tuple(_at(part, row) for part in kept)
    reason = _reason(first, changes, len(kept) < len(rows))
    record = listed.record("updated" if reason else "skipped", reason, row, row.warning)
    replaces = replaces or len(kept) < len(rows)
    return _checked(Outcome(record, updated if replaces or list(updated) != kept else (), replaces=replaces), listed)


def _retagged(listed: ListedTrack, decoded: Decoded, collection: Store) -> Outcome:
    """Other bytes with the audio of stored rows, as an edit of tags leaves them: their features go on."""
    content = next(row.content_hash for row in listed.rows if row.audio_hash == decoded.audio_hash)
    stored = listed.rows_with(content)
    first = _first(stored)
    changes = listed.changes(first, decoded.size, decoded.mtime_ns, decoded.tags)
    row = replace(first, content_hash=decoded.content_hash, **changes)
    wanted = {part.id for part in listed.parts(row)}
    pairs = [(part.id, _at(part, row)) for part in stored]
    pairs = [(before, now) for before, now in pairs if now.id in wanted]
    known = collection.features_of([before for before, _ in pairs])
    features = {now.id: known[before] for before, now in pairs if before in known}
    reason = _reason(first, changes, recut=False) or "the file changed, not its audio"
    rows = tuple(now for _, now in pairs)
    return _checked(Outcome(listed.record("updated", reason, row), rows, features, replaces=True), listed)


def _embedded(listed: ListedTrack, own: list[Row], decoded: Decoded, reader: Reader, replaces: bool) -> Outcome:
    """The outcome of a track of which no row is stored, or not all segments."""
    start_s, end_s = times_s(decoded.spans[0])
    whole: dict[str, Any] = {"content_hash": decoded.content_hash, "warning": decoded.warning}
    whole |= {"audio_hash": decoded.audio_hash}
    whole |= {"duration_s": end_s, "start_s": start_s, "end_s": end_s}
    known = own or listed.rows
    first = replace(_first(known), **whole) if known else Row("", **whole)
    changes = listed.changes(first, decoded.size, decoded.mtime_ns, decoded.tags)
    row = replace(first, **changes)
    parts = {part.id: part for part in map(row.part, decoded.spans)}
    stored = {part.id: _at(part, row) for part in own if part.id not in listed.unheard}
    missing = {id: span for id, span in zip(parts, decoded.spans, strict=True) if id not in stored}
    if own and not missing:  # what is not there is silent
        return _refreshed(listed, own, decoded.size, decoded.mtime_ns, replaces, decoded.tags)
    try:
        features = dict(zip(missing, reader.hear(decoded, list(missing.values())), strict=True))
        for heard in features.values():
            check_features(heard, len(heard.embedding))
    except (AudioError, ChromaError, InputRefused) as error:
        return listed.failed(str(error))
    except DeviceError as error:  # the next track would hardly fare better
        raise DeviceError(f"{listed.absolute_path}: {error}") from error
    if "track_id" in changes:  # see `_refreshed`
        parts |= stored
    if own:
        recut = not missing.keys() <= listed.unheard or not stored.keys() <= parts.keys()
        status, reason = "updated", _reason(first, changes, recut) or "chroma added"
    else:
        status, reason = ("updated", "the file changed") if known else ("added", "")
    record = listed.record(status, reason, row, decoded.warning)
    replaces = replaces or not stored.keys() <= parts.keys()
    return _checked(Outcome(record, tuple(parts.values()), features, replaces), listed)


def _first(rows: list[Row]) -> Row:
    """The row that the others follow: the whole track where it is there."""
    return min(rows, key=lambda row: (row.start_s, -row.end_s))


def _at(part: Row, row: Row) -> Row:
    """`row`, as it is of another part of its track."""
    return replace(row, start_s=part.start_s, end_s=part.end_s)


def _reason(before: Row, changes: Mapping[str, Any], recut: bool) -> str:
    """The reason why rows are updated although the audio is the same; "" where only facts about the file changed."""
    if "track_id" in changes:
        return f"was track {before.track_id} at {before.path}"
    told = sorted(set(changes) - {"path", "size", "mtime_ns", "from_file"}) + (["segments"] if recut else [])
    return f"{', '.join(told)} changed" if told else ""


def _checked(outcome: Outcome, listed: ListedTrack) -> Outcome:
    """`outcome`, or a failure where the collection cannot hold its rows."""
    try:
        for row in outcome.rows:
            check_row(row)
    except InputRefused as error:
        return listed.failed(str(error))
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
