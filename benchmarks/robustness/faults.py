"""Files lost and files stored twice when an ingest meets a fault; none are expected.

Every trial changes some of a small catalogue's files, deletes some of its tracks from the collection, and runs
``bytecover2-milvus ingest --json`` in a process of its own, in batches of two tracks, so that faults fall
between them. The fault is let loose and mended, the ingest resumed. A track is acknowledged when its line was printed.

lost
    Files acknowledged whose content is not stored, or that the resumed ingest did again; and files that are missing, or
    have another file's embedding, after it.
duplicated
    Tracks acknowledged with more than one row, and rows beyond one for each track after the resumed ingest.

Prints one JSON object per fault and Milvus on stdout and a table with the messages seen on stderr. Mounting a file
system that is full or read-only needs root. Run from the repository::

    python -m benchmarks.robustness.faults --kills 50
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.milvus.alias import drop_collection

from ..milvus_server import MilvusServer
from .fault_scene import Catalogue, Run, Scene

MISSES = 10  # that a trial may take
SMALL_BYTES = 32 << 20  # of the file system that fills up

# Each starts a run, breaks it, mends what it broke, and returns the run when that has ended; None if it came too late.


def killed(scene: Scene) -> Run | None:
    run = scene.start()
    scene.moment(run)
    run.process.kill()
    return run if run.process.wait() == -signal.SIGKILL else None


def killed_while_creating(scene: Scene) -> Run | None:
    """The collection, and on Milvus Lite the folder, is not there yet."""
    with scene.opened() as collection:
        drop_collection(collection.client, scene.collection)
    if scene.folder:
        shutil.rmtree(scene.folder)
    run = scene.start()
    time.sleep(scene.catalogue.rng.uniform(0.5 * scene.start_s, scene.start_s + scene.work_s))
    run.process.kill()
    return run if run.process.wait() == -signal.SIGKILL else None


def interrupted(scene: Scene) -> Run | None:
    run = scene.start()
    in_time = run.first_record() and scene.moment(run)
    if in_time:
        os.killpg(run.process.pid, signal.SIGINT)  # a terminal sends it to the decoder, too
    run.end()
    return run if in_time and len(run.acknowledged) < len(scene.catalogue.contents()) else None


def server_killed(scene: Scene) -> Run | None:
    """Restarted at once, which takes it some seconds."""
    run = scene.start()
    in_time = run.first_record() and scene.moment(run)
    if in_time:
        scene.server.kill()
        scene.server.start()
    run.end()
    return run if in_time else None


def server_gone(scene: Scene) -> Run | None:
    """Restarted when the ingest has given up."""
    run = scene.start()
    in_time = run.first_record() and scene.moment(run)
    if in_time:
        scene.server.kill()
    run.end()
    if in_time:
        scene.server.start()
    return run if in_time and run.process.returncode else None


def server_frozen(scene: Scene) -> Run | None:
    run = scene.start()
    in_time = run.first_record() and scene.moment(run)
    if in_time:
        scene.server.freeze()
    run.end()
    if in_time:
        scene.server.thaw()
    return run if in_time and run.process.returncode else None


def two_processes(scene: Scene) -> Run | None:
    """One of them gets the folder."""
    runs = [scene.start(), scene.start()]
    refused = [run for run in runs if run.end().process.returncode]
    if len(refused) != 1:
        return None
    runs[0].acknowledged = runs[0].acknowledged | runs[1].acknowledged
    runs[0].message = refused[0].message
    return runs[0]


def index_cut_off(scene: Scene) -> Run | None:
    with scene.opened() as collection:
        collection.flush()
    indexes = list(scene.folder.glob("**/*.idx"))
    for index in indexes:
        os.truncate(index, int(scene.catalogue.rng.uniform() * index.stat().st_size))
    run = scene.start().end()
    return run if indexes else None


def two_names(scene: Scene) -> Run | None:
    (track_id,) = scene.catalogue.some(1)
    folder = scene.catalogue.folder
    shutil.copy(folder / f"{track_id}.wav", folder / f"copy-{scene.catalogue.rng.integers(10**9)}.wav")
    return scene.start().end()


def files_moved(scene: Scene) -> Run | None:
    """One has another name, two have each other's."""
    folder = scene.catalogue.folder
    renamed, one, other = (folder / f"{track_id}.wav" for track_id in scene.catalogue.some(3))
    renamed.rename(folder / f"moved-{scene.catalogue.rng.integers(10**9)}.wav")
    one.rename(folder / "swap")
    other.rename(one)
    (folder / "swap").rename(other)
    return scene.start().end()


def disk_full(scene: Scene) -> Run | None:
    with full(scene.folder.parent, scene.catalogue.rng.uniform(0, 10_000)):
        return scene.start().end()


def no_room_for_waveforms(scene: Scene) -> Run | None:
    with full(scene.folder.parent, scene.catalogue.rng.uniform(0, 200_000)):
        return scene.start(TMPDIR=str(scene.folder.parent)).end()


def read_only(scene: Scene) -> Run | None:
    mount("-o", "remount,ro", scene.folder.parent)
    try:
        return scene.start().end()
    finally:
        mount("-o", "remount,rw", scene.folder.parent)


