"""A collection of yours, with fields of your own, that has our embedding in one of them.

A `FieldMap` says which field is what; the collection is made, indexed and owned by you. Which model's embeddings the
field holds is remembered in a property of the collection, so that two models never mix.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding.milvus_function import ByteCover2EmbeddingFunction, Recording
from ..errors import CollectionError, CollectionMismatch, CollectionMissing
from .alias import has_collection
from .calls import call_with_retry
from .filters import and_filter
from .index import ensure_loaded, search_params
from .properties import MODEL_ID
from .search import MAX_HITS

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ROWS_PER_BATCH = 64
METRICS = ("COSINE", "IP")  # of unit vectors both are the similarity


@dataclass(frozen=True)
class FieldMap:
    """The names of the fields of a collection that is not ours."""

    id: str  # its primary key
    embedding: str  # its field of float vectors
    path: str = "path"  # where a row that is added has its audio file; the collection may store it or not


class MappedCollection:
    """A collection of yours, ready to add rows with embeddings and to be searched.

    Parameters
    ----------
    client : MilvusClient
    name : str
    fields : FieldMap
    embed : ByteCover2EmbeddingFunction

    Raises
    ------
    CollectionMissing
    CollectionMismatch
        If the field map does not fit the collection, its index does not rank by cosine, or the field holds another
        model's embeddings.
    """

    def __init__(self, client: MilvusClient, name: str, fields: FieldMap, embed: ByteCover2EmbeddingFunction) -> None:
        self.client = client
        self.name = name
        self.fields = fields
        self.embed = embed
        if not has_collection(client, name):
            raise CollectionMissing(f"{name}: no collection of that name; create it first")
        description = call_with_retry(client.describe_collection, collection_name=name)
        self._stored = {entry["name"] for entry in description["fields"]}
        self._dynamic = bool(description["enable_dynamic_field"])
        self._auto_id = bool(description["auto_id"])
        self._index_type = _index_type(client, name, fields, description, embed.dim)
        self._model_property = f"{MODEL_ID}.{fields.embedding}"
        self._known_model = self._check_model(description)
        self._wrote = False

    def add(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Embed and store rows; how many they were.

        Parameters
        ----------
        rows : iterable of dict
            Your fields, and under `fields.path` an audio file or a waveform. A row whose primary key is stored takes
            its place; of two with the same key the last one counts. They are stored in batches: a million may come.

        Raises
        ------
        AudioError
            If a recording cannot be embedded; its batch is not stored, and earlier ones are.
        CollectionError
            If a row has no recording, or Milvus refuses it, with Milvus' reason.
        """
        n_rows, rows = 0, iter(rows)
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            entities = [self._entity(row) for row in batch]
            self._look_again()
            if self._known_model is None:
                call_with_retry(
                    self.client.alter_collection_properties,
                    collection_name=self.name,
                    properties={self._model_property: self.embed.model_id},
                )
                self._known_model = self.embed.model_id
            if self._auto_id:
                call_with_retry(self.client.insert, collection_name=self.name, data=entities)
            else:
                last = {entity.get(self.fields.id): entity for entity in entities}
                call_with_retry(self.client.upsert, collection_name=self.name, data=list(last.values()))
            self._wrote = True
            n_rows += len(batch)
        return n_rows

    def search(
        self, recordings: Sequence[Recording], limit: int = 10, *, filter: str = "", output_fields: Sequence[str] = ()
    ) -> list[list[dict[str, Any]]]:
        """The rows closest to each recording.

        Parameters
        ----------
        recordings : sequence of paths or waveforms
        limit : int
            Rows per recording.
        filter : str
            In Milvus' filter language, over your fields.
        output_fields : sequence of str
            Your fields that the answer shall hold.

        Returns
        -------
        hits : list, for each recording, of lists of dict, closest first
            Each with the primary key, `output_fields`, and ``similarity``: the cosine, in [-1, 1].

        Raises
        ------
        AudioError, CollectionError
        """
        if not 1 <= limit <= MAX_HITS:
            raise CollectionError(f"limit = {limit}: between 1 and {MAX_HITS}")
        queries = self.embed.encode_queries(recordings)
        if not queries:
            return []
        self._look_again()
        ensure_loaded(self.client, self.name)
        consistency: dict[str, Any] = {"consistency_level": "Session"} if self._wrote else {}
        found = call_with_retry(
            self.client.search,
            collection_name=self.name,
            anns_field=self.fields.embedding,
            data=queries,
            limit=limit,
            filter=and_filter(filter, ""),
            search_params=search_params(self._index_type, limit),
            output_fields=[self.fields.id, *output_fields],
            **consistency,
        )
        return [[self._hit(hit, output_fields) for hit in hits] for hits in found]

    def _check_model(self, description: Mapping[str, Any]) -> str | None:
        """The model whose embeddings the field holds, None where it holds none yet; another one is refused."""
        known: str | None = description["properties"].get(self._model_property)
        if known not in (None, self.embed.model_id):
            raise CollectionMismatch(
                f"{self.name}: {self.fields.embedding} holds embeddings of model {known}, not of {self.embed.model_id};"
                " use that model's bundle, or another field"
            )
        return known

    def _look_again(self) -> None:
        """Refuse another model's embeddings, where the field held none yet and others may have stored some."""
        if self._known_model is None:
            self._known_model = self._check_model(
                call_with_retry(self.client.describe_collection, collection_name=self.name)
            )

    def _entity(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            recording = row[self.fields.path]
        except KeyError:
            raise CollectionError(
                f"{self.name}: a row without {self.fields.path!r}, only {', '.join(row)}; say which audio file it is"
            ) from None
        entity = {name: value for name, value in row.items() if name != self.fields.path}
        if not isinstance(recording, np.ndarray) and (self.fields.path in self._stored or self._dynamic):
            entity[self.fields.path] = os.fspath(recording)
        (entity[self.fields.embedding],) = self.embed.encode_documents([recording])
        return entity

    def _hit(self, hit: Mapping[str, Any], output_fields: Sequence[str]) -> dict[str, Any]:
        values = {name: hit["entity"].get(name) for name in (self.fields.id, *output_fields)}
        return values | {"similarity": min(1.0, max(-1.0, hit["distance"]))}


def _index_type(client: MilvusClient, name: str, fields: FieldMap, description: Mapping[str, Any], dim: int) -> str:
    """The type of the index on the embeddings, of a collection that the field map fits."""
    from pymilvus import DataType

    stored = {entry["name"]: entry for entry in description["fields"]}
    for wanted in (fields.id, fields.embedding):
        if wanted not in stored:
            raise CollectionMismatch(f"{name}: no field {wanted}, only {', '.join(stored)}; correct the field map")
    if not stored[fields.id].get("is_primary"):
        raise CollectionMismatch(f"{name}: {fields.id} is not the primary key; correct the field map")
    vector = stored[fields.embedding]
    if vector["type"] != DataType.FLOAT_VECTOR or int(vector["params"]["dim"]) != dim:
        found = f"{vector['type'].name} {vector['params']}"
        raise CollectionMismatch(f"{name}: {fields.embedding} is {found}; FLOAT_VECTOR of dim {dim} is needed")
    indexes = call_with_retry(client.list_indexes, collection_name=name, field_name=fields.embedding)
    if not indexes:
        raise CollectionMismatch(f"{name}: no index on {fields.embedding}; create one with metric_type COSINE")
    index = call_with_retry(client.describe_index, collection_name=name, index_name=indexes[0])
    if index["metric_type"] not in METRICS:
        raise CollectionMismatch(
            f"{name}: the index on {fields.embedding} ranks by {index['metric_type']}; COSINE is needed"
        )
    return str(index["index_type"])
