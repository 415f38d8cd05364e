"""The service behind the routes: one session, one catalogue, a few decoders, and a bound on recordings at a time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio.decode_pool import hash_content
from ..config import SAMPLE_RATE
from ..embedding.query import Query, embed_query
from ..errors import BytecoverError, CollectionError
from ..labels import LabelsFile
from ..milvus.filters import and_filter
from ..parallel import uninterrupted
from ..second_stage.answer import Answer, Question
from .decoders import Decoders, TooSlow
from .live import LiveCatalogue
from .refusal import Refused, refusal_of
from .telemetry import Metrics, Stages
from .upload import Recording, Uploads

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..embedding.embedder import Embedder, Heard
    from .settings import Settings

LONGEST_RETRY_S = 60
WEIGHT = 0.1  # of the latest recording, in the mean of what one takes

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """The answer to a recording, and what is to be said of the recording."""

    name: str
    duration_s: float
    warning: str  # of damaged audio; "" where there is none
    content_hash: str | None  # SHA-256 of the file, hexadecimal, if it was asked for
    heard: Heard | None  # of the whole
    answer: Answer
    note: str  # why nothing was judged; "" where it was
    collection: str  # that was asked, by its own name


@dataclass(frozen=True)
class Embedded:
    """The embedding (D,) of a recording."""

    name: str
    duration_s: float
    warning: str
    embedding: NDArray[np.float32]


class Service:
    """The service without its routes; leave its ``with`` block to end it.

    Parameters
    ----------
    settings : Settings
    client : MilvusClient
    collection : str
    embedder : Embedder

    Raises
    ------
    CollectionError
        As `LiveCatalogue`.
    OutputError
        If labels cannot be written.
    """

    def __init__(self, settings: Settings, client: MilvusClient, collection: str, embedder: Embedder) -> None:
        self.settings, self.embedder, self.metrics = settings, embedder, Metrics()
        self.client = client
        self.labels = LabelsFile(settings.labels) if settings.labels else None
        self._resources = ExitStack()
        folder = Path(self._resources.enter_context(TemporaryDirectory(prefix="bytecover2-")))
        self._decoders = Decoders(settings.at_once, folder)
        self._resources.callback(self._decoders.end)
        try:
            self.catalogue = LiveCatalogue(client, collection, embedder)
        except BaseException:
            self._resources.close()
            raise
        self._threads = ThreadPoolExecutor(settings.at_once, "recording")
        self.uploads = Uploads(folder, settings.limits.maximum_bytes)
        self._tasks: set[asyncio.Task[object]] = set()
        self._admitted = 0
        self._mean_s = 1.0  # that a recording takes

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._decoders.end()
            self._threads.shutdown()
            self._resources.close()

    def warm_up(self) -> None:
        """Compile, load and connect what the first recording would else wait for."""
        noise = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype(np.float32)
        asked = embed_query(noise, self.embedder)
        try:
            self.catalogue.now().answer(asked, Question(limit=1, min_probability=0.0))
        except CollectionError as error:
            log.warning("not ready yet: %s", error)

    async def work(
        self,
        receive: Callable[[float], Awaitable[Recording]],
        job: Callable[[Recording, float, Stages], _Result],
        stages: Stages,
    ) -> _Result:
        """The result of `job` for a recording, done in a thread when its turn comes.

        Parameters
        ----------
        receive : callable
            Gives the recording, until a deadline of `time.monotonic`. It is deleted at the end if it was uploaded.
        job : callable
            Takes the recording, the deadline, and the stages that it times.
        stages : Stages

        Raises
        ------
        Refused
            429 if too many wait already, 504 if it takes too long, and what the two raise.
        """
        self._admit()
        start = time.monotonic()
        deadline = start + self.settings.timeout_s
        try:
            with stages.timed("upload"):
                recording = await receive(deadline)
        except BaseException:
            self._dismiss()
            raise
        received = time.perf_counter()

        def do() -> _Result:
            stages.seconds["wait"] = time.perf_counter() - received
            return job(recording, deadline, stages)

        return await self._within(self._done(do, recording), deadline)

    async def compute(self, job: Callable[[], _Result]) -> _Result:
        """The result of `job`, done in a thread when its turn comes.

        Raises
        ------
        Refused
            As `work`.
        """
        self._admit()
        return await self._within(self._done(job), time.monotonic() + self.settings.timeout_s)

    def query(self, question: Question, with_hash: bool, recording: Recording, deadline: float, stages: Stages) -> Told:
        """The answer of the catalogue to a recording.

        Raises
        ------
        Refused, TooSlow
        """
        asked, duration_s, warning = self._embed(recording, deadline, stages)
        with stages.timed("search"):
            try:
                catalogue = self.catalogue.now()
                answer = catalogue.answer(asked, question)
            except BytecoverError as error:
                raise refusal_of(error) from error
        note = "" if answer.judged else answer.note or catalogue.lack or "rerank=0: ranked by similarity alone"
        content_hash = None
        if with_hash:
            with recording.path.open("rb") as file:
                content_hash = hash_content(file)
        told = recording.name, duration_s, warning, content_hash, asked.heard
        return Told(*told, answer, note, catalogue.collection.name)

    def embed(self, recording: Recording, deadline: float, stages: Stages) -> Embedded:
        """The embedding of a recording.

        Raises
        ------
        Refused, TooSlow
        """
        asked, duration_s, warning = self._embed(recording, deadline, stages)
        return Embedded(recording.name, duration_s, warning, asked.embeddings[0])

    def look(self) -> None:
        """See to it that Milvus answers, and has the collection.

        Raises
        ------
        CollectionError
        """
        try:
            self.catalogue.now().collection.count(fresh=False)
        except CollectionError as error:
            log.warning("not ready: %s", error)
            raise

    def check(self, question: Question) -> None:
        """Refuse what this catalogue cannot be asked, before anything is sent to it.

        Raises
        ------
        Refused
        """
        try:
            and_filter(question.filter, "")
        except CollectionError as error:
            raise Refused(422, str(error)) from error
        if not (question.distinct or question.rerank):
            return
        try:
            lack = self.catalogue.now().lack
        except CollectionError as error:
            raise refusal_of(error) from error
        if lack:
            raise Refused(422, f"distinct and rerank need the second stage: {lack}")

    def _embed(self, recording: Recording, deadline: float, stages: Stages) -> tuple[Query, float, str]:
        if time.monotonic() > deadline:
            raise TooSlow
        path = str(recording.path)
        try:
            with stages.timed("decode"):
                decoded = self._decoders.decode(recording.path, self.settings.limits, deadline)
            duration_s = len(decoded.waveform) / SAMPLE_RATE
            self.metrics.audio_s.inc(duration_s)
            with stages.timed("embed"):
                asked = embed_query(decoded.waveform, self.embedder)
        except BytecoverError as error:
            raise refusal_of(error, path, recording.name) from error
        if time.monotonic() > deadline:
            raise TooSlow
        return asked, duration_s, decoded.warning.replace(path, recording.name)

    async def _within(self, done: Coroutine[Any, Any, _Result], deadline: float) -> _Result:
        """The result of what goes on to its end, whoever waits for it."""
        task = asyncio.create_task(done)
        self._tasks.add(task)  # the loop itself would let go of it
        task.add_done_callback(self._forget)
        try:
            return await asyncio.wait_for(asyncio.shield(task), max(0.0, deadline - time.monotonic()))
        except (TimeoutError, TooSlow) as error:
            raise Refused(504, f"not done within {self.settings.timeout_s:g} s") from error

    async def _done(self, job: Callable[[], _Result], recording: Recording | None = None) -> _Result:
        start = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        finally:
            if recording and recording.uploaded:
                recording.path.unlink(missing_ok=True)
            self._mean_s += WEIGHT * (time.monotonic() - start - self._mean_s)
            self._dismiss()

    def _admit(self) -> None:
        places = self.settings.at_once + self.settings.waiting
        if self._admitted >= places:
            after_s = math.ceil(min(max(1.0, self._mean_s), LONGEST_RETRY_S))
            reason = f"{self._admitted} recordings are worked on or wait; try again in {after_s} s"
            raise Refused(429, reason, {"Retry-After": str(after_s)})
        self._admitted += 1
        self.metrics.admitted.set(self._admitted)

    def _dismiss(self) -> None:
        self._admitted -= 1
        self.metrics.admitted.set(self._admitted)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # which nobody may have waited for
