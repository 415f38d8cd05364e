"""``schemas/tracks.collection.json`` as the body of Milvus' REST call."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.resources import files

import pytest
from conftest import ON_SERVER
from stored_rows import EMBEDDINGS, MODEL, ROWS

from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import BODY

pytestmark = ON_SERVER


def post(uri: str, path: str, body: bytes) -> tuple[int, str]:
    """HTTP status and answer."""
    request = urllib.request.Request(f"{uri}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def created(milvus_uri: str, client, name: str) -> Iterator[str]:
    """The collection that the schema file makes, but for its name."""
    text = files("bytecover2_milvus.schemas").joinpath("tracks.collection.json").read_text(encoding="utf-8")
    body = text.replace('"collectionName": "tracks"', f'"collectionName": "{name}"').encode()
    status, answer = post(milvus_uri, "/v2/vectordb/collections/create", body)
    if status == 404:
        version = client.get_server_version()
        pytest.skip(f"needs Milvus 2.4 or later: {version} has no /v2/vectordb, and /v1/vector takes no schema")
    assert (status, json.loads(answer)["code"]) == (200, 0), answer
    yield name


def test_the_schema_file_makes_our_collection(created: str, client) -> None:
    description = client.describe_collection(created, timeout=30)
    assert [entry["name"] for entry in description["fields"]] == [
        entry["fieldName"] for entry in BODY["schema"]["fields"]
    ]
    adopted = TrackCollection.open_or_create(client, created, MODEL)
    assert adopted.index_type == BODY["indexParams"][0]["indexType"]
    adopted.upsert(ROWS[:3], EMBEDDINGS[:3])
    assert adopted.search(EMBEDDINGS[1], limit=1)[0][0].track_id == "track-1"
