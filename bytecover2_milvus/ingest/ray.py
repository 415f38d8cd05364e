"""Decoding and embedding on the machines of a Ray cluster; storing stays with the process that asked.

A *worker* is a Ray actor with one session: it is sent a path, reads the file, and sends back embeddings, half a
kilobyte per part, and about 5 kB of chroma. Waveforms stay where they were decoded, and nothing goes through Ray's
object store. Files, and a bundle that is named, are read under the same path on every machine; this package has to be
installed on all.

A worker that dies, alone or with its machine, is replaced as soon as the cluster has room, and the files that it had
not sent back go to the others. A file over which `DEATHS` workers died is given up. Ray Data would not do: it returns
results in blocks of many files, which are lost together, and retries for ever a file that kills its worker.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ..alignment.verdict import Verdict
from ..audio.decode_pool import Decoded
from ..audio.segments import Segments, Span
from ..embedding.bundle import default_bundle, open_bundle
from ..embedding.embedder import DEVICES
from ..errors import AudioError, BytecoverError, ClusterError, DeviceError, UnreadableAudio
from ..milvus.schema import Features
from .listing import ListedTrack
from .ray_connection import connect
from .ray_worker import Embedded, Worker, describe_model

AHEAD = 2  # files that a worker is given at once: while it reads one, the next is there already
DEATHS = 3  # workers that may die over one file; more than one, as they also die with their machine
PATIENCE_S = 300.0  # longest wait while there is no worker; an autoscaler takes minutes to bring a machine


@dataclass(eq=False)
class _Started:
    """A worker that has its session, and the files that it has not sent back, the oldest first."""

    actor: Any
    owes: deque[tuple[Any, ListedTrack]] = field(default_factory=deque)  # reference to the answer, track


class Cluster:
    """A Ray cluster that decodes and embeds, for `ingest`; leave its ``with`` block to end its workers.

    A file whose content is stored from another path is embedded too, as that is found out only afterwards.

    Parameters
    ----------
    address : str
        "auto" for the cluster that this machine belongs to, "host:6379", "ray://host:10001" from outside, as
        `ray.init` takes them; or "local".
    bundle : str or Path, optional
        As of `Embedder`; every machine reads it under this path.
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where the cluster has GPUs.
    workers : int, optional
        By default one per core; on CUDA one per GPU, which more would share.

    Raises
    ------
    ClusterError
        If Ray is not installed, no cluster answers, or it has another version of Ray or Python.
    BundleError
        As `Embedder`.
    DeviceError
        If `device` is "cuda" and the cluster has no GPU.
    """

    def __init__(
        self, address: str, bundle: str | Path | None = None, device: str = "auto", workers: int | None = None
    ) -> None:
        if device not in DEVICES:
            raise DeviceError(f"device = {device!r}: choose one of {', '.join(DEVICES)}")
        self._bundle = None if bundle is None else Path(bundle).absolute()
        opened = open_bundle(self._bundle or default_bundle())
        self._contract, self._verdict = opened.contract, opened.calibration
        self._address = address
        self._ray = connect(address, workers)
        resources = self._ray.cluster_resources()
        n_gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
        if device == "cuda" and not n_gpus:
            self._ray.shutdown()
            raise DeviceError(f"CUDA was asked for but the Ray cluster at {address} has no GPU; start a node with one")
        self._device = device if n_gpus else "cpu"
        self._n_workers = workers or max(1, n_gpus or int(resources.get("CPU", 0)))
        share = 1 / math.ceil(self._n_workers / n_gpus) if n_gpus else 0  # of one GPU: no worker has parts of two
        self._actor = self._ray.remote(num_cpus=1, num_gpus=share)(Worker)
        self._starting: dict[Any, Any] = {}  # reference to the answer of `Worker.start` -> actor
        self._started: list[_Started] = []

    @property
    def model_id(self) -> str:
        """The model's id, as of an `Embedder`; so are `contract_version`, `dim` and the others."""
        return self._contract.model_id

    @property
    def contract_version(self) -> int:
        return self._contract.contract_version

    @property
    def dim(self) -> int:
        return self._contract.embedding_dim

    @property
    def chroma_id(self) -> str:
        return self._contract.chroma_id

    @property
    def verdict(self) -> Verdict | None:
        return self._verdict

    @property
    def chroma_channels(self) -> int:
        return self._contract.chroma_channels

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in [*self._starting.values(), *(worker.actor for worker in self._started)]:
            self._ray.kill(actor)
        self._starting, self._started = {}, []
        self._ray.shutdown()

    def read(
        self, tracks: Iterable[ListedTrack], segments: Segments
    ) -> Iterator[tuple[ListedTrack, Decoded | AudioError]]:
        """Files read as by `Reader.read`; workers are started when there is a first file for them.

        Raises
        ------
        ClusterError
            If there was no worker for `PATIENCE_S`, or the cluster is lost.
        BytecoverError
            As `Worker.start`.
        """
        todo, deaths = deque(tracks), Counter[Path]()
        if todo and not (self._starting or self._started):
            for _ in range(self._n_workers):
                self._add_worker()
        while todo or any(worker.owes for worker in self._started):
            self._hand_out(todo, segments)
            owing = {ref: worker for worker in self._started for ref, _ in worker.owes}
            patience_s = None if self._started else PATIENCE_S
            with self._one_line_errors():
                ready, _ = self._ray.wait([*self._starting, *owing], timeout=patience_s)
            if not ready:
                raise ClusterError(f"the Ray cluster at {self._address} had no core free for {PATIENCE_S:g} s")
            if ready[0] in self._starting:
                self._take_in(ready[0])
            else:
                yield from self._take(owing[ready[0]], todo, deaths)

    def hear(self, decoded: Decoded, spans: Sequence[Span]) -> list[Features]:
        """The features of the spans, which a worker has embedded already."""
        assert isinstance(decoded, Embedded)
        if isinstance(decoded.features, BytecoverError):
            raise decoded.features
        return [decoded.features[span] for span in spans]

    def _hand_out(self, todo: deque[ListedTrack], segments: Segments) -> None:
        """Give files to the workers that have the fewest, up to `AHEAD` each."""
        while todo and self._started:
            worker = min(self._started, key=lambda worker: len(worker.owes))
            if len(worker.owes) >= AHEAD:
                return
            listed = todo.popleft()
            asked = (listed.path, listed.known, listed.stored, segments, listed.limits)  # a row would be sent in vain
            worker.owes.append((worker.actor.read.remote(*asked), listed))

    def _take(
        self, worker: _Started, todo: deque[ListedTrack], deaths: Counter[Path]
    ) -> Iterator[tuple[ListedTrack, Decoded | AudioError]]:
        """The oldest answer that a worker owes; if it has died, its files go back to the front of `todo`."""
        ref, listed = worker.owes[0]
        try:
            with self._one_line_errors():
                answer = self._ray.get(ref)
        except _WorkerDied:
            self._started.remove(worker)
            self._add_worker()
            deaths[listed.path] += 1
            if deaths[listed.path] == DEATHS:
                worker.owes.popleft()
                reason = f"{DEATHS} workers died over it, out of memory or through a fault of the codec"
                yield listed, UnreadableAudio(f"{listed.path}: {reason}; convert or leave it out")
            else:
                warnings.warn(f"{listed.path}: its worker died, it goes to another", stacklevel=1)
            todo.extendleft(listed for _, listed in reversed(worker.owes))
            return
        worker.owes.popleft()
        yield listed, answer

    def _add_worker(self) -> None:
        """Ask for a worker; it starts when the cluster has room."""
        actor = self._actor.remote()
        self._starting[actor.start.remote(self._bundle, self._device, describe_model(self), os.getcwd())] = actor

    def _take_in(self, ref: Any) -> None:
        """Move a worker to the started ones. One that died instead is not replaced: the next might die as well."""
        actor = self._starting.pop(ref)
        try:
            with self._one_line_errors():
                self._ray.get(ref)
        except _WorkerDied as error:
            if not (self._starting or self._started):
                raise ClusterError(f"no worker on the Ray cluster at {self._address} got ready: {error}") from error
        else:
            self._started.append(_Started(actor))

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Errors of Ray become errors of this package.

        Raises
        ------
        _WorkerDied
            Where others may go on.
        """
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            if isinstance(error.cause, BytecoverError):
                raise error.cause from error
            raise  # a fault of ours, with its traceback
        except (errors.RayActorError, errors.OutOfMemoryError) as error:
            raise _WorkerDied(_last_line(error)) from error
        except (errors.RayError, ConnectionError) as error:
            raise ClusterError(f"the Ray cluster at {self._address} is lost ({_last_line(error)})") from error


class _WorkerDied(Exception):
    """A worker died, alone or with its machine."""


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
