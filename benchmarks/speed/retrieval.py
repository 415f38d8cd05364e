"""Speed, recall and memory of searching a large collection: Milvus Lite, a Milvus server, Faiss.

One command, JSON lines on stdout, a table on stderr::

    taskset -c 0 python -m benchmarks.speed.retrieval --tracks 1000000

Vectors
-------
Drawn to lie as embeddings of songs do (`benchmarks/quality/neighbourhood.py`), after those that the bundle gives for
``--songs`` composed songs in several arrangements; the first line of the output compares real with drawn ones. Queries
are drawn together with the collection and held out, so most of them have other tracks of their work in it. With
``--dim`` 1536, each is twelve 128-d draws side by side.

Systems
-------
``faiss`` is the floor, in this process: IndexFlatIP, and HNSW. ``lite`` is Milvus Lite, exact. ``server`` is a fresh
Milvus 2.3.5 for each index, on the same cores as this process. Collections are made by `TrackCollection` and
hold every field of a row. HNSW has the same M and efConstruction everywhere, those of
``schemas/tracks.collection.json``.

Figures
-------
``recall_at_5`` and ``_10`` are against exact search, mean over queries. Latency is of one query per call for ten rows
and their keys, from one client, then from ``--clients`` threads; of the server the network of this machine is in it.
Before and after each of these, the same number of clients asks Faiss' flat index, and ``flat_p50_ms`` and
``flat_queries_per_s`` are what it gave there and then: other load of the machine meets both.

``cpu_ms`` is what a query costs of a core, of this process and the server together, less what the server takes when
nobody asks: on a machine with other load, which the clock counts too, the figure to compare. A core that is kept
busy answers 1000 / ``cpu_ms`` queries a second.

``memory_bytes`` is by what the process that holds the index has grown (``RssAnon``); ``fill_s`` until all rows were
written, ``index_s`` from there until they are in the index and loaded.

``ours`` lines are of `TrackCollection.search`, in turns with the bare call of pymilvus for the same fields:
``overhead_ms`` is the median difference, ``overhead_cpu_ms`` that of what the calling thread takes of the core.
``filter`` lines are of both, where a share of the rows passes.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.machine import Cores, anonymous_bytes, processor
from benchmarks.milvus_server import MilvusServer
from benchmarks.speed.catalogue import (
    HNSW,
    LIMIT,
    NAME,
    Catalogue,
    connected,
    draw_catalogue,
    faiss_search,
    fill,
    fit_neighbourhood,
    flat_index,
    hnsw_index,
    settle,
    songs_options,
)
from benchmarks.speed.search_speed import Turns, filtered, milvus_search, our_search, overhead
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.index import CANDIDATES, EXACT
from bytecover2_milvus.milvus.schema import BODY
from bytecover2_milvus.milvus.search import MATCH_FIELDS
from bytecover2_milvus.options import several_of

if TYPE_CHECKING:
    from pymilvus import MilvusClient

STORED_WITH_ID = ("id", *MATCH_FIELDS)
EFS = (32, 64, 128, 256, 512)
PROBES = (8, 32, 128)
SYSTEMS = ("faiss-flat", "faiss-hnsw", "lite", "server-hnsw", "server-flat", "server-ivf")
HEADER = (
    f"{'system':14} {'setting':>11} {'fill s':>7} {'index s':>7} {'MB':>6} {'R@5':>6} {'R@10':>6} "
    f"{'p50 ms':>7} {'p99 ms':>7} {'x flat':>6} {'cpu ms':>7} {'x flat':>6} "
    f"{'clients':>7} {'p50 ms':>7} {'p99 ms':>7} {'q/s':>7} {'x flat':>6} {'cpu ms':>7} {'x flat':>6}"
)


@dataclass(frozen=True)
class Built:
    """The time and memory that building an index took."""

    fill_s: float
    index_s: float
    memory_bytes: int


def measure_hnsw(catalogue: Catalogue, turns: Turns) -> Iterator[dict[str, Any]]:
    """Faiss' HNSW; its flat index is what everything is measured against."""
    before, start = anonymous_bytes(), time.perf_counter()
    index = hnsw_index(catalogue.vectors)
    built = Built(0.0, time.perf_counter() - start, anonymous_bytes() - before)
    for ef in EFS:
        yield {"system": "faiss HNSW", "setting": {"ef": ef}} | asdict(built) | turns(faiss_search(index, ef), Cores())


def measure_lite(catalogue: Catalogue, turns: Turns) -> Iterator[dict[str, Any]]:
    """Milvus Lite as `TrackCollection` uses it: exact."""
    with tempfile.TemporaryDirectory() as folder, connected(str(Path(folder, "milvus.db"))) as client:
        yield from measure_milvus(catalogue, turns, client, None, "lite", EXACT, {}, [{}])


