"""An ingest that is to be broken: its files, its process, and what must be true of the collection afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect

from ..milvus_server import MilvusServer

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_TRACKS = 24
N_CHANGED = 4  # files that get other content before a trial
N_DELETED = 4  # tracks that leave the collection before a trial
TRACK_S = 2.0
BATCH_SIZE = 2  # tracks
RUN_TIMEOUT_S = 180.0  # of an ingest that a fault may hold up; a call to Milvus gives up after 30
EARLY = 0.2  # share of the random moments that may fall before the first record
INGEST = f"""
import signal
from bytecover2_milvus.ingest import pipeline as module
from bytecover2_milvus.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a benchmark in the background ignores it
module.ingest.__kwdefaults__["batch_size"] = {BATCH_SIZE}
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
        """The message about the first failed file, else the last message, once it has ended by itself."""
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
