"""The speed of ingest beside the sum of its parts, and the memory it takes.

Tracks are one rendered song, made four minutes long, as stereo MP3 files (44.1 kHz, 192 kbit/s) that differ in their
tag, so that each is decoded, embedded and stored. Measured one after the other, each in processes of its own:

parts
    On one core, one thread, nothing beside it: decoding to mono, resampling, inference, packing the chroma, the
    statistics of the second stage (alignment with a whole cohort of tracks as long), inserting into Milvus Lite.
ingest
    `bytecover2_milvus.ingest.pipeline` as users call it, on so many cores: the rate of the second half of its tracks,
    when processes have started and caches are warm.

``of_parts`` is the rate of ingest over what the cores would do if they did nothing but the parts, without ever waiting:
cores / sum of the parts. ``cpu_of_parts`` compares processor time instead, which holds on a busy machine too: what is
lost to it is work that is no part (hashing, handing waveforms over, asking Milvus what is there).

Memory is the sum of the largest resident sizes that each process ever had (VmHWM), so it is never too low: after the
first half of the tracks and after all, and for a single file of many hours. Linux only. Prints JSON lines on stdout and
a table on stderr. Run from the repository::

    python -m benchmarks.speed.ingest --cores 1 --cores 2 --hours 10
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from bytecover2_milvus.config import SAMPLE_RATE

FILE_RATE = 44_100  # Hz
BIT_RATE = 192_000
FRAME = 1152  # samples of an MP3 frame
POLL_S = 0.1
COMPARED = ("of_parts", "cpu_of_parts")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Parts:
    """Seconds per track on one core: by the clock, and of the processor."""

    clock_s: dict[str, float]
    processor_s: dict[str, float]

    @property
    def total_s(self) -> float:
        return sum(self.clock_s.values())

    @property
    def cpu_s(self) -> float:
        return sum(self.processor_s.values())


@dataclass(frozen=True)
class Ingest:
    """One run of ingest."""

    cores: int
    tracks: int  # that were timed
    tracks_per_s: float
    cpu_s: float  # per track, of all processes
    half_mib: float  # memory after half of the tracks
    peak_mib: float  # and after all


@dataclass(frozen=True)
class Long:
    """The ingest of a single long file."""

    hours: float
    seconds: float
    peak_mib: float


def write_mp3(path: Path, minutes: float) -> None:
    """A song of ours, as often as it fits."""
    import av
    import soxr

    from bytecover2_milvus.songs.arrange.arrangement import arrange
    from bytecover2_milvus.songs.compose.composer import compose
    from bytecover2_milvus.songs.render.renderer import render

    song = np.resize(render(arrange(compose(0), 0), 30 * minutes), round(60 * minutes * SAMPLE_RATE))
    mono = soxr.resample(song, SAMPLE_RATE, FILE_RATE)
    stereo = np.stack([mono, np.roll(mono, 40)])  # (2, n_samples)
    stereo *= 0.9 / np.abs(stereo).max()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=FILE_RATE, layout="stereo", bit_rate=BIT_RATE)
        for start in range(0, stereo.shape[1], FRAME):
            block = np.ascontiguousarray(stereo[:, start : start + FRAME])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = FILE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def copies(mp3: Path, folder: Path, count: int) -> list[Path]:
    """The same recording under other tags (ID3v1: 128 bytes at the end)."""
    folder.mkdir()
    content, paths = mp3.read_bytes(), [folder / f"{number}.mp3" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(content + b"TAG" + str(number).encode().ljust(125, b"\0"))
    return paths


def measure_parts(paths: Sequence[Path], uri: str, device: str) -> Parts:
    """The parts of ingest, track by track, in this process."""
    from bytecover2_milvus.alignment.chroma import encode, to_levels
    from bytecover2_milvus.audio.limits import Limits
    from bytecover2_milvus.audio.load import _Recording, _resample
    from bytecover2_milvus.embedding.embedder import Embedder
    from bytecover2_milvus.milvus.cohort import SIZE, Cohort, CohortTrack
    from bytecover2_milvus.milvus.collection import TrackCollection
    from bytecover2_milvus.milvus.connection import close, connect
    from bytecover2_milvus.milvus.schema import Row

    embedder, client = Embedder(device=device, threads=1), connect(uri)
    collection = TrackCollection.create(client, "parts", embedder)
    parts = ("decode", "resample", "inference", "chroma", "statistics", "insert")
    spent: dict[str, tuple[float, float]] = dict.fromkeys(parts, (0.0, 0.0))

    def timed(part: str, function: Callable[[], _Result]) -> _Result:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        before = spent[part]
        spent[part] = before[0] + time.perf_counter() - wall, before[1] + time.process_time() - cpu
        return result

    rows, heard, chromas, statistics = [], [], [], []
    cohort = Cohort()
    for path in paths:
        blocks = timed("decode", lambda path=path: list(_Recording(path, Limits()).mono()))
        waveform = np.concatenate(timed("resample", lambda blocks=blocks: list(_resample(blocks))))
        heard.append(timed("inference", lambda waveform=waveform: embedder.hear(waveform)))
        levels = to_levels(heard[-1].chroma)
        if not cohort.tracks:
            cohort.admit(CohortTrack(str(i), str(i), heard[0].embedding, levels) for i in range(SIZE))
            cohort.statistics(heard[0].embedding, levels)  # compiled here, if it was not
        chromas.append(timed("chroma", lambda: encode(to_levels(heard[-1].chroma))))
        statistics.append(timed("statistics", lambda levels=levels: cohort.statistics(heard[-1].embedding, levels)))
        duration_s = len(waveform) / SAMPLE_RATE
        times = {"start_s": 0.0, "end_s": duration_s, "duration_s": duration_s}
        rows.append(Row(path.name, path=str(path), content_hash=f"{len(rows):064x}", **times))
    embeddings = np.stack([one.embedding for one in heard])
    timed("insert", lambda: collection.upsert(rows, embeddings, chromas, statistics))
    close(client)
    clock, cpu = ({part: seconds[way] / len(paths) for part, seconds in spent.items()} for way in (0, 1))
    return Parts(clock, cpu)


def measure_ingest(paths: Sequence[Path], uri: str, device: str) -> Ingest:
    """Ingest of all files; the second half of them is timed."""
    half = len(paths) // 2
    with watched() as family:
        for done, (clock, cpu) in enumerate(_ingest(paths, uri, half, device, family), start=1):
            if done == half:
                first, half_mib = (clock, cpu), family.peak_mib()
    seconds, cpu_s = clock - first[0], max(cpu - first[1], 1 / os.sysconf("SC_CLK_TCK"))  # /proc counts whole ticks
    timed = len(paths) - half
    return Ingest(len(os.sched_getaffinity(0)), timed, timed / seconds, cpu_s / timed, half_mib, family.peak_mib())


def measure_long(path: Path, uri: str, hours: float, device: str) -> Long:
    """Ingest of one file."""
    with watched() as family:
        start = time.perf_counter()
        [(end, _)] = _ingest([path], uri, 1, device, family)
    return Long(hours, end - start, family.peak_mib())


def _ingest(
    paths: Sequence[Path], uri: str, batch_size: int, device: str, family: Family
) -> Iterator[tuple[float, float]]:
    """Wall clock and processor seconds when each track is done."""
    from bytecover2_milvus.embedding.embedder import Embedder
    from bytecover2_milvus.ingest.pipeline import ingest
    from bytecover2_milvus.manifest import tracks_in
    from bytecover2_milvus.milvus.collection import TrackCollection
    from bytecover2_milvus.milvus.connection import close, connect

    embedder, client = Embedder(device=device), connect(uri)
    collection = TrackCollection.create(client, "tracks", embedder)
    for record in ingest(tracks_in(paths), embedder, collection, batch_size=batch_size):
        if record.status != "added":
            raise RuntimeError(f"{record.path}: {record.status}, {record.reason}")
        yield time.perf_counter(), family.cpu_s()
    close(client)


class Family:
    """This process and the processes that it has started."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = {}  # process -> KiB

    def look(self) -> None:
        for pid in self._pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:  # it has ended
                continue
            if "VmHWM:" in status:
                self._peaks[pid] = int(status.split("VmHWM:")[1].split()[0])

    def peak_mib(self) -> float:
        self.look()
        return sum(self._peaks.values()) / 1024

    def cpu_s(self) -> float:
        """Processor time until now, of those that run."""
        ticks = 0
        for pid in self._pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
        return ticks / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _pids() -> list[int]:
        """Of this process, and of those that it started, whichever way."""
        pids = [os.getpid()]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # ended meanwhile
                fields = stat.read_text().rpartition(")")[2].split()
                pids += [int(stat.parent.name)] if int(fields[1]) == os.getpid() else []
        return pids


@contextmanager
def watched() -> Iterator[Family]:
    """The family of this process, looked at every `POLL_S` so that the peak of one that ends is known."""
    family, over = Family(), threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            family.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield family
    finally:
        over.set()
        thread.join()


def on_cores(cores: int, function: Callable[..., _Result], *arguments: object) -> _Result:
    """The result of `function` in a process of its own that may use so many cores."""
    chosen = sorted(os.sched_getaffinity(0))[-cores:]
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=os.sched_setaffinity, initargs=(0, chosen)
    ) as pool:
        return pool.submit(function, *arguments).result()


@click.command()
@click.option("--cores", multiple=True, type=click.IntRange(1), default=[1, 2], show_default=True)
@click.option("--tracks", type=click.IntRange(2), default=64, show_default=True, help="Tracks of each run of ingest.")
@click.option("--minutes", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Of a track.")
@click.option("--hours", type=click.FloatRange(0), default=10.0, show_default=True, help="Of the long file; 0: none.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="That embeds.")
def main(cores: tuple[int, ...], tracks: int, minutes: float, hours: float, device: str) -> None:
    """Measure ingest against the sum of its parts, and its memory."""
    usable = len(os.sched_getaffinity(0))
    if max(cores) > usable:
        raise click.UsageError(f"--cores {max(cores)}: this process may use {usable}")
    heads = ("cores", "tracks/s", "and core", "of parts", "of cpu", "MiB at half", "at the end")
    table = [" ".join(f"{head:>11}" for head in heads)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mp3(folder / "song.mp3", minutes)
        paths = copies(folder / "song.mp3", folder / "tracks", tracks)
        parts = on_cores(1, measure_parts, paths[: max(2, tracks // 4)], str(folder / "parts.db"), device)
        click.echo(json.dumps({"what": "parts", "device": device, **asdict(parts)}))
        for count in cores:
            run = on_cores(count, measure_ingest, paths, str(folder / f"{count}.db"), device)
            shares = {
                "tracks_per_s_and_core": run.tracks_per_s / count,
                "of_parts": run.tracks_per_s / count * parts.total_s,
                "cpu_of_parts": parts.cpu_s / run.cpu_s,
            }
            click.echo(json.dumps({"what": "ingest", **asdict(run), **shares}))
            rates, memory = (run.tracks_per_s, run.tracks_per_s / count), (run.half_mib, run.peak_mib)
            cells = (f"{count}", *(f"{rate:.2f}" for rate in rates), *(f"{shares[name]:.0%}" for name in COMPARED))
            table.append(" ".join(f"{cell:>11}" for cell in (*cells, *(f"{mib:.0f}" for mib in memory))))
        if hours:
            with (folder / "long.mp3").open("wb") as file:
                for _ in range(round(hours * 60 / minutes)):
                    file.write((folder / "song.mp3").read_bytes())
            long = on_cores(max(cores), measure_long, folder / "long.mp3", str(folder / "long.db"), hours, device)
            click.echo(json.dumps({"what": "long", **asdict(long)}))
            table.append(f"one file of {hours:g} hours: {long.seconds:.0f} s, {long.peak_mib:.0f} MiB")
    table.append(f"{'ms per track':>11} " + " ".join(f"{part:>11}" for part in (*parts.clock_s, "sum")))
    for way, seconds in (("clock", parts.clock_s), ("processor", parts.processor_s)):
        table.append(f"{way:>11} " + " ".join(f"{1e3 * s:11.1f}" for s in (*seconds.values(), sum(seconds.values()))))
    click.echo("\n".join(table), err=True)


if __name__ == "__main__":
    main()
