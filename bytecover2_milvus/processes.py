"""Work done in other processes, which leave Ctrl-C to this one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from .errors import BytecoverError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Workers started here inherit that Ctrl-C does not reach them, else each would print a traceback of its own."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


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
        with ctrl_c_held_back():
            results = pool.map(function, items, chunksize=chunksize)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise BytecoverError("a worker process was killed, likely out of memory; use fewer workers") from error