@contextmanager
def full(folder: Path, left_bytes: float) -> Iterator[None]:
    """The file system of `folder` with only so much room."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - int(left_bytes)))
    try:
        yield
    finally:
        ballast.unlink()


def mount(*arguments: object) -> None:
    """
    Raises
    ------
    click.ClickException
        If this user, or this machine, may not mount anything.
    """
    try:
        subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise click.ClickException("there is no mount command") from error
    except subprocess.CalledProcessError as error:
        raise click.ClickException(" ".join(error.stderr.split())) from error


@dataclass(frozen=True)
class Fault:
    name: str
    trial: Callable[[Scene], Run | None]
    scenes: tuple[str, ...]
    often: bool = False  # as often as --kills says


FAULTS = (
    Fault("killed at a random moment (SIGKILL)", killed, ("lite", "server"), often=True),
    Fault("killed while it makes the collection", killed_while_creating, ("lite", "server")),
    Fault("Ctrl-C", interrupted, ("lite", "server")),
    Fault("server killed and started again", server_killed, ("server",)),
    Fault("server killed and started again after the ingest", server_gone, ("server",)),
    Fault("server frozen (SIGSTOP)", server_frozen, ("server",)),
    Fault("index file cut off", index_cut_off, ("lite",)),
    Fault("two processes on one folder", two_processes, ("lite",)),
    Fault("disk full", disk_full, ("small",)),
    Fault("no room for temporary files", no_room_for_waveforms, ("small",)),
    Fault("folder read-only", read_only, ("small",)),
    Fault("the same file under two names", two_names, ("lite", "server")),
    Fault("files changed, renamed and exchanged between runs", files_moved, ("lite", "server")),
)


@dataclass(frozen=True)
class Report:
    """The results of one fault in all its trials."""

    fault: str
    milvus: str
    trials: int
    acknowledged: int  # files
    lost: int
    duplicated: int
    messages: dict[str, int]  # the last line that an ingest said -> how often


def measure(fault: Fault, scene: Scene, trials: int) -> Report:
    """Let `fault` loose until it has hit `trials` runs."""
    acknowledged = lost = duplicated = done = missed = 0
    messages: Counter[str] = Counter()
    while done < trials:
        scene.prepare()
        run = fault.trial(scene)
        n_lost, n_duplicated = scene.verify(run) if run else (0, 0)
        if run is None:
            if (missed := missed + 1) > MISSES * trials:
                raise RuntimeError(f"{fault.name}: came too late {missed} times")
            continue
        done += 1
        acknowledged += len(run.acknowledged)
        lost += n_lost
        duplicated += n_duplicated
        messages[scene.shown(run.message)] += 1
    milvus = "server" if scene.server else "lite"
    return Report(fault.name, milvus, done, acknowledged, lost, duplicated, dict(messages.most_common()))


@contextmanager
def scene_on(milvus: str, seed: int) -> Iterator[Scene]:
    """A scene on Milvus Lite, on a server, or on Milvus Lite in a small file system; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ExitStack() as stack:
        place, server = Path(name), None
        for folder in ("runs", "milvus"):
            (place / folder).mkdir()
        uri = str(place / "milvus" / "catalogue.db")
        if milvus == "server":
            server = MilvusServer(place / "milvus")
            stack.callback(server.remove)
            server.start()
            uri = server.uri
        elif milvus == "small":
            mount("-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", place / "milvus")
            stack.callback(subprocess.run, ["umount", place / "milvus"], check=True)
        catalogue = Catalogue(place / "music", np.random.default_rng(seed))
        yield Scene(catalogue, uri, place / "runs", Embedder(device="cpu", threads=1), server)


@click.command()
@click.option("--kills", default=50, show_default=True, help="SIGKILLs at random moments, on each Milvus.")
@click.option("--trials", default=3, show_default=True, help="Of every other fault.")
@click.option("--milvus", type=click.Choice(["lite", "small", "server"]), multiple=True, help="By default all.")
@click.option("--seed", default=0, show_default=True)
def main(kills: int, trials: int, milvus: tuple[str, ...], seed: int) -> None:
    """Break ingests, resume them, and count what was lost and what is there twice."""
    reports = []
    for name in milvus or ("lite", "small", "server"):
        with scene_on(name, seed) as scene:
            for fault in FAULTS:
                if name in fault.scenes:
                    reports.append(measure(fault, scene, kills if fault.often else trials))
                    click.echo(json.dumps(asdict(reports[-1])))
    click.echo(f"{'fault':52} {'Milvus':7} {'trials':>6} {'acknowledged':>12} {'lost':>5} {'duplicated':>10}", err=True)
    for report in reports:
        counts = f"{report.trials:6} {report.acknowledged:12} {report.lost:5} {report.duplicated:10}"
        click.echo(f"{report.fault:52} {report.milvus:7} {counts}", err=True)
        for message, times in report.messages.items():
            if message:
                click.echo(f"    {times} x {message}", err=True)


if __name__ == "__main__":
    main()
