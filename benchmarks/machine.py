"""What a benchmark ran on, and what it took of it, as Linux tells."""

from __future__ import annotations

import platform
from pathlib import Path


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


def cpu_s(pid: int | None) -> float:
    """Seconds that cores have spent on the threads which another process has now; 0 of no process."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat") if pid else ()
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
