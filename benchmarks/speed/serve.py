"""The time that the service adds to a query, its rate with several clients, and its memory under load.

overhead
    One client asks the service and the library in turns, with the same recording over the same catalogue: milliseconds
    by the clock of both, the median of their differences, and the processor time of both. The library decodes in this
    process, the service in a process of its own. ``healthz`` is a request that asks nothing.
clients
    Queries per second and percentiles of 1, 4 and 16 clients at once, of the service and of as many threads that call
    the library.
load
    So many requests from 16 clients: how many were answered, and the memory of the service (Linux, without copies of
    files), its own and its decoders', after the first of them and after the last.

Prints JSON lines; whatever else the machine does changes what the clock tells. Run from the repository::

    python -m benchmarks.speed.serve --requests 10000
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import click
import httpx
import numpy as np
import soundfile

from benchmarks.machine import anonymous_bytes, processor
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import embed_query
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.second_stage.answer import Catalogue, Question

CLIENTS = (1, 4, 16)
TIMEOUT_S = 600.0
FIRST = 200  # requests, after which memory is looked at: libraries load and buffers grow with the first
TICKS = os.sysconf("SC_CLK_TCK")  # a second


def write_melody(path: Path, seed: int, seconds: float) -> Path:
    """A random walk of notes, half a second each, with two overtones."""
    rng = np.random.default_rng(seed)
    notes = 60 + np.cumsum(rng.integers(-3, 4, round(2 * seconds) + 1)) % 24
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hertz = 440 * 2 ** ((notes[(2 * time_s).astype(int)] - 69) / 12)
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    soundfile.write(path, 0.2 * sum(np.sin(k * phase) / k for k in (1, 2, 3)), SAMPLE_RATE)
    return path


class ServiceProcess:
    """`bytecover2-milvus serve` in a process of its own; leave its ``with`` block to end it."""

    def __init__(self, uri: Path, *options: str) -> None:
        command = [sys.executable, "-m", "bytecover2_milvus", "serve", "--uri", str(uri), "--port", "0", *options]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(command, stderr=self._log, text=True)
        self.url = f"http://127.0.0.1:{self._port()}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def _port(self) -> int:
        give_up = time.monotonic() + TIMEOUT_S
        while time.monotonic() < give_up and self._process.poll() is None:
            self._log.seek(0)
            for line in self._log.read().splitlines():
                if '"listening"' in line:
                    return int(json.loads(line)["port"])
            time.sleep(0.1)
        self._log.seek(0)
        raise click.ClickException(f"the service did not start: {self._log.read()[-500:]}")

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._log.close()

    def processes(self) -> list[int]:
        """It and its decoders."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [self.pid, *(int(pid) for file in children for pid in file.read_text().split())]

    def cpu_s(self) -> float:
        """Processor time of all of them."""
        spent = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in self.processes())
        return sum(int(ticks) for pair in spent for ticks in pair) / TICKS

    def mebibytes(self) -> dict[str, float]:
        """Memory of the service itself and of its decoders together."""
        service, *decoders = (anonymous_bytes(pid) / 2**20 for pid in self.processes())
        return {"service": round(service, 1), "decoders": round(sum(decoders), 1)}


def timed_ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def percentiles(times_ms: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(float(np.percentile(times_ms, q)), 1) for q in (50, 99)}


def overhead(service: ServiceProcess, ask: Callable[[], object], library: Callable[[], object], n: int) -> dict:
    """The turns of both, `n` of each."""
    with httpx.Client(base_url=service.url, timeout=TIMEOUT_S) as client:
        nothing = [timed_ms(lambda: client.get("/healthz").raise_for_status()) for _ in range(n)]
    pairs, cpu = [], {"library": 0.0, "service": 0.0, "client": 0.0}
    for _ in range(n):
        here = time.process_time()
        called = timed_ms(library)
        before, there = time.process_time(), service.cpu_s()
        asked = timed_ms(ask)
        cpu["library"] += before - here
        cpu["client"] += time.process_time() - before
        cpu["service"] += service.cpu_s() - there
        pairs.append((called, asked))
    called_ms, asked_ms = ([pair[i] for pair in pairs] for i in (0, 1))
    return {
        "what": "overhead",
        "turns": n,
        "library": percentiles(called_ms),
        "service": percentiles(asked_ms),
        "difference_ms": round(float(np.median(asked_ms) - np.median(called_ms)), 1),
        "difference_of_the_least_ms": round(min(asked_ms) - min(called_ms), 1),
        "healthz_ms": round(float(np.median(nothing)), 1),
        "cpu_ms": {who: round(1e3 * spent / n, 1) for who, spent in cpu.items()},
    }


