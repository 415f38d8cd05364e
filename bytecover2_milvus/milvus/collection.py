"""A Milvus collection of embedded tracks, the same on Milvus Lite and on a server.

Conventions
-----------
One row per segment of a track; a whole track is the segment from 0 to its duration. Similarity is the cosine, in
[-1, 1]: higher is closer. A collection belongs to one model: its id stands in the collection's properties, and a
collection of another model is refused. How tracks are cut into segments stands there too. The fields are those of
``schemas/tracks.collection.json``; collections of older versions lack the last two (`chroma_rows`).

The name that users know is an alias (`alias`). A `TrackCollection` that was opened as ``tracks`` keeps the collection
that ``tracks`` stood for then, also when the alias moves on to another model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.segments import Segments
from ..embedding.query import Query
from ..errors import CollectionError, CollectionMismatch
from .alias import aliases_of, collection_behind, describe_ours, has_collection, name_for, set_property
from .calls import call_with_retry
from .chroma_rows import ChromaRows
from .connection import is_embedded
from .filters import and_filter, quote
from .index import ensure_index, ensure_loaded, index_progress, load_state, memory_bytes
from .properties import (
    CONTRACT_VERSION,
    LAST_INGEST,
    MODEL_ID,
    PREVIOUS,
    EmbeddingModel,
    model_properties,
    read_segments,
    segment_properties,
)
from .schema import (
    BODY,
    DAMAGED,
    FIELDS,
    PARTS,
    SECOND_STAGE,
    STORED,
    WHOLE_TRACKS,
    Row,
    check_features,
    check_row,
    collection_schema,
    features_of,
)
from .search import MAX_HITS, Match, find_matches
from .stored_rows import KEYS_PER_CALL, batches

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ROWS_PER_UPSERT = 1_000
BYTES_PER_UPSERT = 16 << 20  # of chroma
FLUSH_TIMEOUT_S = 600


class TrackCollection(ChromaRows):
    """A collection of tracks with the embeddings of one model, and its second stage where the model has one.

    `open`, `create` and `open_or_create` make it. Its `name` is its own, not that of an alias. Rows are read by the
    methods of `StoredRows`, chroma and statistics by those of `ChromaRows`.
    """

    def __init__(self, client: MilvusClient, opened_as: str, description: Mapping[str, Any], load: bool) -> None:
        self.client = client
        self.name: str = description["collection_name"]
        self._opened_as = opened_as
        self.model_id: str = description["properties"][MODEL_ID]
        self.contract_version = int(description["properties"][CONTRACT_VERSION])
        self.segments = read_segments(description["properties"])
        self._read_second_stage(description)
        self.dim = next(int(entry["params"]["dim"]) for entry in description["fields"] if entry["name"] == "embedding")
        self.index_type = ensure_index(client, self.name)
        if load or is_embedded(client):
            ensure_loaded(client, self.name)
        self._wrote = False

    @classmethod
    def open(
        cls, client: MilvusClient, name: str, model_id: str | None = None, *, load: bool = True
    ) -> TrackCollection:
        """The collection of that name or alias, loaded.

        Parameters
        ----------
        client : MilvusClient
        name : str
        model_id : str, optional
            Of the model whose embeddings will be stored or searched; None takes a collection of any model.
        load : bool
            False does not load it into a server's memory; `describe` and `stored_rows` need no more.

        Raises
        ------
        CollectionMissing
        CollectionMismatch
            If the collection holds another model's embeddings, or is not one of ours.
        """
        description = describe_ours(client, name)
        stored = description["properties"][MODEL_ID]
        if model_id not in (None, stored):
            raise CollectionMismatch.of_model(name, stored, model_id)
        return cls(client, name, description, load)

    @classmethod
    def create(cls, client: MilvusClient, name: str, model: EmbeddingModel) -> TrackCollection:
        """A new, empty collection for the embeddings of `model`.

        Raises
        ------
        CollectionError
            If there is one of that name, it cannot be a name, or Milvus fails.
        """
        if has_collection(client, name):
            raise CollectionError(f"{name}: exists already; choose another name, or drop it first")
        call_with_retry(
            client.create_collection,
            collection_name=name,
            schema=collection_schema(model.dim),
            properties=model_properties(model),
            consistency_level=BODY["params"]["consistencyLevel"],
        )
        return cls.open(client, name, model.model_id)

    @classmethod
    def open_or_create(cls, client: MilvusClient, name: str, model: EmbeddingModel) -> TrackCollection:
        """The collection of that name for the embeddings of `model`; if there is none, one is made behind an alias.

        An empty one that was made by Milvus' REST call with ``schemas/tracks.collection.json`` becomes the model's.
        """
        if not has_collection(client, name):
            own_name = name_for(name, model.model_id, model.chroma_id)
            names = dict.fromkeys([own_name, name_for(name, model.model_id)])  # with a second stage, and without
            if found := next((known for known in names if has_collection(client, known)), ""):
                cls.open(client, found, model.model_id)  # a run was cut off here, or the alias was dropped by hand
                own_name = found
            else:
                _unless_there(partial(cls.create, client, own_name, model), client, own_name)
            alias = partial(call_with_retry, client.create_alias, collection_name=own_name, alias=name)
            _unless_there(alias, client, name)
        _adopt(client, name, model)
        return cls.open(client, name, model.model_id)

    def upsert(
        self,
        rows: Sequence[Row],
        embeddings: NDArray[np.float32],
        chromas: Sequence[str] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Store rows over those with the same id; where an id comes twice, the last one counts.

        Parameters
        ----------
        rows : sequence of Row, length N
        embeddings : np.ndarray [shape=(N, D)]
            Unit vectors, one per row.
        chromas : sequence of str, optional
            As `alignment.chroma.encode` gives them, of the note map `chroma_id`; "" where a row has none. A collection
            without a second stage does not store them.
        statistics : sequence of dict, optional
            As `Cohort.statistics` gives them, or {}.

        Raises
        ------
        CollectionError
            Before anything is stored, as `check_row` and `check_features`; later with Milvus' own reason.
        CollectionMismatch
            If the alias that it was opened by has moved on: the rows are stored, but not where the alias looks.
        """
        second_stage = (chromas, statistics) if self.has_chroma else (None, None)
        pairs = list(zip(rows, features_of(embeddings, *second_stage), strict=True))
        for stored, features in pairs:
            check_row(stored)
            check_features(features, self.dim)
        # Of two equal keys in one request Milvus Lite keeps the last, a server the first.
        entities = {stored.id: stored.entity(features) for stored, features in pairs}
        for batch in _upserts(entities.values(), [name for name in FIELDS if name in self.fields]):
            call_with_retry(self.client.upsert, collection_name=self.name, data=batch)
            self._wrote = True
        self.check_alias(f"what this run stored is in {self.name}. Run it again with that collection's model")

    def check_alias(self, otherwise: str) -> None:
        """Make sure that the name it was opened by still stands for it.

        Raises
        ------
        CollectionMismatch
            If that alias has moved on, as `promote` and `rollback` let it; `otherwise` is what to say then.
        """
        live = collection_behind(self.client, self._opened_as)
        if live != self.name:
            raise CollectionMismatch(f"{self._opened_as}: stands for {live} now; {otherwise}")

    def set_segmentation(self, segments: Segments) -> None:
        """Let `ingest` cut tracks into these segments; what is stored stays until its tracks are ingested again."""
        if segments == self.segments:
            return
        call_with_retry(
            self.client.alter_collection_properties,
            collection_name=self.name,
            properties=segment_properties(segments),
        )
        self.segments = segments

    def search(
        self,
        queries: NDArray[np.float32] | Sequence[Query],
        limit: int = 10,
        *,
        group_by: str = "track",
        filter: str = "",
        exclude: Sequence[str] = (),
    ) -> list[list[Match]]:
        """The closest tracks, or works, of each query.

        Parameters
        ----------
        queries : np.ndarray [shape=(n_queries, D) or (D,)], or sequence of Query
            Embeddings, or what `embed_query` gives: for a query in segments, the closest of the whole and its segments
            counts.
        limit : int
            Matches per query; fewer come back where the collection, or the filter, has no more, and where the 16 384
            rows that Milvus gives at most are segments of fewer tracks or works.
        group_by : {"track", "work"}
            Of each track, or each work, only the closest row counts. A track without a work is a work of its own.
        filter : str
            In Milvus' filter language, over the fields of a row: ``artist == "Trad." and metadata["year"] < 1900``.
        exclude : sequence of str
            track_ids to leave out.

        Returns
        -------
        matches : list of n_queries lists of Match, closest first

        Raises
        ------
        CollectionError
            If the query does not fit the collection, or Milvus does not understand the filter.
        """
        if group_by not in ("track", "work"):
            raise CollectionError(f"group_by = {group_by!r}: choose track or work")
        if not 1 <= limit <= MAX_HITS:
            raise CollectionError(f"limit = {limit}: between 1 and {MAX_HITS}")
        if not all(isinstance(query, Query) for query in queries):
            queries = [Query(row[None]) for row in np.atleast_2d(np.asarray(queries, dtype=np.float32))]
        filter = and_filter(filter, f"track_id not in {quote(exclude)}" if exclude else "")
        return find_matches(self, [self._unit(query) for query in queries], limit, group_by, filter)

    def _unit(self, query: Query) -> Query:
        """`query` with embeddings of unit norm."""
        embeddings = np.asarray(query.embeddings, dtype=np.float32)  # (n, D)
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        if embeddings.shape[1:] != (self.dim,) or not np.isfinite(norms).all() or not norms.all():
            raise CollectionError(
                f"{self.name}: queries of shape {embeddings.shape}; finite vectors of shape (n, {self.dim}) are needed"
            )
        return Query(embeddings / norms, query.times_s)

    def delete_tracks(self, track_ids: Sequence[str], *, keep: Sequence[str] = ()) -> int:
        """Delete the rows of these tracks, but those with an id in `keep`; how many there were.

        Raises
        ------
        CollectionMismatch
            As `check_alias`, when they are deleted.
        """
        n_deleted = 0
        for some in batches(track_ids, KEYS_PER_CALL):
            filter = f"track_id in {quote(some)}"
            if keep:
                filter += f" and id not in {quote(keep)}"
            ids = [entity["id"] for entity in self._query(filter, ["id"], consistency_level="Strong")]
            for batch in batches(ids, KEYS_PER_CALL):
                call_with_retry(self.client.delete, collection_name=self.name, filter=f"id in {quote(batch)}")
                self._wrote = True
            n_deleted += len(ids)
        if n_deleted:
            self.check_alias(f"{n_deleted} rows were deleted from {self.name}. Run it again")
        return n_deleted

    def stored_rows(self) -> int:
        """The number of rows; if they are not loaded, by Milvus' statistics, in which deleted ones may linger."""
        if load_state(self.client, self.name) == "Loaded":
            return self.count()
        return int(call_with_retry(self.client.get_collection_stats, collection_name=self.name)["row_count"])

    def flush(self) -> None:
        """Seal what was written, so that it is indexed; servers allow it once in ten seconds."""
        call_with_retry(self.client.flush, collection_name=self.name, timeout_s=FLUSH_TIMEOUT_S)

    def note_ingest(self) -> None:
        """Remember that an ingest ended now, for `describe`; a user who may only write rows does without."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(CollectionError):
            set_property(self.client, self.name, LAST_INGEST, now)

    def describe(self) -> dict[str, Any]:
        """Facts for an operator, as plain values; ``schemas/collection.schema.json`` says what they mean."""
        rows, loaded = self.stored_rows(), load_state(self.client, self.name)
        state, indexed_rows = index_progress(self.client, self.name)
        texts = [name for name in (*STORED, *SECOND_STAGE) if name in self.fields]
        text_bytes = self._text_bytes(texts) if loaded == "Loaded" else 0
        description = call_with_retry(self.client.describe_collection, collection_name=self.name)
        return {
            "collection": self.name,
            "aliases": aliases_of(self.client, self.name),
            "previous": description["properties"].get(PREVIOUS),
            "model_id": self.model_id,
            "contract_version": self.contract_version,
            "dim": self.dim,
            "rows": rows,
            "chroma_id": self.chroma_id or None,
            "rows_with_chroma": self.count_chroma() if loaded == "Loaded" or not self.has_chroma else None,
            "segments": self.count(PARTS) if loaded == "Loaded" else None,
            "warnings": self.count(f"({DAMAGED}) and {WHOLE_TRACKS}") if loaded == "Loaded" else None,
            "segment_s": self.segments.length_s,
            "hop_s": self.segments.hop_s,
            "index_type": self.index_type,
            "index_state": state,
            "indexed_rows": min(rows, indexed_rows),
            "load_state": loaded,
            "memory_bytes": memory_bytes(rows, self.dim, self.index_type) + rows * text_bytes,
            "last_ingest": description["properties"].get(LAST_INGEST),
        }


def _unless_there(make: Callable[[], object], client: MilvusClient, name: str) -> None:
    """Call `make`; ignore its error if another process has made the collection or alias `name` meanwhile."""
    try:
        make()
    except CollectionError:
        if not has_collection(client, name):
            raise


def _adopt(client: MilvusClient, name: str, model: EmbeddingModel) -> None:
    """Give an empty collection of our schema that belongs to no model yet to `model`; leave any other as it is."""
    description = call_with_retry(client.describe_collection, collection_name=name)
    stored = {entry["name"]: entry["params"] for entry in description["fields"]}
    if MODEL_ID in description["properties"] or not set(FIELDS) - set(SECOND_STAGE) <= set(stored) <= set(FIELDS):
        return
    ensure_index(client, name)
    ensure_loaded(client, name)
    count: dict[str, Any] = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong"}
    n_rows = call_with_retry(client.query, collection_name=name, **count)[0]["count(*)"]
    if n_rows == 0 and int(stored["embedding"]["dim"]) == model.dim:
        call_with_retry(client.alter_collection_properties, collection_name=name, properties=model_properties(model))


def _upserts(entities: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Entities with these fields only, as many at a time as Milvus takes."""
    batch: list[dict[str, Any]] = []
    n_bytes = 0
    for entity in entities:
        n_bytes += len(entity["chroma"])
        if len(batch) == ROWS_PER_UPSERT or n_bytes > BYTES_PER_UPSERT:
            yield batch
            batch, n_bytes = [], len(entity["chroma"])
        batch.append({name: entity[name] for name in fields})
    if batch:
        yield batch
