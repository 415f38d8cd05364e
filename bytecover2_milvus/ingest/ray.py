"""Decoding and embedding on the machines of a Ray cluster; storing stays with the process that asked.

A *worker* is a Ray actor with one session: it is sent a path, reads the file, and sends back embeddings, half a
kilobyte per part, and about 5 kB of chroma. Waveforms stay where they were decoded, and nothing goes through Ray's
object store. Files, and a bundle that is named, are read under the same path on every machine; this package has to be
installed on all.

A worker that dies, alone or with its machine, is replaced as soon as the cluster has room, and what it had not sent
goes to the others. A file over which `DEATHS` workers died is given up. These are actors and not Ray Data because that
hands results on in blocks of many files, which are lost together, and retries a file that kills its worker for ever.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import signal
import socket
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ..alignment.verdict import Verdict
from ..audio.decode_pool import Decoded, decode
from ..audio.limits import Limits
from ..audio.segments import Segments, Span
from ..cpu import usable_cores
from ..embedding.bundle import default_bundle, open_bundle
from ..embedding.embedder import DEVICES, Embedder
from ..errors import AudioError, BytecoverError, ChromaError, ClusterError, DeviceError, UnreadableAudio
from ..extras import why_not_imported
from ..milvus.properties import EmbeddingModel
from ..milvus.schema import Features
from .listing import ListedTrack
from .reader import hear

LOCAL = "local"  # the address of a cluster of this machine alone, which ends with the run
AHEAD = 2  # files that a worker has: one under way, and one that waits so that it need not
DEATHS = 3  # of workers over one file; a machine that goes takes a worker from files that are innocent
PATIENCE_S = 300.0  # without any worker; an autoscaler takes minutes to bring a machine
KNOCK_S = 10.0  # for the connection to an address
LOOPBACK = "127.0.0.1"
OBJECT_STORE = 80 << 20  # bytes, of a local cluster: about the least that Ray takes


@dataclass(frozen=True)
class _Embedded(Decoded):
    """A file as a worker read it: without the waveform, with what that gave."""

    features: Mapping[Span, Features] | BytecoverError = field(default_factory=dict)  # of spans that are not stored


class Worker:
    """One session on one machine of the cluster; lives in an actor."""

    def start(self, bundle: Path | None, device: str, model: str, folder: str) -> None:
        """Open the session; relative paths are relative to `folder`.

        Raises
        ------
        BytecoverError
            If this machine lacks the bundle or the device, or has another model.
        """
        with suppress(OSError):  # then relative paths fail, each with its name
            os.chdir(folder)
        try:
            self._embedder = Embedder(bundle, device, threads=1)
        except BytecoverError as error:
            raise type(error)(f"on {platform.node()}: {error}") from error
        if (own := _model(self._embedder)) != model:
            raise ClusterError(
                f"on {platform.node()}: model {own}, not {model}; install the same"
                " bytecover2-milvus on every machine, or name a --bundle that all can read"
            )

    def read(
        self,
        path: Path,
        known: Sequence[str],
        stored: Mapping[str, Sequence[Span]],
        segments: Segments,
        limits: Limits | None,
    ) -> _Embedded | AudioError:
        """Decode a file, unless its content is `known`, and embed what is not `stored` of it."""
        try:
            decoded = decode(path, known, limits=limits)
        except AudioError as error:
            return error
        facts = {entry.name: getattr(decoded, entry.name) for entry in fields(decoded)} | {"waveform": None}
        if decoded.waveform is None:
            return _Embedded(**facts)
        spans = segments.audible_spans(decoded.waveform)
        missing = [span for span in spans if span not in set(stored.get(decoded.content_hash, ()))]
        features: Mapping[Span, Features] | BytecoverError
        try:
            features = dict(zip(missing, hear(self._embedder, decoded.waveform, missing), strict=True))
        except (AudioError, ChromaError, DeviceError) as error:
            features = error
        return _Embedded(**(facts | {"spans": spans}), features=features)


@dataclass(eq=False)
class _Started:
    """A worker that has its session, and the answers that it owes, the oldest first."""

    actor: Any
    owes: deque[tuple[Any, ListedTrack]] = field(default_factory=deque)  # reference to the answer, track


class Cluster:
    """A Ray cluster that decodes and embeds, for `ingest`; leave its ``with`` block to end its workers.

    A file that is stored under another name is embedded in vain, because that is found out only afterwards.

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
        self._ray = _connected(address, workers)
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
        assert isinstance(decoded, _Embedded)
        if isinstance(decoded.features, BytecoverError):
            raise decoded.features
        return [decoded.features[span] for span in spans]

    def _hand_out(self, todo: deque[ListedTrack], segments: Segments) -> None:
        """Give each worker enough to do, those first that have least."""
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
        self._starting[actor.start.remote(self._bundle, self._device, _model(self), os.getcwd())] = actor

    def _take_in(self, ref: Any) -> None:
        """Count a worker among the started. One that died instead is not replaced, lest that go on for ever."""
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


def _model(model: EmbeddingModel) -> str:
    """The model in words."""
    return f"{model.model_id} with note map {model.chroma_id}" if model.chroma_id else model.model_id


def _connected(address: str, workers: int | None) -> ModuleType:
    """The module `ray`, connected."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # it tells of deaths on stdout, where the records go
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(why_not_imported(error, "ray")) from error

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": workers or usable_cores(), "object_store_memory": OBJECT_STORE}
        options |= {"include_dashboard": False}
    try:
        _probe(address)
        with _sigterm_kept(), _private() if address == LOCAL else nullcontext():
            ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:  # nobody, other versions, no token
        raise ClusterError(f"no Ray cluster to be used at {address} ({' '.join(str(error).split())})") from error
    return ray


@contextmanager
def _private() -> Iterator[None]:
    """A cluster that is started here is for this user of this machine: nothing of it listens to others.

    Ray listens everywhere unless its address is 127.0.0.1, which it takes only where it supports no clusters, and
    writes its token to ``~/.ray/auth_token`` for whoever may read that.
    """
    import ray
    from ray._private import ray_constants

    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        token.chmod(0o600)
    supported, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    mask = os.umask(0o077)
    try:
        yield
        own = ray.util.get_node_ip_address()
        if own != LOOPBACK:
            ray.shutdown()
            raise RuntimeError(f"it would listen at {own}, where others reach it; start a cluster with ray start")
    finally:
        os.umask(mask)
        ray_constants.ENABLE_RAY_CLUSTER = supported


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Whoever handles SIGTERM goes on to: Ray would end this process in its own way."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _probe(address: str) -> None:
    """Fail at once where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