def rates(ask: Callable[[], object], clients: int, n: int) -> dict[str, float]:
    """`n` calls from so many threads."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times_ms = list(pool.map(lambda _: timed_ms(ask), range(n)))
    return {"per_s": round(n / (time.perf_counter() - start), 1), **percentiles(times_ms)}


def load(service: ServiceProcess, post: Callable[[], httpx.Response], n: int) -> dict:
    """`n` requests: their statuses, and the memory before and after."""
    statuses: Counter[str] = Counter()

    def ask(_: int) -> str:
        try:
            return str(post().status_code)
        except httpx.TransportError as error:
            return type(error).__name__

    start = time.perf_counter()
    with ThreadPoolExecutor(max(CLIENTS)) as pool:
        statuses.update(pool.map(ask, range(min(FIRST, n))))
        before = service.mebibytes()
        statuses.update(pool.map(ask, range(n - min(FIRST, n))))
    seconds = time.perf_counter() - start
    return {
        "what": "load",
        "requests": n,
        "statuses": dict(statuses),
        "lost": n - statuses["200"],
        "seconds": round(seconds, 1),
        "mib_after_the_first": before,
        "mib_after_the_last": service.mebibytes(),
    }


@click.command()
@click.option("--tracks", type=click.IntRange(2), default=100, show_default=True, help="In the catalogue.")
@click.option("--track-seconds", type=float, default=60.0, show_default=True, help="Of each of them.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Of the recording that asks.")
@click.option("--turns", type=click.IntRange(1), default=50, show_default=True, help="For the overhead.")
@click.option("--queries", type=click.IntRange(1), default=100, show_default=True, help="For each number of clients.")
@click.option("--requests", type=click.IntRange(0), default=1000, show_default=True, help="Of the load test.")
def main(tracks: int, track_seconds: float, seconds: float, turns: int, queries: int, requests: int) -> None:
    """Measure the service beside the library."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bytecover2-")))
        (folder / "music").mkdir()
        for seed in range(tracks):
            write_melody(folder / "music" / f"{seed}.wav", seed, track_seconds)
        ingest = [sys.executable, "-m", "bytecover2_milvus", "ingest", folder / "music", "--uri", folder / "a.db"]
        subprocess.run(ingest, check=True, stderr=subprocess.DEVNULL)
        shutil.copytree(folder / "a.db", folder / "b.db")  # a process has a folder to itself
        clip = write_melody(folder / "clip.wav", 1, seconds)
        content = clip.read_bytes()

        embedder = Embedder()
        client = stack.enter_context(connected(folder / "a.db"))
        catalogue = Catalogue(TrackCollection.open(client, "tracks", embedder.model_id), embedder)
        service = stack.enter_context(ServiceProcess(folder / "b.db"))
        http = stack.enter_context(httpx.Client(base_url=service.url, timeout=TIMEOUT_S))

        def library() -> list[str]:
            answer = catalogue.answer(embed_query(load_audio(clip), embedder), Question(min_probability=0.0))
            return [match.track_id for match in answer.matches]

        def post() -> httpx.Response:
            return http.post("/v1/query?min_probability=0", files={"file": ("clip.wav", content)})

        def ask() -> list[str]:
            return [match["track_id"] for match in post().raise_for_status().json()["matches"]]

        if library() != ask():
            raise click.ClickException("the service and the library answer differently")
        facts = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
        size = {"tracks": tracks, "track_seconds": track_seconds, "seconds": seconds}
        click.echo(json.dumps({"what": "machine", **facts, **size}))
        click.echo(json.dumps(overhead(service, ask, library, turns)))
        for clients in CLIENTS:
            both = {"service": rates(ask, clients, queries), "library": rates(library, clients, queries)}
            click.echo(json.dumps({"what": "clients", "clients": clients, **both}))
        if requests:
            click.echo(json.dumps(load(service, post, requests)))


if __name__ == "__main__":
    main()
