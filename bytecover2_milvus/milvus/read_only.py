"""Embedded folders that may not be written, such as a share that is mounted read-only.

Milvus Lite writes wherever it opens a folder: a lock, a log, what it recovers. So it is given a stand-in, a temporary
folder with links to the files of vectors and rows, which it never writes again, and copies of the small ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import CollectionError, CollectionLocked

LOCK = "LOCK"  # of Milvus Lite, in its folder
_DATA = (".parquet", ".idx")  # suffixes of files that are written once


def is_read_only(folder: Path) -> bool:
    """True if an embedded folder is there and this user may not write it."""
    return folder.is_dir() and not all(os.access(path, os.W_OK) for path in (folder, folder / LOCK) if path.exists())


@contextmanager
def stand_in(folder: Path) -> Iterator[Path]:
    """A temporary folder of the same content, to be opened instead; what is written there is lost at the end.

    Until then who would write the real one on this machine is kept out, as by every open folder; others may read it.

    Raises
    ------
    CollectionLocked
        If a process has the folder open that may write it.
    CollectionError
        If it cannot be read, or there is no room.
    """
    import fcntl

    with ExitStack() as stack:
        try:
            lock = stack.enter_context(open(folder / LOCK, "rb"))
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            there = Path(stack.enter_context(TemporaryDirectory(prefix="bytecover2-"))) / folder.name
            shutil.copytree(folder, there, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(LOCK))
            for copied in (there, *there.rglob("*")):
                if copied.is_dir():
                    copied.chmod(0o700)
        except BlockingIOError as error:
            raise CollectionLocked(f"{folder}: open in another process, which may write it; wait for it") from error
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise CollectionError(
                f"{folder}: read-only, and no temporary copy of it can be made ({reason}); copy it yourself"
            ) from error
        yield there


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(_DATA):
        os.symlink(os.path.abspath(source), target)
    else:
        shutil.copyfile(source, target)  # without its permissions, which are none to write
