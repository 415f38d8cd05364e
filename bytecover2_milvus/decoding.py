"""Audio files decoded in worker processes, a bounded number of waveforms at a time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .audio import TruncatedAudio, load_audio, stream_audio
from .cores import usable_cores
from .errors import AudioError, UnreadableAudio
from .processes import ctrl_c_held_back
from .segments import Span

MAX_WORKERS = 8  # one session embeds no faster than so many decode

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Decoded:
    """What a file held when it was read."""

    content_hash: str  # SHA-256 of its bytes, hexadecimal
    size: int  # bytes
    mtime_ns: int
    waveform: NDArray[np.float32] | None  # (n_samples,); None where the content was known already, or is in a file
    warning: str = ""


@dataclass(frozen=True)
class Job(Generic[_Key]):
    """A file to decode unless its content is one of those `known`."""

    key: _Key
    path: Path
    known: Sequence[str] = ()  # content hashes
    stored: Mapping[str, Sequence[Span]] = field(default_factory=dict)  # by content hash: what is embedded already


def hash_content(file: BinaryIO) -> str:
    """SHA-256 of the bytes of an open file, hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def decode(path: Path, known: Sequence[str] = (), into: Path | None = None) -> Decoded:
    """The waveform of a file, unless the hash of its bytes is among `known`.

    With `into`, the waveform goes to that file, float32 without a header, and memory holds a block of it.

    Raises
    ------
    AudioError
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content_hash = hash_content(file)
        if content_hash in known:
            return Decoded(content_hash, status.st_size, status.st_mtime_ns, None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            waveform = None
            if into is None:
                waveform = load_audio(path)
            else:
                _write(path, into)
    except OSError as error:
        raise UnreadableAudio(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except MemoryError as error:
        raise UnreadableAudio(f"{path}: longer than this machine's memory holds; split it") from error
    warning = "; ".join(str(entry.message) for entry in caught if issubclass(entry.category, TruncatedAudio))
    return Decoded(content_hash, status.st_size, status.st_mtime_ns, waveform, warning)


class Decoder:
    """A pool of processes that decode; leave its ``with`` block to end them.

    Parameters
    ----------
    workers : int, optional
        Processes; 0 decodes in this one. By default one per core, at most `MAX_WORKERS`: decoding takes several times
        as long as embedding, so the cores share both.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = min(MAX_WORKERS, usable_cores()) if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None
        # A worker that is killed while it sends megabytes would leave this process waiting for the rest of them, so
        # waveforms come in files and only a few bytes through the pool.
        self._folder: TemporaryDirectory[str] | None = None
        self._files: dict[Future[Decoded | AudioError], Path] = {}
        self._numbers = count()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_pool()
        if self._folder is not None:
            self._folder.cleanup()

    def decode(self, jobs: Iterable[Job[_Key]]) -> Iterator[tuple[_Key, Decoded | AudioError]]:
        """What each file held, or why it could not be read, in the order in which they are done.

        At most two waveforms per worker wait to be taken. When a worker dies, so does the pool: what was under way is
        decoded again, one file at a time, until the one that kills its worker is found.
        """
        if self._workers == 0:
            yield from ((job.key, _decode(job.path, job.known)) for job in jobs)
            return
        waiting = iter(jobs)
        suspects: deque[Job[_Key]] = deque()
        running: dict[Future[Decoded | AudioError], Job[_Key]] = {}
        while True:
            if not suspects:
                while len(running) < 2 * self._workers and (job := next(waiting, None)):
                    running[self._submit(job)] = job
            elif not running:
                job = suspects.popleft()
                running[self._submit(job)] = job  # with nothing beside it that it could take along
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                done, _ = wait(running)
            killed = []
            for future in done:
                job = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    del self._files[future]
                    killed.append(job)
                else:
                    yield job.key, self._take(future)
            if len(killed) == 1:
                reason = "its decoder died, out of memory or through a fault of the codec; convert or leave it out"
                yield killed[0].key, UnreadableAudio(f"{killed[0].path}: {reason}")
            else:
                suspects.extend(killed)

    def _submit(self, job: Job[_Key]) -> Future[Decoded | AudioError]:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="bytecover2-")
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # a forked copy of a gRPC client hangs
            self._pool = ProcessPoolExecutor(
                self._workers, spawn, initializer=_end_with_parent, initargs=(self._folder.name,)
            )
        file = Path(self._folder.name) / f"{next(self._numbers)}.f32"
        try:
            with ctrl_c_held_back():  # by the workers too, which inherit it: this process ends them
                future = self._pool.submit(_decode_into, file, job.path, job.known)
        except BrokenProcessPool:  # dead, and not of this job
            self._end_pool()
            return self._submit(job)
        self._files[future] = file
        return future

    def _take(self, future: Future[Decoded | AudioError]) -> Decoded | AudioError:
        """The result of a worker, its waveform mapped from the file, which goes when nothing uses it any more."""
        file, decoded = self._files.pop(future), future.result()
        if isinstance(decoded, AudioError) or not file.exists():
            return decoded
        waveform = np.memmap(file, dtype=np.float32, mode="r")
        file.unlink()
        return replace(decoded, waveform=waveform)

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _end_with_parent(folder: str) -> None:
    """A parent that is killed can neither end its workers nor delete its waveforms, so each worker watches for it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_into(file: Path, path: Path, known: Sequence[str]) -> Decoded | AudioError:
    """As `_decode`, with the waveform in `file`, which is not there where there is none."""
    decoded = _decode(path, known, file)
    if isinstance(decoded, AudioError):
        file.unlink(missing_ok=True)
    return decoded


def _decode(path: Path, known: Sequence[str], into: Path | None = None) -> Decoded | AudioError:
    try:
        return decode(path, known, into)
    except AudioError as error:
        return error


def _write(path: Path, into: Path) -> None:
    try:
        with into.open("wb") as file:
            for block in stream_audio(path):
                file.write(block.data)
    except OSError as error:  # of writing: what reading raises is an AudioError
        raise UnreadableAudio(
            f"{path}: no room for its waveform in {into.parent} ({error.strerror or error}); make room, or set TMPDIR"
        ) from error
