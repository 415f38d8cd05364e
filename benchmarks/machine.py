"""The machine that a benchmark ran on, and the time and memory it took, as Linux reports them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

IDLE_S = 3.0

_Result = TypeVar("_Result")


def processor() -> str:
    """The processor's name, or what Python knows of it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def anonymous_bytes(pid: int | None = None) -> int:
    """Memory of a process, by default this one, that is not a copy of files; 0 where there is no ``/proc``."""
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


class Cores:
    """The time that cores spend on this process and, beyond what it takes when nobody asks, on a server.

    Parameters
    ----------
    server : int, optional
        Process id; it is watched for `IDLE_S` seconds in which nobody should ask.
    """

    def __init__(self, server: int | None = None) -> None:
        self._server = server
        self._idle = 0.0  # of a core
        if server is not None:
            before, start = self._threads_s(), time.perf_counter()
            time.sleep(IDLE_S)
            self._idle = self._server_s(before) / (time.perf_counter() - start)

    def timed(self, function: Callable[..., _Result], *arguments: Any) -> tuple[_Result, float, float]:
        """The result of a call, its seconds by the clock, and its seconds of a core."""
        before, here, start = self._threads_s(), time.process_time(), time.perf_counter()
        result = function(*arguments)
        wall, here = time.perf_counter() - start, time.process_time() - here
        return result, wall, here + self._server_s(before) - self._idle * wall

    def _server_s(self, before: dict[str, float]) -> float:
        """Since then, of the threads that the server has now: one that has ended takes all its time with it."""
        return sum(spent - before.get(thread, 0.0) for thread, spent in self._threads_s().items())

    def _threads_s(self) -> dict[str, float]:
        """Of each thread of the server."""
        spent: dict[str, float] = {}
        if self._server is not None:
            for thread in Path(f"/proc/{self._server}/task").glob("*/schedstat"):
                with suppress(OSError):  # it has ended meanwhile
                    spent[thread.parent.name] = int(thread.read_text().split()[0]) / 1e9
        return spent
