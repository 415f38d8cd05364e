"""Files that are whole or absent, never half written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError


def check_writable(path: Path) -> None:
    """Find out whether `atomic_write` can write `path`, before there is anything to write.

    Raises
    ------
    OutputError
        As `atomic_write`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _new_part(path).unlink()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends well, else it is deleted.

    Missing folders are made. Several processes may write the same file: the last one stays.

    Raises
    ------
    OutputError
        If the file cannot be written: permissions, a full disk, a file where a folder should be.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _new_part(path)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if part:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _new_part(path: Path) -> Path:
    """A new empty file beside `path`; nobody who may write there too can have put a link in its place."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return part
