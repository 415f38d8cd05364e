"""Work done in other processes, which leave Ctrl-C to this one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from .errors import BytecoverError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_processes(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, chunksize: int
) -> Iterator[_Result]:
    """`function` of every item, in order, computed `chunksize` items at a time in `workers` processes.

    Raises
    ------
    BytecoverError
        If a process is killed.
    """
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        # The workers inherit the mask, else each would print a traceback of its own.
        unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            results = pool.map(function, items, chunksize=chunksize)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise BytecoverError("a worker process was killed, likely out of memory; use fewer workers") from error
