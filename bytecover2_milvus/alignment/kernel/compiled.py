"""Functions compiled by Numba, with machine code on disk that is checked before it runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ...atomic import atomic_write

_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be called from compiled code."""
    return numba.njit(**_FLAGS)(function)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be called from Python; compiled at its first call, or taken from Numba's cache on disk.

    The cache is in ``NUMBA_CACHE_DIR``, beside the function's file, or in the user's cache folder, the first that is
    writable; where none is, each process compiles anew.

    Numba takes its files unseen, so damage would end the process, and compiles anew if the function's own file has
    changed, but not if another one has that it calls functions of. The digests of its files, and of all sources in the
    function's folder, lie beside them; where one differs, its files are deleted before use. It also mixes up the files
    of two processes that compile for different types at once, so one waits for the other.
    """
    try:
        compiled = numba.njit(cache=True, **_FLAGS)(function)
    except RuntimeError:  # Numba found no folder to write to
        return numba.njit(**_FLAGS)(function)
    source, folder = Path(function.__code__.co_filename), Path(compiled.stats.cache_path)
    digests, lock = (folder / f"{source.stem}.{function.__name__}.{suffix}" for suffix in ("sha256.json", "lock"))

    def machine_code() -> list[Path]:
        return sorted(folder.glob(f"{source.stem}.{function.__name__}-*.nb[ic]"))

    def found() -> dict[str, str]:
        files = [*sorted(source.parent.glob("*.py")), *machine_code()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def load_or_compile(arguments: tuple[object, ...]) -> None:
        with _locked(lock):
            misses = sum(compiled.stats.cache_misses.values())
            compiled.compile(tuple(map(numba.typeof, arguments)))
            if sum(compiled.stats.cache_misses.values()) > misses:
                with suppress(OSError), atomic_write(digests) as part:
                    part.write_text(json.dumps(found()), encoding="utf-8")

    with suppress(OSError), _locked(lock):
        try:
            known = json.loads(digests.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if found() != known:
            for path in machine_code():
                path.unlink(missing_ok=True)
    ready: set[tuple[object, ...]] = set()

    def call(*arguments: object) -> object:
        kinds = tuple(_kind(argument) for argument in arguments)
        if kinds not in ready:
            load_or_compile(arguments)
            ready.add(kinds)
        return compiled(*arguments)

    return call


def _kind(argument: object) -> object:
    """A value that is the same for arguments of one type to Numba, whose own `typeof` takes 6 microseconds."""
    return (argument.dtype, argument.ndim, argument.flags.num) if isinstance(argument, np.ndarray) else type(argument)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No other process is in such a block of the same path; where the file cannot be written, there is no lock."""
    with ExitStack() as held:
        with suppress(OSError):
            file = held.enter_context(path.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield
