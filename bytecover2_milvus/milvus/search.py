"""Matches: the tracks or works of a collection that are closest to a query.

A query may be in segments, and so may a track: how close the two are is how close the closest pair of them is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio.segments import Segments
from ..embedding.query import Query
from .calls import call_with_retry
from .index import EXACT, search_params
from .schema import FIELDS

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MAX_HITS = 16_384  # Milvus' limit on the rows found for one query
HITS_PER_CALL = 16_384  # for all queries of one call, at about a kilobyte each; Milvus refuses messages above 64 MiB
SCAN_ROWS = 5_000

Hit = Mapping[str, Any]  # "distance" is the similarity, "entity" holds the fields of the row, "times_s" is the query's


@dataclass(frozen=True, slots=True)
class Match:
    """One track close to a query, through the closest pair of their segments."""

    rank: int  # from 1
    track_id: str
    work_id: str
    title: str
    artist: str
    path: str
    similarity: float  # cosine, in [-1, 1]; higher is closer
    start_s: float  # of the closest segment in the track
    end_s: float
    duration_s: float  # of the track
    query_start_s: float | None = None  # of the closest segment in the query; None where it was an embedding alone
    query_end_s: float | None = None
    # Of the second stage, None without one. Where `transposition` is known, the stretches are those that run alike.
    score: float | None = None  # log odds that query and track are of one work
    probability: float | None = None  # None where the score is of the vector alone, too: the track cannot be aligned
    transposition: int | None = None  # semitones that the track is above the query, -5 to 6
    tempo_ratio: float | None = None  # 2 where the track is twice as fast as the query


MATCH_FIELDS = [entry.name for entry in fields(Match) if entry.name in FIELDS]


class SearchTarget(Protocol):
    """The facts of a `TrackCollection` that a search needs."""

    client: MilvusClient
    name: str  # its own, not that of an alias
    dim: int
    index_type: str
    segments: Segments

    @property
    def consistency(self) -> dict[str, Any]: ...

    def count(self, filter: str = "", *, fresh: bool = True) -> int: ...


def find_matches(
    collection: SearchTarget, queries: Sequence[Query], limit: int, group_by: str, filter: str
) -> list[list[Match]]:
    """The matches that `TrackCollection.search` returns, for queries of unit embeddings.

    Several rows may fall into one group, so ever more of them are asked for until `limit` groups are certain: a row
    that is in no list of hits is at most as close as the last hit of some list, so what is closer has its place.
    """
    matches: list[list[Match]] = [[] for _ in queries]
    wanting = list(range(len(queries)))
    n_hits = limit if group_by == "track" and not collection.segments else min(4 * limit, MAX_HITS)
    while wanting:
        embeddings = np.concatenate([queries[number].embeddings for number in wanting])
        lists = iter(closest_rows(collection, embeddings, n_hits, filter))
        unsettled = []
        for number in wanting:
            found = list(islice(lists, len(queries[number].embeddings)))
            times_s: Sequence[tuple[float, float] | None] = queries[number].times_s or [None] * len(found)
            hits = [
                {"distance": hit["distance"], "entity": hit["entity"], "times_s": times}
                for times, row_hits in zip(times_s, found, strict=True)
                for hit in row_hits
            ]
            matches[number] = ranked(hits, limit, group_by)
            unseen = max((row_hits[-1]["distance"] for row_hits in found if len(row_hits) == n_hits), default=-np.inf)
            certain = [match for match in matches[number] if match.similarity >= min(1.0, unseen)]
            if len(certain) < limit and unseen > -np.inf:
                unsettled.append(number)
        if n_hits == MAX_HITS:
            break
        wanting, n_hits = unsettled, min(4 * n_hits, MAX_HITS)
    return matches


def ranked(hits: Iterable[Hit], limit: int, group_by: str) -> list[Match]:
    """The `limit` closest tracks or works among `hits`.

    Equal similarities are ordered by track_id, then by place in the track, a whole track before its segments, so that
    the same hits give the same answer. A row without a work_id is a work of its own.
    """
    matches: list[Match] = []
    seen: set[tuple[str, str]] = set()
    for hit in sorted(hits, key=_place):
        stored = hit["entity"]
        key = "work_id" if group_by == "work" and stored["work_id"] else "track_id"
        if (key, stored[key]) in seen:
            continue
        seen.add((key, stored[key]))
        similarity = min(1.0, max(-1.0, hit["distance"]))  # sums in float32 reach 1.0000001
        query_start_s, query_end_s = hit.get("times_s") or (None, None)
        matches.append(
            Match(
                len(matches) + 1,
                similarity=similarity,
                **{name: stored[name] for name in MATCH_FIELDS},
                query_start_s=query_start_s,
                query_end_s=query_end_s,
            )
        )
        if len(matches) == limit:
            break
    return matches


def _place(hit: Hit) -> tuple[float, str, float, float]:
    stored = hit["entity"]
    return -hit["distance"], stored["track_id"], stored["start_s"], -stored["end_s"]


def closest_rows(collection: SearchTarget, queries: NDArray[np.float32], n_hits: int, filter: str) -> list[list[Hit]]:
    """The `n_hits` rows closest to each query.

    An approximate index loses rows where few pass the filter or many are deleted, and the makeshift index that a server
    has for rows of the last seconds loses most of them. Where few rows are in question, all of them are compared.
    """
    hits: list[list[Hit]] = []
    at_once = max(1, HITS_PER_CALL // n_hits)
    for start in range(0, len(queries), at_once):
        hits += call_with_retry(
            collection.client.search,
            collection_name=collection.name,
            anns_field="embedding",
            data=list(queries[start : start + at_once]),
            limit=n_hits,
            filter=filter,
            search_params=search_params(collection.index_type, n_hits),
            output_fields=MATCH_FIELDS,
            **collection.consistency,
        )
    doubtful = collection.index_type != EXACT and (filter or min(map(len, hits)) < n_hits)
    if doubtful and collection.count(filter, fresh=False) <= SCAN_ROWS:
        return _scan(collection, queries, n_hits, filter)
    return hits


def _scan(collection: SearchTarget, queries: NDArray[np.float32], n_hits: int, filter: str) -> list[list[Hit]]:
    rows = call_with_retry(
        collection.client.query,
        collection_name=collection.name,
        filter=filter,
        limit=SCAN_ROWS,
        output_fields=[*MATCH_FIELDS, "embedding"],
        **collection.consistency,
    )
    embeddings = np.asarray([entity["embedding"] for entity in rows], dtype=np.float32)
    embeddings = embeddings.reshape(-1, collection.dim)  # (n_rows, D), also of no rows
    hits: list[list[Hit]] = []
    for similarity in queries @ embeddings.T:  # (n_rows,)
        closest = np.argsort(-similarity)[:n_hits]
        hits.append([{"distance": float(similarity[number]), "entity": rows[number]} for number in closest])
    return hits
