"""Audio files decoded in worker processes, a bounded number of waveforms at a time."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedIOBase
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..cpu import usable_cores
from ..errors import AudioError, UnreadableAudio
from ..parallel import Worker, WorkerDied, uninterrupted
from .ffmpeg import FfmpegReader
from .limits import Limits, open_regular
from .load import AudioWarning, load_audio, stream_audio
from .segments import Span
from .tags import Tags, read_tags

MAX_WORKERS = 8  # one session embeds no faster than so many decode
AHEAD = 2  # files for each worker that are taken and not yet given back: one under way, and one that waits
READINGS = 3  # of a file that changes while it is read
CLOCK_TICK_NS = 2_000_000_000  # the coarsest times that file systems keep, FAT's
_TOO_LONG = "longer than this machine's memory holds; split it"
_TELLING = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class FileToDecode(Protocol):
    """A file to decode, unless its content is known."""

    @property
    def path(self) -> Path: ...

    @property
    def known(self) -> Sequence[str]:
        """Hashes of contents or of their audio: a file that has one of them is not decoded."""
        ...

    @property
    def limits(self) -> Limits | None: ...


_File = TypeVar("_File", bound=FileToDecode)


@dataclass(frozen=True)
class Decoded:
    """The waveform of a file and the facts of the file when it was read."""

    content_hash: str  # SHA-256 of its bytes, hexadecimal
    size: int  # bytes
    mtime_ns: int
    waveform: NDArray[np.float32] | None  # (n_samples,); None where the content was known already, or it is elsewhere
    warning: str = ""
    spans: Sequence[Span] = ()  # of an ingest: the whole, then the segments that are not silent; none of known content
    audio_hash: str = ""  # of its audio without tags, as `FfmpegReader.hash_packets`; "" where the content was known
    tags: Tags = field(default_factory=Tags)


def hash_content(file: BufferedIOBase) -> str:
    """SHA-256 of the bytes of an open file, hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def mtime_ns(status: os.stat_result) -> int:
    """The time a file was modified, in nanoseconds, as far as 64 bits reach: some clocks are centuries off."""
    return min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1)


