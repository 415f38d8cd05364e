"""Another model behind the same name, and back, while queries go on.

``tracks`` is an alias. `promote` embeds the tracks of the collection behind it again, from the files that its rows
name, into a collection of the new model beside it, compares the two, and moves the alias, which is one step of Milvus.
A run that was cut off is continued by the next one. `roll_back` moves the alias back; the old collection is kept for
that.

No query sees a mixture of models: a `TrackCollection` that was opened as ``tracks`` keeps the collection that
``tracks`` stood for. An ingest that still stores into the old collection fails when the alias has moved
(`TrackCollection.upsert`), and `promote` ingests once more what was stored until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import CollectionError, CollectionMissing
from ..manifest import Track
from ..milvus.alias import aliases_of, collection_behind, has_collection, list_collections, name_for, set_property
from ..milvus.calls import call_with_retry
from ..milvus.collection import TrackCollection
from ..milvus.properties import CHROMA_ID, MODEL_ID, PREVIOUS
from .batch import IngestRecord
from .check_index import check
from .difference import lacking, pending, track_of
from .pipeline import BATCH_SIZE, ingest

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..embedding.embedder import Embedder

# A property of a collection that was made for a promotion, and its values.
STAGE = "bytecover2.promotion"
FILLING = "filling"  # no alias has ever stood for it
MOVED = "moved"  # the alias stands for it, or did not get to; the old collection is to be looked at once more
DONE = "done"


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion; ``schemas/promotion.schema.json`` says what each value means."""

    alias: str
    from_collection: str
    from_model_id: str
    to_collection: str
    to_model_id: str
    tracks: int
    stored: int
    deleted: int
    left_out: int
    recall_at_10: float | None
    files_asked: int
    moved: bool


@dataclass(frozen=True)
class Rollback:
    """The result of a rollback; ``schemas/rollback.schema.json`` says what each value means."""

    alias: str
    from_collection: str
    from_model_id: str
    to_collection: str
    to_model_id: str
    lacking: int


def promote(
    client: MilvusClient,
    alias: str,
    embedder: Embedder,
    *,
    workers: int | None = None,
    leave_out: bool = False,
    hold: bool = False,
    watch: Callable[[IngestRecord], object] = lambda record: None,
) -> Promotion:
    """Let `alias` stand for a collection with the embeddings of another model, or with a second stage.

    A model with another note map than the collection's, or with one where the collection has none, is another one, also
    if its embeddings are the same.

    A collection that bears the name itself is first renamed and put behind an alias of that name.

    Parameters
    ----------
    client : MilvusClient
    alias : str
    embedder : Embedder
        Of the new model.
    workers : int, optional
        Processes that decode, as in `ingest`.
    leave_out : bool
        Go on without the tracks that cannot be embedded, for instance because their files are gone.
    hold : bool
        Do all but move the alias: the new collection can be looked at under its own name.
    watch : callable
        Is given each track's record when it is stored or has failed.

    Raises
    ------
    CollectionError
        If tracks are missing and not to be left out, the new collection does not find what it should, another promotion
        was faster, or Milvus fails. The alias has not moved then, and what is done is kept for the next run.
    """
    live = _put_behind_alias(client, alias)
    tally = _Tally(watch)
    if live.model_id == embedder.model_id and embedder.chroma_id in ("", live.chroma_id):
        return _finish(live, alias, embedder, workers, tally)
    source, target = live, _target(client, alias, embedder)
    target.set_segmentation(source.segments)
    while _catch_up(source, target, embedder, workers, tally) > BATCH_SIZE:
        pass  # others may ingest meanwhile
    recall, files_asked = check(target, embedder)
    _catch_up(source, target, embedder, workers, tally)
    left_out = 0
    for row in lacking(source, target):
        if row.path and row.track_id not in tally.failed:
            continue  # was ingested this moment: `_follow_up` takes it
        left_out += 1
        if not leave_out:
            reason = tally.failed.get(row.track_id, "no path is recorded")
            raise CollectionError(
                f"{target.name}: lacks tracks of {source.name}, such as {row.track_id!r} ({reason}); mend them and run"
                f" again, or leave out what fails; {alias} has not moved"
            )
    deleted = 0
    while newly := _delete_what_left(source, target, alias):  # others may delete meanwhile
        deleted += newly
    if not hold:
        set_property(client, target.name, PREVIOUS, source.name)
        set_property(client, target.name, STAGE, MOVED)
        set_property(client, source.name, STAGE, DONE)  # it was in use
        _move(client, alias, source.name, target.name)
        left_out += _follow_up(pending(source, target, tally.failed), target, embedder, workers, tally)
    return _report(alias, source, target, tally, deleted, left_out, recall, files_asked, moved=not hold)


