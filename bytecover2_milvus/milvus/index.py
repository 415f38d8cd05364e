"""The index on a collection's embeddings: which one, built where it is missing, loaded although its file may be broken.

Milvus Lite gets FLAT, which is exact: its HNSW finds too little behind a filter, and at its sizes FLAT costs hardly
more. A server gets the index of ``schemas/tracks.collection.json``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import CollectionError
from .calls import call_with_retry
from .connection import embedded_folder, is_embedded
from .schema import BODY

if TYPE_CHECKING:
    from pymilvus import MilvusClient

EXACT = "FLAT"
LOAD_TIMEOUT_S = 600
INDEX_POLL_S = 0.5
BUILD_PARAMS = frozenset({"M", "efConstruction", "nlist"})  # of HNSW and IVF, among what Milvus describes
CANDIDATES = 256  # that a search keeps, or as many as rows to find: finds 0.99 of the closest five in 100 000
LITE_ROWS = 50_000  # that Milvus Lite serves well: docs/milvus.md, "Sizing"


def ensure_index(client: MilvusClient, name: str) -> str:
    """The type of the index on the embeddings, after building one where a `create` that was cut off left none."""
    names = call_with_retry(client.list_indexes, collection_name=name, field_name="embedding")
    if not names:
        wanted = BODY["indexParams"][0]
        exact = is_embedded(client)
        index_params = client.prepare_index_params()
        index_params.add_index(
            field_name=wanted["fieldName"],
            index_name=wanted["indexName"],
            metric_type=wanted["metricType"],
            index_type=EXACT if exact else wanted["indexType"],
            params={} if exact else wanted["params"],
        )
        call_with_retry(client.create_index, collection_name=name, index_params=index_params, timeout_s=LOAD_TIMEOUT_S)
        names = [wanted["indexName"]]
    return str(call_with_retry(client.describe_index, collection_name=name, index_name=names[0])["index_type"])


def search_params(index_type: str, n_hits: int) -> dict[str, Any]:
    """Parameters of a search for `n_hits` rows: with `CANDIDATES`, where the index takes a number of them.

    Others (IVF, AUTOINDEX) search as their Milvus does by default, FLAT everything.
    """
    name = "ef" if index_type.startswith("HNSW") else "search_list" if index_type == "DISKANN" else None
    return {"params": {name: max(CANDIDATES, n_hits)} if name else {}}


def index_progress(client: MilvusClient, name: str) -> tuple[str, int]:
    """Milvus' word for the state of the index, such as ``Finished`` or ``InProgress``, and how many rows are in it."""
    index = _described(client, name)
    return index["state"], int(index["indexed_rows"])


def await_index(client: MilvusClient, name: str) -> None:
    """Return when all flushed rows are in the index.

    A server of 2.3 says that it has finished while rows that were just flushed are pending, and may leave them so for
    minutes; asked once more for the index that is there, it builds what is missing.

    Raises
    ------
    CollectionError
        If building failed, or gets no further.
    """
    index = _described(client, name)
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while index["state"] != "Finished" or index["pending_index_rows"]:
        if index["state"] == "Failed" or time.monotonic() > deadline:
            raise CollectionError(
                f"{name}: its index is not built ({index['state']}, {index['indexed_rows']} rows); see the server's log"
            )
        if index["state"] == "Finished":
            _ask_again(client, name, index)
        time.sleep(INDEX_POLL_S)
        indexed_before = index["indexed_rows"]
        index = _described(client, name)
        if index["indexed_rows"] > indexed_before:
            deadline = time.monotonic() + LOAD_TIMEOUT_S


def _described(client: MilvusClient, name: str) -> dict[str, Any]:
    names = call_with_retry(client.list_indexes, collection_name=name, field_name="embedding")
    return call_with_retry(client.describe_index, collection_name=name, index_name=names[0])


def _ask_again(client: MilvusClient, name: str, index: dict[str, Any]) -> None:
    """For the index that is described."""
    wanted = client.prepare_index_params()
    wanted.add_index(
        field_name=index["field_name"],
        index_name=index["index_name"],
        index_type=index["index_type"],
        metric_type=index["metric_type"],
        params={key: int(index[key]) for key in index.keys() & BUILD_PARAMS},
    )
    call_with_retry(client.create_index, collection_name=name, index_params=wanted, sync=False)


def memory_bytes(rows: int, dim: int, index_type: str) -> int:
    """Memory of `rows` loaded embeddings with their index: float32 values and, for HNSW, the links of its lowest layer.

    HNSW keeps 2 M links of four bytes for each row there; the layers above hold one row in M. With M = 16 and 128
    values that is 640 bytes a row, as Milvus' documentation says (index-explained).
    """
    links = 2 * BODY["indexParams"][0]["params"]["M"] if index_type == BODY["indexParams"][0]["indexType"] else 0
    return rows * 4 * (dim + links)


def lite_size_warning(client: MilvusClient, rows: int) -> str:
    """Advice for an embedded collection with more rows than Milvus Lite serves well; "" where all is well."""
    if rows <= LITE_ROWS or not is_embedded(client):
        return ""
    return (
        f"Milvus Lite compares a query with every row; beyond {LITE_ROWS} use a server (docker compose up -d, then"
        " collections export and ingest --vectors)"
    )


def load_state(client: MilvusClient, name: str) -> str:
    """``Loaded``, ``Loading`` or ``NotLoad``."""
    return str(call_with_retry(client.get_load_state, collection_name=name)["state"].name)


def ensure_loaded(client: MilvusClient, name: str) -> None:
    """Load a collection for reading; `name` may be an alias.

    On Milvus Lite a flush returns before its index file is written, and a process that dies leaves it half written:
    try again, then remove the file, which Milvus Lite builds again from the vectors.
    """
    if load_state(client, name) == "Loaded":
        return
    folder = embedded_folder(client)
    for _ in range(2 if folder else 0):
        try:
            call_with_retry(client.load_collection, collection_name=name, timeout_s=LOAD_TIMEOUT_S)
            return
        except CollectionError:
            time.sleep(1.0)
    if folder:
        real_name = call_with_retry(client.describe_collection, collection_name=name)["collection_name"]
        for index_file in folder.glob(f"**/collections/{real_name}/partitions/*/indexes/*.idx"):
            index_file.unlink()
    call_with_retry(client.load_collection, collection_name=name, timeout_s=LOAD_TIMEOUT_S)
