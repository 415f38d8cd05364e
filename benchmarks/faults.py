"""What is lost and what is stored twice when an ingest meets a fault: nothing, or this says what.

Every trial changes some of a small catalogue's files, deletes some of its tracks from the collection, and runs
``bytecover2-milvus ingest --json`` in a process of its own, in batches of `BATCH_SIZE` tracks so that faults fall
between them. The fault is let loose and mended, the ingest resumed. A track is acknowledged when its line was printed.

lost
    Files acknowledged whose content is not stored, or that the resumed ingest did again; and files that are missing, or
    have another file's embedding, after it.
duplicated
    Tracks acknowledged with more than one row, and rows beyond one for each track after the resumed ingest.

Prints one JSON object per fault and Milvus on stdout and a table with the messages seen on stderr. Mounting a file
system that is full or read-only needs root. Run from the repository::

    python -m benchmarks.faults --kills 50
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import soundfile

from bytecover2_milvus.audio import load_audio
from bytecover2_milvus.collection import TrackCollection, drop_collection
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedder import Embedder
from bytecover2_milvus.ingest import ingest
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus import close, connect

from .milvus_server import MilvusServer

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_TRACKS = 24
N_CHANGED = 4  # files that get other content before a trial
N_DELETED = 4  # tracks that leave the collection before a trial
TRACK_S = 2.0
BATCH_SIZE = 2  # tracks
MISSES = 10  # that a trial may take
RUN_TIMEOUT_S = 180.0  # of an ingest that a fault may hold up; a call to Milvus gives up after 30
EARLY = 0.2  # share of the random moments that may fall before the first record
SMALL_BYTES = 32 << 20  # of the file system that fills up
INGEST = f"""
import signal
from functools import partial
from bytecover2_milvus import ingest as module
from bytecover2_milvus.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a benchmark in the background ignores it
module.ingest = partial(module.ingest, batch_size={BATCH_SIZE})
main(prog_name="bytecover2-milvus")
"""


class Catalogue:
    """A folder of short tones whose files change; the seed decides everything."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder = folder
        self.rng = rng
        folder.mkdir()
        for number in range(N_TRACKS):
            self.write(f"{number:02}")

    def write(self, track_id: str) -> None:
        """Give a track new content: a chord of five random sine tones."""
        time_s = np.arange(int(TRACK_S * SAMPLE_RATE)) / SAMPLE_RATE
        pitches = self.rng.uniform(60, 6000, 5)
        waveform = 0.15 * np.sin(2 * np.pi * pitches[:, None] * time_s).sum(axis=0)
        soundfile.write(self.folder / f"{track_id}.wav", waveform, SAMPLE_RATE)

    def some(self, n: int) -> list[str]:
        """The track_ids of `n` random files."""
        return [str(chosen) for chosen in self.rng.choice(sorted(self.contents()), n, replace=False)]

    def contents(self) -> dict[str, str]:
        """track_id -> SHA-256 of its file."""
        return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.folder.iterdir()}


class Run:
    """An ingest in a process of its own, with a process group of its own as from a terminal."""

    def __init__(self, place: Path, uri: str, collection: str, folder: Path, environment: dict[str, str]) -> None:
        self._stdout, self._stderr = place / "stdout", place / "stderr"
        self.started = time.monotonic()
        command = ("ingest", "--workers", "1", "--device", "cpu", "--json")
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", INGEST, *command, str(folder), "--collection", collection],
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env=os.environ | {"BYTECOVER2_URI": uri} | environment,
            )

    def first_record(self) -> bool:
        """Wait for it; False if the run ends without one."""
        while self.process.poll() is None and not self._stdout.stat().st_size:
            time.sleep(0.01)
        return self._stdout.stat().st_size > 0

    def end(self) -> Run:
        """Wait for the end, however it comes."""
        try:
            self.process.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        return self

    @cached_property
    def acknowledged(self) -> set[str]:
        """track_ids, when the run has ended; half a line is none."""
        lines = self._stdout.read_text(encoding="utf-8").split("\n")[:-1]
        return {record["track_id"] for record in map(json.loads, lines) if record["status"] != "failed"}

    @cached_property
    def message(self) -> str:
        """What it said of the first failed file, else last, when it has ended by itself."""
        if self.process.returncode == -signal.SIGKILL:
            return ""
        lines = self._stderr.read_text(encoding="utf-8").strip().splitlines()
        return next((line for line in lines if line.startswith("failed: ")), lines[-1] if lines else "")


