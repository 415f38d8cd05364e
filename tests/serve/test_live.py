"""The catalogue of a service that runs for long: it follows its name, on Milvus Lite and on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from band_embedder import BandEmbedder
from patience import wait_for
from stored_rows import a_model, row, unit_vectors

from bytecover2_milvus.errors import CollectionMismatch, CollectionMissing
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import is_embedded
from bytecover2_milvus.serve import live
from bytecover2_milvus.serve.live import LiveCatalogue

if TYPE_CHECKING:
    from pymilvus import MilvusClient


def with_row(client: MilvusClient, name: str, model: object, number: int) -> TrackCollection:
    collection = TrackCollection.create(client, name, model)
    collection.upsert([row(number)], unit_vectors(1, number))
    return collection


def test_it_is_opened_again_where_rows_or_the_name_have_changed(
    client: MilvusClient, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collection = with_row(client, f"{name}_a", BandEmbedder(), 0)
    client.create_alias(f"{name}_a", name, timeout=10)
    monkeypatch.setattr(live, "RENEW_S", 0.0)
    catalogue = LiveCatalogue(client, name, BandEmbedder())
    wait_for(lambda: catalogue.now().collection.count(fresh=False) == 1)
    wait_for(lambda: catalogue.now() is catalogue.now())
    first = catalogue.now()
    collection.upsert([row(1)], unit_vectors(1, 1))
    wait_for(lambda: catalogue.now() is not first)
    with_row(client, f"{name}_b", BandEmbedder(), 2)
    client.alter_alias(f"{name}_b", name, timeout=10)
    assert catalogue.now().collection.name == f"{name}_b"
    with_row(client, f"{name}_c", a_model("another"), 3)
    client.alter_alias(f"{name}_c", name, timeout=10)
    assert catalogue.now().collection.name == f"{name}_b"
    assert "the catalogue stays as it was" in caplog.text and "another" in caplog.text
    with pytest.raises(CollectionMismatch):
        LiveCatalogue(client, name, BandEmbedder())


def test_between_two_looks_it_stays_what_it_is(client: MilvusClient, name: str) -> None:
    collection = with_row(client, name, BandEmbedder(), 0)
    catalogue = LiveCatalogue(client, name, BandEmbedder())
    first = catalogue.now()
    collection.upsert([row(1)], unit_vectors(1, 1))
    assert catalogue.now() is first


def test_on_a_server_it_waits_for_the_first_ingest(client: MilvusClient, name: str) -> None:
    if is_embedded(client):  # which nobody else can fill meanwhile
        with pytest.raises(CollectionMissing):
            LiveCatalogue(client, name, BandEmbedder())
        return
    catalogue = LiveCatalogue(client, name, BandEmbedder())
    with pytest.raises(CollectionMissing):
        catalogue.now()
    with_row(client, name, BandEmbedder(), 0)
    assert catalogue.now().collection.name == name
