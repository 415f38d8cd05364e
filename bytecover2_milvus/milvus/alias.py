"""Collections by the names they go by: their own, and the aliases that stand for them.

The name that users know is an alias: ``tracks`` stands for ``tracks_e71859a194cc``, which has the first letters of the
id of the model whose embeddings it holds. Where it holds chroma too, letters of the note map's id follow.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import CollectionError, CollectionMismatch, CollectionMissing
from .calls import call_with_retry
from .connection import collections_of, is_embedded
from .properties import MODEL_ID
from .schema import FIELDS, SECOND_STAGE

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MODEL_ID_LETTERS = 12  # of a model's id, in the name of its collection
CHROMA_ID_LETTERS = 6
LONGEST = 255  # letters of a name, Milvus' limit
LONGEST_ALIAS = LONGEST - 2 - MODEL_ID_LETTERS - CHROMA_ID_LETTERS  # of which the collection's own name is made
LISTED = 20  # names that a message tells


def has_collection(client: MilvusClient, name: str) -> bool:
    """True if there is a collection or an alias of that name.

    Raises
    ------
    CollectionError
        As `check_name`, or if Milvus fails.
    """
    check_name(name)
    return bool(call_with_retry(client.has_collection, collection_name=name))


def check_name(name: str) -> None:
    """Refuse what no collection can be called.

    Raises
    ------
    CollectionError
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise CollectionError(f"{name!r}: a collection's name has only letters, digits and _, and no digit first")
    if len(name) > LONGEST:
        raise CollectionError(f"{name[:20]}...: a name of {len(name)} letters is too long; {LONGEST} at most")


def list_collections(client: MilvusClient) -> list[str]:
    """The names of the collections that hold embeddings of a model of ours."""
    names = sorted(collections_of(client))
    return [
        name
        for name in names
        if MODEL_ID in call_with_retry(client.describe_collection, collection_name=name)["properties"]
    ]


def name_for(alias: str, model_id: str, chroma_id: str = "") -> str:
    """The name of the collection that holds a model's embeddings, and a note map's chroma, behind `alias`.

    Raises
    ------
    CollectionError
        If it would be too long.
    """
    if len(alias) > LONGEST_ALIAS:
        raise CollectionError(
            f"{alias[:20]}...: a name of {len(alias)} letters is too long; {LONGEST_ALIAS} at most, as"
            f" {LONGEST - LONGEST_ALIAS} of the model's ids are added"
        )
    ids = [model_id[:MODEL_ID_LETTERS], *([chroma_id[:CHROMA_ID_LETTERS]] if chroma_id else [])]
    return f"{alias}_{re.sub('[^A-Za-z0-9]', '_', '_'.join(ids))}"


def collection_behind(client: MilvusClient, name: str) -> str:
    """The name of the collection that `name` stands for: another one where `name` is an alias."""
    return str(call_with_retry(client.describe_collection, collection_name=name)["collection_name"])


def aliases_of(client: MilvusClient, name: str) -> list[str]:
    """The aliases that stand for a collection.

    Milvus Lite does not describe them, and to list them a server of 2.3 looks in its default database only.
    """
    method = client.list_aliases if is_embedded(client) else client.describe_collection
    return sorted(call_with_retry(method, collection_name=name)["aliases"])


def set_property(client: MilvusClient, name: str, key: str, value: str) -> None:
    """Give a collection a property, over one of that name."""
    call_with_retry(client.alter_collection_properties, collection_name=name, properties={key: value})


def drop_collection(client: MilvusClient, name: str) -> None:
    """Delete a collection of ours, by its name or an alias, with all it holds and all its aliases."""
    own_name = describe_ours(client, name)["collection_name"]
    for alias in aliases_of(client, own_name):  # Milvus Lite would keep them, standing for nothing
        call_with_retry(client.drop_alias, alias=alias)
    call_with_retry(client.drop_collection, collection_name=own_name)


def describe_ours(client: MilvusClient, name: str) -> dict[str, Any]:
    """Milvus' description of a collection, known to be one of ours.

    Raises
    ------
    CollectionMissing, CollectionMismatch
    """
    if not has_collection(client, name):
        raise CollectionMissing(f"{name}: no collection of that name; {_those_there(client)}")
    description = call_with_retry(client.describe_collection, collection_name=name)
    lacking = sorted(set(FIELDS) - set(SECOND_STAGE) - {entry["name"] for entry in description["fields"]})
    if lacking or MODEL_ID not in description["properties"]:
        what = f"it lacks {', '.join(lacking)}" if lacking else f"it lacks the property {MODEL_ID}"
        raise CollectionMismatch(f"{name}: not a collection of bytecover2-milvus, {what}; choose another name")
    return dict(description)


def _those_there(client: MilvusClient) -> str:
    """Advice about a collection that is not there."""
    there: list[str] = []
    with suppress(CollectionError):  # a user who may not list them
        there = sorted({known for name in list_collections(client) for known in aliases_of(client, name) or [name]})
    if not there:
        return "ingest makes one"
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    return f"there are {', '.join(there[:LISTED])}{more}; ingest makes another"