def decode(path: Path, known: Sequence[str] = (), into: Path | None = None, limits: Limits | None = None) -> Decoded:
    """The waveform of a file, unless the hash of its bytes or of its audio is among `known`; all of the same bytes.

    With `into`, the waveform goes to that file, float32 without a header, and memory holds a block of it. `limits` are
    as of `load_audio`.

    Raises
    ------
    AudioError
        Whatever was wrong with the file.
    """
    try:
        for _ in range(READINGS):
            status, content_hash = _hash(path, limits)
            tags = read_tags(path, limits)
            decoded = Decoded(content_hash, status.st_size, mtime_ns(status), None, tags=tags)
            if content_hash in known:
                return decoded
            try:
                audio_hash = FfmpegReader(path).hash_packets()
                waveform, warning = (None, "") if audio_hash in known else _load(path, into, limits)
            except AudioError:
                if _is_as_before(path, status, content_hash, limits):
                    raise
                continue
            if _is_as_before(path, status, content_hash, limits):
                return replace(decoded, waveform=waveform, warning=warning, audio_hash=audio_hash)
    except AudioError:
        raise
    except OSError as error:
        raise UnreadableAudio(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except MemoryError as error:
        raise UnreadableAudio(f"{path}: {_TOO_LONG}") from error
    raise UnreadableAudio(f"{path}: it changes while it is read; run again when it is whole")


def load_into(file: Path, path: Path, limits: Limits | None = None) -> str | AudioError:
    """The warning of a recording, "" where there is none, whose waveform is now in `file`, float32 without a header.

    An error is returned, and then `file` is not there. Other than `decode`, it does not look whether others write to
    the recording meanwhile.
    """
    try:
        return _load(path, file, limits)[1]
    except (AudioError, MemoryError) as error:
        file.unlink(missing_ok=True)
        return error if isinstance(error, AudioError) else UnreadableAudio(f"{path}: {_TOO_LONG}")


def _hash(path: Path, limits: Limits | None) -> tuple[os.stat_result, str]:
    """The status of the file, and the hash of its bytes."""
    with open_regular(path, limits) as file:
        return os.fstat(file.fileno()), hash_content(file)


def _load(path: Path, into: Path | None, limits: Limits | None) -> tuple[NDArray[np.float32] | None, str]:
    """The waveform, or None where it is in `into`; and what is to be said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = None
        if into is None:
            waveform = load_audio(path, limits)
        else:
            _write(path, into, limits)
    told = (str(entry.message) for entry in caught if issubclass(entry.category, AudioWarning))
    return waveform, "; ".join(told)


def _is_as_before(path: Path, before: os.stat_result, content_hash: str, limits: Limits | None) -> bool:
    """True if a file is the one that was hashed, with the same bytes: others may have written it meanwhile."""
    now = os.stat(path)
    if any(getattr(now, name) != getattr(before, name) for name in _TELLING):
        return False
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) > CLOCK_TICK_NS:
        return True
    return _hash(path, limits)[1] == content_hash  # written so lately that its times need not tell


@dataclass(eq=False)
class _Task(Generic[_File]):
    """A file that was taken, and its result as soon as there is one."""

    file: _File
    result: Decoded | AudioError | None = None


@dataclass(eq=False)
class _Started:
    """A worker, and what it has to do, the oldest first: tasks and the files for their waveforms."""

    worker: Worker
    pending: deque[tuple[_Task[Any], Path]] = field(default_factory=deque)


class Decoder:
    """Processes that decode; leave its ``with`` block to end them.

    Parameters
    ----------
    workers : int, optional
        Processes; 0 decodes in this one. By default one per core, at most `MAX_WORKERS`: decoding takes several times
        as long as embedding, so the cores share both.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._n_workers = min(MAX_WORKERS, usable_cores()) if workers is None else workers
        self._started: list[_Started] = []
        # A worker that is killed while it sends megabytes would leave this process waiting for the rest of them, so
        # waveforms come in files and only a few bytes through the connection.
        self._folder: TemporaryDirectory[str] | None = None
        self._numbers = count()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with uninterrupted():
            for started in self._started:
                started.worker.end()
            self._started = []
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def read(self, files: Iterable[_File]) -> Iterator[tuple[_File, Decoded | AudioError]]:
        """Each file decoded, or the error that it gave, in the order of the files.

        At most two waveforms per worker wait to be taken. A file over which a worker dies is decoded once more, when
        nothing else is, and comes last: where memory was short, it may not have been that file's fault.

        Raises
        ------
        BytecoverError
            If no worker can be started.
        """
        if self._n_workers == 0:
            yield from ((file, _decode_into(None, file.path, file.known, file.limits)) for file in files)
            return
        if any(started.pending for started in self._started):  # of a run that was abandoned
            self.__exit__(None, None, None)
        tasks = map(_Task[_File], files)
        taken, again, suspects = deque[_Task[_File]](), deque[_Task[_File]](), deque[_Task[_File]]()
        suspect: _Task[_File] | None = None
        while True:
            while again:
                self._submit(again.popleft())
            while len(taken) < AHEAD * self._n_workers and (task := next(tasks, None)):
                taken.append(task)
                self._submit(task)
            if not taken:
                if not suspects:
                    return
                suspect = suspects.popleft()
                taken.append(suspect)
                self._submit(suspect)
            owing = {started.worker.connection: started for started in self._started if started.pending}
            for connection in wait(list(owing)):
                assert isinstance(connection, Connection)
                started = owing[connection]
                try:
                    for answer in started.worker.answers():
                        task, into = started.pending.popleft()
                        task.result = self._take(answer, into)
                except WorkerDied:
                    (task, into), *others = started.pending
                    self._started.remove(started)
                    started.worker.end()
                    into.unlink(missing_ok=True)
                    again.extend(task for task, _ in others)
                    if task is suspect:
                        reason = "its decoder died, out of memory or through a fault of the codec"
                        task.result = UnreadableAudio(f"{task.file.path}: {reason}; convert or leave it out")
                    else:
                        taken.remove(task)
                        suspects.append(task)
            while taken and (result := taken[0].result) is not None:
                yield taken.popleft().file, result

    def _submit(self, task: _Task[Any]) -> None:
        """Give a task to the worker that has least to do."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="bytecover2-")
        folder = Path(self._folder.name)
        idle = [started for started in self._started if not started.pending]
        if not idle and len(self._started) < self._n_workers:
            idle = [_Started(Worker(_decode_into, folder))]
            self._started += idle
        started = min(idle or self._started, key=lambda started: len(started.pending))
        into = folder / f"{next(self._numbers)}.f32"
        started.pending.append((task, into))
        started.worker.ask(into, task.file.path, task.file.known, task.file.limits)

    def _take(self, decoded: Decoded | AudioError, into: Path) -> Decoded | AudioError:
        """The answer of a worker, its waveform mapped from the file, which goes when nothing uses it any more."""
        if isinstance(decoded, AudioError) or not into.exists():
            return decoded
        waveform = np.memmap(into, dtype=np.float32, mode="r")
        into.unlink()
        return replace(decoded, waveform=waveform)


def _decode_into(file: Path | None, path: Path, known: Sequence[str], limits: Limits | None) -> Decoded | AudioError:
    """The result of `decode`, its waveform in `file` if one is given; an error is returned, and leaves no `file`."""
    try:
        return decode(path, known, file, limits)
    except AudioError as error:
        if file is not None:
            file.unlink(missing_ok=True)
        return error


def _write(path: Path, into: Path, limits: Limits | None) -> None:
    try:
        with into.open("wb") as file:
            for block in stream_audio(path, limits):
                file.write(block.data)
    except OSError as error:  # of writing: what reading raises is an AudioError
        raise UnreadableAudio(
            f"{path}: no room for its waveform in {into.parent} ({error.strerror or error}); make room, or set TMPDIR"
        ) from error