def roll_back(client: MilvusClient, alias: str) -> Rollback:
    """Let `alias` stand again for the collection that it stood for before the last promotion; nothing is deleted.

    Raises
    ------
    CollectionError
        If there is none to go back to.
    """
    current = TrackCollection.open(client, alias)
    if current.name == alias:
        _refuse_aliased(client, alias)
    previous = _properties(client, current.name).get(PREVIOUS)
    if current.name == alias or not previous:
        raise CollectionError(f"{alias}: nothing to roll back to, its collection was not promoted from another")
    if not has_collection(client, previous):
        raise CollectionError(f"{alias}: nothing to roll back to, {previous} has been dropped")
    back = TrackCollection.open(client, previous)  # loaded before the alias stands for it
    n_lacking = sum(1 for _ in lacking(current, back))
    set_property(client, current.name, STAGE, DONE)  # it was in use
    _move(client, alias, current.name, back.name)
    return Rollback(alias, current.name, current.model_id, back.name, back.model_id, n_lacking)


def _put_behind_alias(client: MilvusClient, alias: str) -> TrackCollection:
    """The collection behind `alias`, which becomes one if it is a collection's own name."""
    if not has_collection(client, alias):
        _restore_alias(client, alias)
    collection = TrackCollection.open(client, alias)
    if collection.name != alias:
        return collection
    _refuse_aliased(client, alias)
    own_name = name_for(alias, collection.model_id, collection.chroma_id)
    if has_collection(client, own_name):
        raise CollectionError(f"{alias}: cannot come behind an alias as {own_name}, which exists already; drop that")
    call_with_retry(client.rename_collection, old_name=alias, new_name=own_name)
    call_with_retry(client.create_alias, collection_name=own_name, alias=alias)
    return TrackCollection.open(client, alias)


def _refuse_aliased(client: MilvusClient, name: str) -> None:
    """Refuse the own name of a collection that an alias stands for.

    Raises
    ------
    CollectionError
    """
    if behind := aliases_of(client, name):
        raise CollectionError(f"{name}: the collection behind the alias {behind[0]}; name {behind[0]} instead")


def _restore_alias(client: MilvusClient, alias: str) -> None:
    """Make `alias` again, where a run was cut off between renaming the collection and making the alias."""
    renamed = [name for name in list_collections(client) if name == _own_name(alias, _properties(client, name))]
    if len(renamed) != 1:
        hint = f"which of {', '.join(renamed)} it stood for is not known" if renamed else "ingest makes one"
        raise CollectionMissing(f"{alias}: no collection or alias of that name; {hint}")
    call_with_retry(client.create_alias, collection_name=renamed[0], alias=alias)


def _own_name(alias: str, properties: dict[str, str]) -> str:
    """The name of the collection with these properties behind `alias`."""
    return name_for(alias, properties[MODEL_ID], properties.get(CHROMA_ID, ""))


def _target(client: MilvusClient, alias: str, embedder: Embedder) -> TrackCollection:
    """The collection of the new model: that of a run that was cut off, or a new one.

    Raises
    ------
    CollectionError
        If an alias stands for it.
    """
    name = name_for(alias, embedder.model_id, embedder.chroma_id)
    if has_collection(client, name):
        target = TrackCollection.open(client, name, embedder.model_id)
        if behind := aliases_of(client, name):
            raise CollectionError(f"{name}: the alias {behind[0]} stands for it; promote that, or drop that alias")
        return target
    target = TrackCollection.create(client, name, embedder)
    set_property(client, name, STAGE, FILLING)
    return target