@dataclass
class Scene:
    """A catalogue and the collection it goes into; with the server it is on, if that is ours to break."""

    catalogue: Catalogue
    uri: str
    place: Path  # for what the runs print
    embedder: Embedder
    server: MilvusServer | None = None
    collection: str = field(default_factory=lambda: f"faults_{uuid.uuid4().hex[:8]}")
    start_s: float = 0.0  # of a run that nothing disturbs, to its first record
    work_s: float = 0.0  # and from there to its end

    def __post_init__(self) -> None:
        self._embeddings: dict[str, NDArray[np.float32]] = {}  # by content hash
        self.start().end()  # fills the collection
        self.prepare()
        run = self.start()
        run.first_record()
        self.start_s = time.monotonic() - run.started
        run.end()
        self.work_s = time.monotonic() - run.started - self.start_s

    @property
    def folder(self) -> Path | None:
        """Of an embedded Milvus."""
        return None if self.server else Path(self.uri)

    @contextmanager
    def opened(self) -> Iterator[TrackCollection]:
        """The collection in this process."""
        client = connect(self.uri)
        try:
            yield TrackCollection.open_or_create(client, self.collection, self.embedder)
        finally:
            close(client)

    def prepare(self) -> None:
        """Work for a run: files with other content, and tracks that are not stored."""
        chosen = self.catalogue.some(N_CHANGED + N_DELETED)
        with self.opened() as collection:
            collection.delete_tracks(chosen[N_CHANGED:])
        for track_id in chosen[:N_CHANGED]:
            self.catalogue.write(track_id)

    def start(self, **environment: str) -> Run:
        place = Path(tempfile.mkdtemp(dir=self.place))
        return Run(place, self.uri, self.collection, self.catalogue.folder, environment)

    def moment(self, run: Run) -> bool:
        """Wait for a random moment of a run; False if it ends before."""
        early = self.catalogue.rng.uniform() < EARLY
        wait_s = self.catalogue.rng.uniform(0, self.start_s if early else self.work_s)
        if not early:
            run.first_record()
        try:
            run.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def verify(self, run: Run) -> tuple[int, int]:
        """Resume what `run` left; the numbers of lost files and duplicated rows."""
        contents = self.catalogue.contents()
        with self.opened() as collection:
            rows = collection.rows_of(sorted(contents))
            stored = {row.content_hash for row in rows}
            rows_of = Counter(row.track_id for row in rows)
            lost = {track_id for track_id in run.acknowledged if contents[track_id] not in stored}
            duplicated = sum(rows_of[track_id] > 1 for track_id in run.acknowledged)

            tracks = tracks_in([self.catalogue.folder])
            for record in ingest(tracks, self.embedder, collection, workers=0, batch_size=BATCH_SIZE):
                if record.status == "failed" or (record.track_id in run.acknowledged and record.status != "skipped"):
                    lost.add(record.track_id)
            after = collection.rows_of(collection.tracks_with('id != ""'))
            embeddings = collection.embeddings_of([row.id for row in after])
        right = {
            row.content_hash
            for row in after
            if contents.get(row.track_id) == row.content_hash
            and np.allclose(embeddings[row.id], self._expected(row.track_id, row.content_hash), atol=1e-5)
        }
        lost |= {track_id for track_id, content in contents.items() if content not in right}
        return len(lost), duplicated + len(after) - len({row.track_id for row in after})

    def shown(self, message: str) -> str:
        """`message` without the names that only this run has."""
        for name, general in (
            (self.uri, "URI"),
            (self.collection, "tracks"),
            (str(self.catalogue.folder), "music"),
            (str(self.place.parent), "PLACE"),
        ):
            message = message.replace(name, general)
        return re.sub(r"bytecover2-\w+|\d\d\.wav|PLACE/milvus/catalogue.db", "...", message)

    def _expected(self, track_id: str, content: str) -> NDArray[np.float32]:
        if content not in self._embeddings:
            waveform = load_audio(self.catalogue.folder / f"{track_id}.wav")
            self._embeddings[content] = self.embedder.embed(waveform)
        return self._embeddings[content]


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
    with full(scene.folder.parent, scene.catalogue.rng.uniform(0, 20_000)):
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
    """What came of a fault in all its trials."""

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
