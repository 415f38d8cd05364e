"""Checks that a collection finds what it should, before anyone relies on it.

Its index is compared with exact search over all its rows, and some of its rows with the files that they were made from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..audio.load import load_audio
from ..errors import AudioError, CollectionError
from ..milvus.collection import TrackCollection
from ..milvus.index import await_index
from ..milvus.schema import STORED, Row, read_row
from ..milvus.search import closest_rows
from .pipeline import FLUSH_ROWS

if TYPE_CHECKING:
    from ..embedding.embedder import Embedder

RECALL_QUERIES = 100  # rows whose nearest neighbours are compared with the exact ones
RECALL_AT = 10
MIN_RECALL = 0.95
RECALL_TOLERANCE = 1e-5  # of a similarity that Milvus sums in another order
FILES_ASKED = 10  # files that are embedded anew and must find themselves
MIN_SELF_SIMILARITY = 0.999  # of two embeddings of one file; on a GPU they differ in the last digits


def check(collection: TrackCollection, embedder: Embedder) -> tuple[float | None, int]:
    """The recall of the index, and how many files found themselves.

    Raises
    ------
    CollectionError
        If either is not as it should be.
    """
    if collection.count() >= FLUSH_ROWS:
        collection.flush()
        await_index(collection.client, collection.name)
    page = next(collection.pages(["id", *STORED, "embedding"]), [])
    if not page:
        return None, 0
    sample = sorted(page, key=lambda entity: entity["id"])[:RECALL_QUERIES]  # keys are hashes: the first are a sample
    recall = _recall(collection, np.asarray([entity["embedding"] for entity in sample], dtype=np.float32))
    if recall < MIN_RECALL:
        raise CollectionError(
            f"{collection.name}: its index finds {recall:.3f} of the {RECALL_AT} nearest rows, {MIN_RECALL} is"
            " needed; rebuild it"
        )
    files_asked = 0
    for row in map(read_row, sample):
        if files_asked == FILES_ASKED or not _is_as_stored(row):
            continue
        try:
            embedding = embedder.embed(load_audio(row.path))
        except AudioError:
            continue
        (matches,) = collection.search(embedding, limit=1)
        if not matches or matches[0].similarity < MIN_SELF_SIMILARITY:
            found = f"{matches[0].similarity:.4f} at best" if matches else "nothing"
            raise CollectionError(
                f"{collection.name}: {row.path}, embedded once more, finds {found}; drop it and fill it again"
            )
        files_asked += 1
    return recall, files_asked


def share_found(found: Sequence[Sequence[float]], nearest: NDArray[np.float32]) -> float:
    """Share of the nearest rows that an index finds, by similarity: of rows equally near, each is as good.

    Parameters
    ----------
    found : sequence of n_queries sequences of float
        Similarities of what the index found.
    nearest : np.ndarray [shape=(n_queries, k)]
        Similarities of the k nearest rows, ascending.
    """
    n_found = sum(
        similarity >= least - RECALL_TOLERANCE
        for similarities, least in zip(found, nearest[:, 0], strict=True)
        for similarity in similarities
    )
    return float(n_found / nearest.size)


def _recall(collection: TrackCollection, queries: NDArray[np.float32]) -> float:
    nearest = np.empty((len(queries), 0), dtype=np.float32)
    for page in collection.pages(["embedding"]):
        if page:
            stored = np.asarray([entity["embedding"] for entity in page], dtype=np.float32)  # (n_rows, D)
            nearest = np.sort(np.concatenate([nearest, queries @ stored.T], axis=1), axis=1)[:, -RECALL_AT:]
    hits = closest_rows(collection, queries, RECALL_AT, "")
    return share_found([[hit["distance"] for hit in found] for found in hits], nearest)


def _is_as_stored(row: Row) -> bool:
    """True if the file of a whole track is the one that was embedded."""
    try:
        status = os.stat(row.path)
    except OSError:
        return False
    return row.is_whole and (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns)
