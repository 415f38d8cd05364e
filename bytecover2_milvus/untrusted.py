"""Files that others made, read within bounds: regular files of a bounded size, JSON and arrays that are no bombs.

What is read here is checked again by its meaning where it is used; these functions see to it that reading ends, and
takes no more memory than the bound says.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What parsers, ours and others', raise over content that is damaged or made to harm.
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error),
)
TEXT_BYTES = 1 << 20  # of a file that a person or a program writes a few facts into
DEPTH = 100  # of JSON, one list or object within the other; metadata, which has at most 64, lies within a row
_SHOWN = 200  # characters of what somebody else wrote, in a message


def open_regular(path: str | Path, limit: int) -> BufferedReader:
    """The file at `path`, open for reading.

    Raises
    ------
    OSError
        If there is none, it cannot be read, it is a folder, a pipe or a device, which may never end, or it has more
        than `limit` bytes.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, at most {limit} are read", str(path))
    return open(path, "rb")


def read_bytes(path: str | Path, limit: int = TEXT_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises
    ------
    OSError
        As `open_regular`.
    """
    with open_regular(path, limit) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1)
    if len(content) > limit:  # it grew
        raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return content


def read_text(path: str | Path, limit: int = TEXT_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes.

    Raises
    ------
    OSError, UnicodeDecodeError
    """
    return read_bytes(path, limit).decode("utf-8")


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for.

    Raises
    ------
    ValueError
        If it is not JSON (NaN and infinity are not), holds a number that no double is near or that has thousands of
        digits, or nests lists and objects more than `DEPTH` deep.
    """
    try:
        value = json.loads(text, parse_constant=_not_a_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"nested more than {DEPTH} deep") from error
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Refuse lists and dicts that are nested more than `DEPTH` deep: what works on them is recursive.

    Raises
    ------
    ValueError
    """
    level = [value]
    for _ in range(DEPTH + 1):
        nested = [entry for entry in level if isinstance(entry, (list, dict))]
        level = [child for entry in nested for child in (entry.values() if isinstance(entry, dict) else entry)]
        if not level:
            return
    raise ValueError(f"nested more than {DEPTH} deep")


def read_npz(path: str | Path, limit: int) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, of at most `limit` bytes in all; pickles are refused.

    Raises
    ------
    DAMAGED
        Whatever zipfile and NumPy say, if it cannot be read, is no such file, or unpacks to more.
    """
    with open_regular(path, limit) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
            raise ValueError("packed by another method than NumPy's")
        return {entry.filename.removesuffix(".npy"): parse_npy(archive.read(entry)) for entry in entries}


def parse_npy(content: bytes) -> NDArray[Any]:
    """The array in the bytes of an ``.npy`` file, whose header is not believed before the bytes are counted.

    Raises
    ------
    DAMAGED
        Whatever NumPy says, if it is none, holds less than it says, or is a pickle.
    """
    import numpy as np

    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an .npy file of version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise ValueError(f"its header says {dtype} {shape}, its {len(content)} bytes do not hold that")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def shorten(text: object) -> str:
    """`text` in one line of at most some 200 characters, for a message about a file that may hold anything."""
    line = " ".join(str(text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{shorten(digits)} is beyond any double")
    return value