def measure_server(
    catalogue: Catalogue, turns: Turns, index_type: str, params: dict[str, int], settings: Sequence[dict[str, int]]
) -> Iterator[dict[str, Any]]:
    """A server of our own with one index."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MilvusServer(Path(folder)) as server,
        connected(server.uri) as client,
    ):
        yield from measure_milvus(catalogue, turns, client, server.process.pid, "server", index_type, params, settings)


def measure_milvus(
    catalogue: Catalogue,
    turns: Turns,
    client: MilvusClient,
    server: int | None,
    where: str,
    index_type: str,
    params: dict[str, int],
    settings: Sequence[dict[str, int]],
) -> Iterator[dict[str, Any]]:
    """Every setting by bare calls; then, where it is the index that `TrackCollection` chooses, what ours adds."""
    system = f"{where} {index_type}"
    before, start = anonymous_bytes(server), time.perf_counter()
    collection = fill(client, catalogue.vectors, index_type, params)
    filled = time.perf_counter()
    settle(collection)
    collection = TrackCollection.open(client, NAME)  # which wrote nothing: reads as a query does
    built = Built(filled - start, time.perf_counter() - filled, anonymous_bytes(server) - before)
    cores = Cores(server)
    for setting in settings:
        yield {"system": system, "setting": setting} | asdict(built) | turns(milvus_search(client, setting), cores)
    if index_type in (EXACT, BODY["indexParams"][0]["indexType"]):
        setting = {"ef": CANDIDATES} if index_type != EXACT else {}
        bare = milvus_search(client, setting, STORED_WITH_ID)
        yield {"ours": system} | overhead(our_search(collection), bare, catalogue.queries)
        for line in filtered(collection, catalogue, setting):
            yield {"filter": system} | line


def row_of(line: dict[str, Any]) -> str:
    """A line of the table."""
    setting = " ".join(f"{key}={value}" for key, value in line["setting"].items())
    one, many = line["one"], line["many"]
    return (
        f"{line['system']:14} {setting:>11} {line['fill_s']:7.0f} {line['index_s']:7.0f} "
        f"{line['memory_bytes'] / 1e6:6.0f} {line['recall_at_5']:6.3f} {line['recall_at_10']:6.3f} "
        f"{one['p50_ms']:7.2f} {one['p99_ms']:7.2f} {line['times_faster_than_flat']:6.1f} "
        f"{one['cpu_ms']:7.2f} {one['flat_cpu_ms'] / one['cpu_ms']:6.1f} "
        f"{many['clients']:7} {many['p50_ms']:7.2f} {many['p99_ms']:7.2f} {many['queries_per_s']:7.0f} "
        f"{line['times_the_throughput_of_flat']:6.1f} {many['cpu_ms']:7.2f} {many['flat_cpu_ms'] / many['cpu_ms']:6.1f}"
    )


@click.command()
@click.option("--tracks", type=click.IntRange(1_000), default=100_000, show_default=True, help="Rows to search.")
@click.option("--dim", type=click.IntRange(1), default=128, show_default=True, help="A multiple of the bundle's.")
@click.option("--queries", type=click.IntRange(LIMIT), default=1_000, show_default=True, help="Held out.")
@several_of("--system", "systems", SYSTEMS)
@click.option("--clients", type=click.IntRange(1), default=16, show_default=True, help="That ask at once.")
@click.option(
    "--seconds", default=8.0, show_default=True, help="That each setting is asked, by one client, then by all."
)
@songs_options
@click.option("--seed", default=0, show_default=True)
def main(
    tracks: int,
    dim: int,
    queries: int,
    systems: tuple[str, ...],
    clients: int,
    seconds: float,
    songs: int,
    embeddings: Path | None,
    seed: int,
) -> None:
    """Build, search and compare; every core that this process may use is used, so choose them with taskset."""
    like, likeness = fit_neighbourhood(songs, embeddings)
    if dim % len(like.mean):
        raise click.UsageError(f"--dim {dim}: a multiple of {len(like.mean)} is needed")
    catalogue = draw_catalogue(like, tracks, queries, dim, seed)
    run = {"tracks": tracks, "dim": dim, "cores": usable_cores(), "processor": processor()}
    click.echo(json.dumps({"neighbourhood": likeness} | run))
    before, start = anonymous_bytes(), time.perf_counter()
    index = flat_index(catalogue.vectors)
    built = Built(0.0, time.perf_counter() - start, anonymous_bytes() - before)
    flat = faiss_search(index)
    turns = Turns(catalogue, flat, clients, seconds)
    n_lists = 4 * round(tracks**0.5)  # as Milvus' documentation advises
    ways: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "faiss-flat": lambda: iter(()),  # which comes first in any case
        "faiss-hnsw": partial(measure_hnsw, catalogue, turns),
        "lite": partial(measure_lite, catalogue, turns),
        "server-hnsw": partial(measure_server, catalogue, turns, "HNSW", HNSW, [{"ef": ef} for ef in EFS]),
        "server-flat": partial(measure_server, catalogue, turns, EXACT, {}, [{}]),
        "server-ivf": partial(
            measure_server, catalogue, turns, "IVF_FLAT", {"nlist": n_lists}, [{"nprobe": n} for n in PROBES]
        ),
    }
    click.echo(HEADER, err=True)
    try:
        first = {"system": "faiss FLAT", "setting": {}} | asdict(built) | turns(flat, Cores())
        for line in itertools.chain([first], itertools.chain.from_iterable(ways[system]() for system in systems)):
            click.echo(json.dumps(line | run))
            click.echo(row_of(line) if "system" in line else json.dumps(line), err=True)
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
