"""Recall and speed of searches: in turns with Faiss' flat index, with a bare call of pymilvus, and with filters."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Cores
from benchmarks.quality.neighbourhood import Embeddings
from benchmarks.speed.catalogue import (
    LIMIT,
    NAME,
    Catalogue,
    Search,
    closest,
    shuffled,
)
from bytecover2_milvus.milvus.collection import TrackCollection

if TYPE_CHECKING:
    from pymilvus import MilvusClient

FRONT = 5  # of `LIMIT` rows, at which recall is measured too
BLOCK_QUERIES = 64  # of a client, between looks at the clock
SHARES = (0.001, 0.01, 0.1, 0.5)  # of the rows, that pass a filter


@dataclass(frozen=True)
class Speed:
    """Searches by a number of clients at once."""

    clients: int
    p50_ms: float
    p99_ms: float
    queries_per_s: float
    cpu_ms: float  # of a core, for one query, in this process and the server


def recall(found: Sequence[NDArray[np.int64]], exact: NDArray[np.int64], limit: int) -> float:
    """Mean share of the `limit` exactly closest rows that is among the first `limit` found; of the first queries."""
    shares = [len(set(rows[:limit]) & set(right[:limit])) / limit for rows, right in zip(found, exact, strict=False)]
    return float(np.mean(shares))


class Turns:
    """Measures a search between two measurements of Faiss' flat index."""

    def __init__(self, catalogue: Catalogue, flat: Search, clients: int, seconds: float) -> None:
        self.catalogue, self.flat, self.clients, self.seconds = catalogue, flat, clients, seconds

    def __call__(self, search: Search, cores: Cores) -> dict[str, Any]:
        found = [search(query) for query in self.catalogue.queries[: 4 * BLOCK_QUERIES]]  # warms up, too
        line: dict[str, Any] = {
            "recall_at_5": recall(found, self.catalogue.exact, FRONT),
            "recall_at_10": recall(found, self.catalogue.exact, LIMIT),
        }
        for key, clients in (("one", 1), ("many", self.clients)):
            before = self._speed(self.flat, clients, self.seconds / 4, Cores())
            speed = self._speed(search, clients, self.seconds, cores)
            after = self._speed(self.flat, clients, self.seconds / 4, Cores())
            line[key] = asdict(speed) | {
                "flat_p50_ms": (before.p50_ms + after.p50_ms) / 2,
                "flat_queries_per_s": (before.queries_per_s + after.queries_per_s) / 2,
                "flat_cpu_ms": (before.cpu_ms + after.cpu_ms) / 2,
            }
        line["times_faster_than_flat"] = line["one"]["flat_p50_ms"] / line["one"]["p50_ms"]
        line["times_the_throughput_of_flat"] = line["many"]["queries_per_s"] / line["many"]["flat_queries_per_s"]
        return line

    def _speed(self, search: Search, clients: int, seconds: float, cores: Cores) -> Speed:
        """Of `clients` threads that ask without a pause, each its own queries, for so many seconds."""
        queries = self.catalogue.queries
        start = time.perf_counter()

        def client(number: int) -> list[float]:
            durations = []
            for query in itertools.cycle(np.roll(queries, number * len(queries) // clients, axis=0)):
                begin = time.perf_counter()
                search(query)
                durations.append(time.perf_counter() - begin)
                if time.perf_counter() - start > seconds:
                    break
            return durations

        with ThreadPoolExecutor(clients) as pool:
            parts, wall_s, core_s = cores.timed(lambda: list(pool.map(client, range(clients))))
        durations = np.concatenate(parts)
        p50, p99 = np.quantile(durations, (0.5, 0.99)) * 1e3
        return Speed(clients, float(p50), float(p99), len(durations) / wall_s, 1e3 * core_s / len(durations))


def milvus_search(
    client: MilvusClient, params: dict[str, int], fields: Sequence[str] = ("id",), filter: str = ""
) -> Search:
    """A bare call of pymilvus, for those fields."""

    def search(query: Embeddings) -> NDArray[np.int64]:
        (hits,) = client.search(
            NAME,
            data=[query],
            anns_field="embedding",
            limit=LIMIT,
            filter=filter,
            search_params={"params": params},
            output_fields=list(fields),
        )
        return np.array([int(hit["id"][16:], 16) for hit in hits], dtype=np.int64)

    return search


def our_search(collection: TrackCollection, filter: str = "") -> Search:
    def search(query: Embeddings) -> NDArray[np.int64]:
        (matches,) = collection.search(query, LIMIT, filter=filter)
        return np.array([int(match.track_id) for match in matches], dtype=np.int64)

    return search


def overhead(ours: Search, bare: Search, queries: Embeddings) -> dict[str, float]:
    """Of `ours` over `bare`, in turns, milliseconds: median difference by the clock, and of the caller's thread."""
    durations = np.empty((len(queries), 2, 2))  # ours and bare, by the clock and of the core
    for number, query in enumerate(queries):
        for way, search in enumerate((ours, bare)):
            core, start = time.thread_time(), time.perf_counter()
            search(query)
            durations[number, way] = 1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - core)
    (ours_ms, _), (bare_ms, bare_cpu_ms) = np.median(durations, axis=0)
    difference_ms, difference_cpu_ms = np.median(durations[:, 0] - durations[:, 1], axis=0)
    return {
        "ours_p50_ms": float(ours_ms),
        "bare_p50_ms": float(bare_ms),
        "bare_cpu_ms": float(bare_cpu_ms),
        "overhead_ms": float(difference_ms),
        "overhead_cpu_ms": float(difference_cpu_ms),
    }


def filtered(collection: TrackCollection, catalogue: Catalogue, params: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Recall and time of our search and of a bare one where shares of the rows pass."""
    n_tracks, queries = len(catalogue.vectors), catalogue.queries[:BLOCK_QUERIES]
    sizes = shuffled(n_tracks)
    for share in SHARES:
        bound = int(share * n_tracks)
        exact = closest(catalogue.vectors, queries, sizes < bound)
        line: dict[str, Any] = {"share": share, "rows": bound}
        ways = {
            "ours": our_search(collection, f"size < {bound}"),
            "bare": milvus_search(collection.client, params, filter=f"size < {bound}"),
        }
        for way, search in ways.items():
            found, durations = [], []
            for query in queries:
                start = time.perf_counter()
                found.append(search(query))
                durations.append(time.perf_counter() - start)
            line |= {
                f"{way}_recall_at_10": recall(found, exact, min(LIMIT, bound)),
                f"{way}_p50_ms": 1e3 * float(np.median(durations)),
            }
        yield line