def _finish(live: TrackCollection, alias: str, embedder: Embedder, workers: int | None, tally: _Tally) -> Promotion:
    """Finish a promotion whose alias has moved already; mostly nothing is left to do.

    The new collection has been in use since then, so tracks that it has stay as they are.
    """
    properties = _properties(live.client, live.name)
    if properties.get(STAGE) != MOVED or not has_collection(live.client, properties[PREVIOUS]):
        return _report(alias, live, live, tally)
    source = TrackCollection.open(live.client, properties[PREVIOUS])
    missing = (track_of(row) for row in lacking(source, live) if row.path)
    left_out = _follow_up(missing, live, embedder, workers, tally)
    return _report(alias, source, live, tally, left_out=left_out, moved=True)


def _follow_up(
    tracks: Iterator[Track], target: TrackCollection, embedder: Embedder, workers: int | None, tally: _Tally
) -> int:
    """Embed tracks that an ingest stored in the old collection just before the alias moved; the number that failed."""
    before = len(tally.failed)
    tally.follow(ingest(tracks, embedder, target, workers=workers))
    set_property(target.client, target.name, STAGE, DONE)
    return len(tally.failed) - before


def _catch_up(
    source: TrackCollection, target: TrackCollection, embedder: Embedder, workers: int | None, tally: _Tally
) -> int:
    """Embed the tracks that `target` lacks or stores differently; the number that were stored."""
    return tally.follow(ingest(pending(source, target, tally.failed), embedder, target, workers=workers))


def _report(
    alias: str,
    source: TrackCollection,
    target: TrackCollection,
    tally: _Tally,
    deleted: int = 0,
    left_out: int = 0,
    recall: float | None = None,
    files_asked: int = 0,
    moved: bool = False,
) -> Promotion:
    n_tracks = sum(len({entity["track_id"] for entity in page}) for page in target.pages(["track_id"]))
    models = (source.name, source.model_id, target.name, target.model_id)
    return Promotion(alias, *models, n_tracks, tally.stored, deleted, left_out, recall, files_asked, moved)


class _Tally:
    """The number of tracks that several passes have stored, and the reasons of those that failed."""

    def __init__(self, watch: Callable[[IngestRecord], object]) -> None:
        self._watch = watch
        self.stored = 0
        self.failed: dict[str, str] = {}  # track_id -> reason

    def follow(self, records: Generator[IngestRecord, None, None]) -> int:
        """The number of tracks that were stored."""
        statuses: Counter[str] = Counter()
        with closing(records):
            for record in records:
                self._watch(record)
                statuses[record.status] += 1
                if record.reason and record.status in ("failed", "skipped"):  # the same content under two names
                    self.failed[record.track_id] = record.reason
        n_stored = statuses["added"] + statuses["updated"]
        self.stored += n_stored
        return n_stored


def _delete_what_left(source: TrackCollection, target: TrackCollection, alias: str) -> int:
    """Delete the tracks of `target` that were deleted from `source` meanwhile; the number of rows.

    If an alias has ever stood for `target`, they may have been ingested into it, so this is refused.
    """
    gone = [row.track_id for row in lacking(target, source)]
    stage = _properties(target.client, target.name).get(STAGE)  # asked only now: others promote too
    if gone and (stage not in (FILLING, MOVED) or aliases_of(target.client, target.name)):
        raise CollectionError(
            f"{target.name}: has been in use and holds tracks that {source.name} lacks, such as {gone[0]!r};"
            f" ingest them into {alias}, or delete them from {target.name}"
        )
    return target.delete_tracks(gone)


def _move(client: MilvusClient, alias: str, old: str, new: str) -> None:
    """Let `alias` stand for the collection `new`.

    Raises
    ------
    CollectionError
        If it does not stand for `old` any more.
    """
    live = collection_behind(client, alias)
    if live != old:
        raise CollectionError(
            f"{alias}: stands for {live} now, no more for {old}: another promotion was faster; run again"
        )
    call_with_retry(client.alter_alias, collection_name=new, alias=alias)


def _properties(client: MilvusClient, name: str) -> dict[str, str]:
    return dict(call_with_retry(client.describe_collection, collection_name=name)["properties"])
