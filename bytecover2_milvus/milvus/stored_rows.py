"""The rows of a collection, read: by their keys, by track, by path or by a filter."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio.decode_pool import hash_content
from ..audio.limits import open_regular
from .calls import call_with_retry
from .evaluate import StoredTracks
from .filters import and_filter, quote
from .schema import DAMAGED, STORED, WHOLE_TRACKS, Row, is_whole, read_row
from .search import MAX_HITS

if TYPE_CHECKING:
    from pymilvus import MilvusClient

KEYS_PER_CALL = 1_000  # ids of rows or tracks that one filter names
PAGE_BYTES = 32 << 20  # Milvus refuses messages above 64 MiB
SAMPLE_ROWS = 100  # whose mean size stands for all

_Item = TypeVar("_Item")


class StoredRows:
    """The part of `TrackCollection` that reads rows: as they are at this moment, unless a method says otherwise.

    Raises
    ------
    CollectionError
        In all methods, if Milvus fails, does not answer or does not understand a filter.
    """

    client: MilvusClient
    name: str
    dim: int
    _wrote: bool  # rows were stored or deleted by this object

    @property
    def consistency(self) -> dict[str, Any]:
        """Options of a read that has to see what this object wrote; other reads may be a few seconds behind."""
        return {"consistency_level": "Session"} if self._wrote else {}

    def rows_of(self, track_ids: Sequence[str]) -> list[Row]:
        """The rows of these tracks."""
        filter = f"track_id in {quote(track_ids)}"
        return [read_row(entity) for page in self.pages(STORED, filter) for entity in page]

    def rows_at(self, paths: Sequence[str]) -> list[Row]:
        """All rows of each track that has a row with one of these absolute paths."""
        track_ids = self.tracks_with(f"path in {quote(paths)}") if paths else []
        return self.rows_of(track_ids) if track_ids else []

    def rows_with(self, ids: Sequence[str], *, fresh: bool = False) -> list[Row]:
        """The rows with these primary keys; if not `fresh`, they are read faster and may be some seconds old."""
        consistency = {"consistency_level": "Strong"} if fresh else self.consistency
        found = self._query(f"id in {quote(ids)}", STORED, **consistency)
        return [read_row(entity) for entity in found]

    def problems(self) -> list[Row]:
        """The rows of whole tracks with a warning, sorted by path."""
        found = (read_row(entity) for page in self.pages(STORED, f"({DAMAGED}) and {WHOLE_TRACKS}") for entity in page)
        return sorted(found, key=lambda row: (row.path, row.track_id))

    def tracks_of(self, path: Path) -> list[str]:
        """The track_ids of a file: of the one that is stored from its path, and of those with the same bytes.

        Raises
        ------
        UnreadableAudio, OSError
            As `open_regular`.
        """
        with open_regular(path) as file:
            content = hash_content(file)
        rows = [*self.rows_at([os.path.abspath(path)]), *self.rows_with([content])]
        return list(dict.fromkeys(row.track_id for row in rows))

    def tracks_with(self, filter: str) -> list[str]:
        """The track_ids with a row that passes `filter`."""
        found = (entity["track_id"] for page in self.pages(["track_id"], filter) for entity in page)
        return list(dict.fromkeys(found))

    def rows_per_track(self, track_ids: Sequence[str]) -> Counter[str]:
        """The number of rows of each of these tracks."""
        rows: Counter[str] = Counter()
        for some in batches(track_ids, KEYS_PER_CALL):
            found = self._query(f"track_id in {quote(some)}", ["track_id"], consistency_level="Strong")
            rows.update(entity["track_id"] for entity in found)
        return rows

    def embeddings_of(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The embeddings (D,) of rows, by primary key."""
        return {
            entity["id"]: np.asarray(entity["embedding"], dtype=np.float32)
            for some in batches(ids, KEYS_PER_CALL)
            for entity in self._query(f"id in {quote(some)}", ["id", "embedding"], consistency_level="Strong")
        }

    def fetch(self, filter: str = "") -> StoredTracks:
        """All rows that pass `filter`, read page by page."""
        track_ids: list[str] = []
        work_ids: list[str] = []
        paths: list[str] = []
        whole: list[bool] = []
        embeddings = [np.empty((0, self.dim), dtype=np.float32)]
        for page in self.pages(["track_id", "work_id", "path", "start_s", "end_s", "duration_s", "embedding"], filter):
            track_ids += [entity["track_id"] for entity in page]
            work_ids += [entity["work_id"] for entity in page]
            paths += [entity["path"] for entity in page]
            whole += [is_whole(entity["start_s"], entity["end_s"], entity["duration_s"]) for entity in page]
            if page:
                embeddings.append(np.asarray([entity["embedding"] for entity in page], dtype=np.float32))
        return StoredTracks(track_ids, work_ids, paths, np.concatenate(embeddings), np.array(whole, dtype=bool))

    def count(self, filter: str = "", *, fresh: bool = True) -> int:
        """The number of rows that pass `filter`; if not `fresh`, counted faster, and only those that `search` sees."""
        consistency = {"consistency_level": "Strong"} if fresh else self.consistency
        return int(self._query(and_filter(filter, ""), ["count(*)"], **consistency)[0]["count(*)"])

    def pages(self, output_fields: list[str], filter: str = "") -> Iterator[list[dict[str, Any]]]:
        """The rows that pass `filter` as entities, page by page; every key of a page is below those of the next.

        Keys are hashes, so equal ranges of them hold about as many rows; a query iterator would miss the latest rows.
        """
        text_bytes = self._text_bytes([name for name in output_fields if name != "embedding"])
        row_bytes = 4 * self.dim + max(1024, 2 * text_bytes)  # twice, as others may be longer
        rows_per_page = min(MAX_HITS, max(1, PAGE_BYTES // row_bytes))
        n_pages = -(-self.count(filter) // rows_per_page)
        edges = [f"{65_536 * page // n_pages:04x}" for page in range(n_pages)] + ["g"]  # which is above every digit
        for low, high in pairwise(edges):
            where = and_filter(filter, f'id >= "{low}" and id < "{high}"')
            yield self._query(where, output_fields, consistency_level="Strong")

    def _text_bytes(self, fields: Sequence[str]) -> int:
        """The mean bytes that a row holds in `fields`, from a sample."""
        some: dict[str, Any] = {"filter": "", "limit": SAMPLE_ROWS, "output_fields": ["id", *fields]}
        sample = call_with_retry(self.client.query, collection_name=self.name, **some)
        size = sum(len(str(value).encode()) for entity in sample for value in entity.values())
        return size // max(1, len(sample))

    def _query(self, filter: str, output_fields: list[str], **consistency: Any) -> list[dict[str, Any]]:
        rows = call_with_retry(
            self.client.query, collection_name=self.name, filter=filter, output_fields=output_fields, **consistency
        )
        return list(rows)  # pymilvus completes each row when it is read, by its place: sorted first, JSON would be lost


def batches(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items, the last one of fewer."""
    return (list(items[start : start + size]) for start in range(0, len(items), size))
