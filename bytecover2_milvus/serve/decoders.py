"""Worker processes that decode what clients send: one that hangs or dies takes nothing else with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from ..audio.decode_pool import load_into
from ..audio.limits import Limits
from ..errors import AudioError, BytecoverError, UnreadableAudio
from ..parallel import Worker, WorkerDied


class TooSlow(Exception):
    """A recording was not decoded in time, and its decoder was killed."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A recording as its decoder gave it."""

    waveform: NDArray[np.float32]  # (n_samples,), mapped from a file that is gone when nobody uses it any more
    warning: str  # of damaged audio; "" where there is none


class Decoders:
    """Processes that decode one file each, for as many threads.

    Parameters
    ----------
    n : int
        Processes.
    folder : Path
        For the waveforms on their way; the processes delete it if this one ends without having done so.
    """

    def __init__(self, n: int, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._ended = False
        self._all: set[Worker] = set()
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()  # None for one to be started
        for _ in range(n):
            self._idle.put(self._start())

    def decode(self, path: Path, limits: Limits, deadline: float) -> Loaded:
        """The waveform of a file.

        Parameters
        ----------
        path : Path
        limits : Limits
        deadline : float
            Of `time.monotonic`; what is not decoded by then never will be.

        Raises
        ------
        AudioError
            As `load_audio`, or if the process died over it.
        TooSlow
        """
        file = self._folder / f"{next(self._numbers)}.f32"
        try:
            try:
                decoded = self._decode(file, path, limits, deadline)
            except WorkerDied:  # once more: it may have died of what others did
                decoded = self._decode(file, path, limits, deadline)
        except WorkerDied as error:
            reason = "its decoder died, out of memory or through a fault of the codec"
            raise UnreadableAudio(f"{path}: {reason}; convert it") from error
        else:
            if isinstance(decoded, AudioError):
                raise decoded
            return Loaded(np.memmap(file, dtype=np.float32, mode="r"), decoded)
        finally:
            file.unlink(missing_ok=True)  # a waveform that is mapped stays for as long as it is

    def end(self) -> None:
        """End all of them at once, whatever they do, and start no more."""
        self._ended = True
        for worker in list(self._all):
            worker.end()

    def _decode(self, file: Path, path: Path, limits: Limits, deadline: float) -> str | AudioError:
        """The answer of a process, which is replaced if it gives none."""
        worker = self._idle.get()
        fit = False
        try:
            worker = worker or self._start()
            worker.ask(file, path, limits)
            decoded = self._answer(worker, deadline)
            fit = True
        finally:
            self._idle.put(worker if fit else self._replaced(worker))
        return decoded

    def _answer(self, worker: Worker, deadline: float) -> str | AudioError:
        while True:
            if not worker.connection.poll(max(0.0, deadline - time.monotonic())):
                raise TooSlow
            try:
                for answer in worker.answers():  # none where it has only said that it is ready
                    decoded: str | AudioError = answer
                    return decoded
            except BytecoverError as error:  # it died before it was ready
                raise WorkerDied from error

    def _start(self) -> Worker:
        worker = Worker(load_into, self._folder)
        self._all.add(worker)
        return worker

    def _replaced(self, worker: Worker | None) -> Worker | None:
        """Another one, started now so that the next recording need not wait for it; None where that is not possible."""
        if worker is not None:
            worker.end()
            self._all.discard(worker)
        if self._ended:
            return None
        try:
            return self._start()
        except BytecoverError:
            return None
