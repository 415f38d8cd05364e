"""Work done in other processes, which leave Ctrl-C and SIGTERM to this one and end with it."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any, TypeVar

from .errors import BytecoverError

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what ends this process, and goes to all of its group
LOOK_S = 1.0  # between two looks at whether the parent is still there
AGAIN_S = 0.1  # until an interruption that was lost comes again
REAP_S = 0.5  # for a process that was killed; one that waits for a disk that is gone never ends
_READY = "ready"  # a worker's first word
DELETIONS = 100  # tries to delete a folder into which others may be writing yet
_PROGRAM = """
import sys
sys.path[:] = {path}
from bytecover2_milvus.parallel import serve
from {module} import {name}
serve({name}, {fd}, {folder!r})
"""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerDied(Exception):
    """A worker died over what it was asked."""


class Worker:
    """A Python process that calls a function for this one, in the order in which it was asked.

    It is none of `multiprocessing`, whose processes import the script again that started them, which must be a file and
    must be written for it, and cannot be started from a pool's own.

    Parameters
    ----------
    function : callable
        Of a module, by its name.
    folder : Path
        Which the worker deletes if this process ends without having done so.

    Raises
    ------
    BytecoverError
        If no process can be started.
    """

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._is_ready = False
        with theirs:
            fd = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)  # below are stdin, stdout and stderr
        facts = {"module": function.__module__, "name": function.__name__, "folder": str(folder)}
        program = _PROGRAM.format(path=sys.path, fd=fd, **facts)
        python = [os.fsdecode(get_executable() or ""), "-X", f"utf8={sys.flags.utf8_mode}", "-c", program]
        try:
            with _endings_blocked():
                self._process = subprocess.Popen(
                    python,
                    pass_fds=[fd],
                    stdin=subprocess.PIPE,  # its end tells the worker of the end of this process
                    stdout=subprocess.DEVNULL,
                    stderr=None if _is_open(2) else subprocess.DEVNULL,
                )
        except OSError as error:
            self.connection.close()
            raise BytecoverError(f"no process can be started ({error.strerror}); set workers to 0") from error
        finally:
            os.close(fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, *args: Any) -> None:
        """Let it call its function with these."""
        with contextlib.suppress(OSError):  # it has died, which `answers` tells
            self.connection.send(args)

    def answers(self) -> Iterator[Any]:
        """The answers of the worker, the oldest first; waits if there is none yet.

        Raises
        ------
        WorkerDied
        BytecoverError
            If it died before it was asked anything: others would too.
        """
        while True:
            try:
                answer = self.connection.recv()
            except (EOFError, OSError) as error:
                if self._is_ready:
                    raise WorkerDied from error
                self.end()
                raise BytecoverError(
                    f"a worker process ended before it did anything (status {self._process.returncode}); set workers to"
                    " 0 to do without"
                ) from error
            if self._is_ready:
                yield answer
            self._is_ready = True
            if not self.connection.poll():
                return

    def end(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self.connection.close()
        if self._process.stdin:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)


def serve(function: Callable[..., Any], fd: int, folder: str) -> None:
    """Be a `Worker`: answer what comes through a socket until it ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and not select.select([0], [], [], LOOK_S)[0]:
            pass
        for _ in range(DELETIONS):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.01)
        os._exit(1)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    connection = Connection(fd)
    with contextlib.suppress(EOFError, OSError):
        connection.send(_READY)
        while True:
            connection.send(function(*connection.recv()))
    watching.join()  # the connection is closed because the other process has ended: its folder is to go first


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, which is to be short."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in handlers.items():
        if handler is not None and handler != signal.SIG_IGN:
            signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        for signal_number in came[:1]:
            signal.raise_signal(signal_number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, then this process, by themselves: its status says so.

    For a program of its own: a handler belongs to a whole process. Ranks of `torchrun` keep theirs, as one that waits
    for another one would not get to it. An interruption that comes where Python can raise nothing, as in a library's
    callback, would be lost; it comes again a moment later.
    """
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread() or "LOCAL_RANK" in os.environ:
        numbers = []
    came: list[int] = []
    main = threading.main_thread().ident or 0  # whatever it waits for is interrupted, too

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def again(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            number = came.pop() if came else signal.SIGINT
            threading.Timer(AGAIN_S, signal.pthread_kill, [main, number]).start()
        else:
            hook(unraisable)

    for number in numbers:
        signal.signal(number, interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        if came:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            signal.raise_signal(came[0])


def map_in_processes(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, chunksize: int
) -> Iterator[_Result]:
    """`function` of every item, in order, computed `chunksize` items at a time in `workers` processes.

    Raises
    ------
    BytecoverError
        If a process is killed.
    """
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        with _endings_blocked():
            results = pool.map(function, items, chunksize=chunksize)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise BytecoverError("a worker process was killed, likely out of memory; use fewer workers") from error
        except BaseException:  # the pool would wait for what they are at
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise


@contextmanager
def _endings_blocked() -> Iterator[None]:
    """Workers started here inherit that Ctrl-C does not reach them, else each would print a traceback of its own."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
