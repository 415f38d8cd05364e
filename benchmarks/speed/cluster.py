"""The cost of Ray and how embedding scales on it: the same files by one process and by one or more workers.

One command, JSON lines on stdout, a table on stderr::

    python -m benchmarks.speed.cluster --tracks 60 --workers 1 --workers 2

Protocol
--------
Made-up recordings, stereo FLAC at 44.1 kHz, are ingested into a fresh Milvus Lite each time. *One process* decodes and
embeds in turn with one thread, which is what a worker does too. Nodes of one core each are started on this machine
before the clock runs, beside a head that has no core. The arms take turns; the median of ``--rounds`` counts.

start
    Seconds until the first track is stored: what is connected to, started and loaded.
rate
    Tracks per second over the last three quarters of a run, when all workers are there.
scaling
    The rate against that of one process.
driver, workers
    Milliseconds of processor time per track, over the same part of a run, in the process that asks and stores and in
    all workers together; they tell what Ray costs however busy the machine is. Linux only, and no other Ray beside it.

The workers have to store what one process stores, embeddings to the last bit, else this ends with an error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import click
import numpy as np
import soundfile

from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.ingest.ray import Cluster
from bytecover2_milvus.ingest.ray_connection import OBJECT_STORE
from bytecover2_milvus.ingest.reader import LocalReader, Reader
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect

FILE_RATE = 44_100  # Hz
ALONE = "one process"
HEADER = f"{'arm':20} {'start':>8} {'rate':>10} {'scaling':>8} {'driver':>10} {'workers':>10}"


@dataclass(frozen=True)
class Run:
    """One ingest of all files."""

    start_s: float
    tracks_per_s: float
    driver_ms: float
    workers_ms: float


def write_recordings(folder: Path, n_tracks: int, duration_s: float) -> None:
    """Chords that change every second, with a little noise: files that compress as music does."""
    time_s = np.arange(round(duration_s * FILE_RATE)) / FILE_RATE
    for seed in range(n_tracks):
        rng = np.random.default_rng(seed)
        pitches = rng.uniform(80, 4000, (int(duration_s) + 1, 3))[time_s.astype(int)]  # (n_samples, 3)
        mono = 0.1 * np.sin(2 * np.pi * pitches * time_s[:, None]).sum(axis=1)
        stereo = mono[:, None] + rng.normal(0, 0.003, (len(mono), 2))
        soundfile.write(folder / f"{seed:04}.flac", stereo, FILE_RATE)


def measure(folder: Path, listen: Callable[[], Reader]) -> tuple[Run, dict[str, bytes]]:
    """Ingest `folder`; the run, and embeddings by id."""
    tracks = tracks_in([folder])
    first, clocks = (
        len(tracks) // 4,
        [],
    )  # clocks: s of wall, driver, workers at the first, a quarter and the last track
    with tempfile.TemporaryDirectory() as scratch:
        client = connect(str(Path(scratch) / "run.db"))
        model = Embedder(device="cpu", threads=1)
        collection = TrackCollection.create(client, "tracks", model)
        start_s = time.perf_counter()
        for done, record in enumerate(ingest(tracks, listen(), collection, batch_size=1), 1):
            if record.status != "added":
                raise click.ClickException(f"{record.path}: {record.status} {record.reason}")
            if done in (1, first, len(tracks)):
                clocks.append((time.perf_counter(), time.process_time(), workers_cpu_s()))
        rows = [row for page in collection.pages(["id", "embedding"]) for row in page]
        close(client)
    embeddings = {row["id"]: np.asarray(row["embedding"], np.float32).tobytes() for row in rows}
    wall, driver, workers = ((late - early) / (len(tracks) - first) for early, late in zip(*clocks[1:], strict=True))
    return Run(clocks[0][0] - start_s, 1 / wall, 1000 * driver, 1000 * workers), embeddings


def workers_cpu_s() -> float:
    """Processor time of all Ray workers of this machine until now."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::Worker"):
                ticks += sum(map(int, process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def ray_nodes(n_nodes: int) -> Iterator[str]:
    """The address of a cluster of that many nodes with one core each, on this machine only."""
    from ray.cluster_utils import Cluster as NodesHere

    node = {"object_store_memory": OBJECT_STORE, "node_ip_address": "127.0.0.2"}  # which Ray leaves as it is
    head = node | {"num_cpus": 0, "include_dashboard": False}
    nodes = NodesHere(initialize_head=True, head_node_args=head)
    try:
        for _ in range(n_nodes):
            nodes.add_node(num_cpus=1, **node)
        yield nodes.address
    finally:
        nodes.shutdown()


@click.command()
@click.option("--tracks", default=60, show_default=True, type=click.IntRange(8), help="Recordings to make.")
@click.option("--seconds", default=180.0, show_default=True, help="Of a recording.")
@click.option("--workers", multiple=True, type=click.IntRange(1), default=(1, 2), show_default=True)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(tracks: int, seconds: float, workers: tuple[int, ...], rounds: int) -> None:
    """Measure one process against a Ray cluster on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as scratch, ray_nodes(max(workers)) as address:
        folder = Path(scratch)
        write_recordings(folder, tracks, seconds)
        arms: dict[str, Callable[[], Reader]] = {ALONE: lambda: LocalReader(Embedder(device="cpu", threads=1), 0)}
        for n_workers in workers:
            arms[f"ray, {n_workers} workers"] = partial(Cluster, address, None, "cpu", n_workers)
        runs: dict[str, list[Run]] = {arm: [] for arm in arms}
        stored: dict[str, dict[str, bytes]] = {}
        for round_ in range(rounds):
            for arm, listen in arms.items():
                run, stored[arm] = measure(folder, listen)
                runs[arm].append(run)
                print(f"round {round_ + 1}, {arm}: {run.tracks_per_s:.2f} tracks/s", file=sys.stderr)
    for arm, rows in stored.items():
        if rows != stored[ALONE]:
            raise click.ClickException(f"{arm}: other rows than by one process")
    base = median(run.tracks_per_s for run in runs[ALONE])
    table = [HEADER]
    for arm, of_arm in runs.items():
        middle = Run(*(median(values) for values in zip(*(asdict(run).values() for run in of_arm), strict=True)))
        facts = {"arm": arm, "tracks": tracks, "seconds": seconds, "rounds": rounds, "cores": usable_cores()}
        click.echo(json.dumps(facts | asdict(middle) | {"scaling": middle.tracks_per_s / base}))
        table.append(
            f"{arm:20} {middle.start_s:6.1f} s {middle.tracks_per_s:8.2f}/s {middle.tracks_per_s / base:8.2f}"
            f" {middle.driver_ms:7.1f} ms {middle.workers_ms:7.1f} ms"
        )
    click.echo("\n".join(table), err=True)


if __name__ == "__main__":
    main()
