"""Audio files decoded in worker processes, a bounded number of waveforms at a time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
import time
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

from .audio import AudioWarning, load_audio, stream_audio
from .cores import usable_cores
from .errors import AudioError, UnreadableAudio
from .limits import open_regular
from .processes import ctrl_c_held_back
from .segments import Span

MAX_WORKERS = 8  # one session embeds no faster than so many decode
READINGS = 3  # of a file that changes while it is read
CLOCK_TICK_NS = 2_000_000_000  # the coarsest times that file systems keep, FAT's
_TELLING = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")

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


def mtime_ns(status: os.stat_result) -> int:
    """When a file was modified, in nanoseconds, as far as 64 bits reach: some clocks are centuries off."""
    return min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1)


def decode(path: Path, known: Sequence[str] = (), into: Path | None = None) -> Decoded:
    """The waveform of a file, unless the hash of its bytes is among `known`; both of the same bytes.

    With `into`, the waveform goes to that file, float32 without a header, and memory holds a block of it.

    Raises
    ------
    AudioError
        Whatever was wrong with the file.
    """
    try:
        for _ in range(READINGS):
            status, content_hash = _hash(path)
            if content_hash in known:
                return Decoded(content_hash, status.st_size, mtime_ns(status), None)
            try:
                waveform, warning = _load(path, into)
            except AudioError:
                if _is_as_before(path, status, content_hash):
                    raise
                continue
            if _is_as_before(path, status, content_hash):
                return Decoded(content_hash, status.st_size, mtime_ns(status), waveform, warning)
    except AudioError:
        raise
    except OSError as error:
        raise UnreadableAudio(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except MemoryError as error:
        raise UnreadableAudio(f"{path}: longer than this machine's memory holds; split it") from error
    except Exception as error:  # codecs raise what they like, and no file may cost the others
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableAudio(f"{path}: cannot be decoded ({reason}); convert it, or leave it out") from error
    raise UnreadableAudio(f"{path}: it changes while it is read; run again when it is whole")


def _hash(path: Path) -> tuple[os.stat_result, str]:
    """What the file is, and the hash of its bytes."""
    with open_regular(path) as file:
        return os.fstat(file.fileno()), hash_content(file)


def _load(path: Path, into: Path | None) -> tuple[NDArray[np.float32] | None, str]:
    """The waveform, or None where it is in `into`; and what is to be said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = None
        if into is None:
            waveform = load_audio(path)
        else:
            _write(path, into)
    told = (str(entry.message) for entry in caught if issubclass(entry.category, AudioWarning))
    return waveform, "; ".join(told)


def _is_as_before(path: Path, before: os.stat_result, content_hash: str) -> bool:
    """Whether a file is the one that was hashed, with the same bytes: others may have written it meanwhile."""
    now = os.stat(path)
    if any(getattr(now, name) != getattr(before, name) for name in _TELLING):
        return False
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) > CLOCK_TICK_NS:
        return True
    return _hash(path)[1] == content_hash  # written so lately that its times need not tell


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
