"""Grey images of 16 levels, as PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import TOP

LARGEST = 1024  # pixels a side: more than a screen shows of it


def png(levels: NDArray[np.uint8]) -> bytes:
    """A PNG (W3C, https://www.w3.org/TR/png) of levels (height, width) from 0, black, to 15, white."""
    height, width = levels.shape
    even = np.pad(levels, ((0, 0), (0, width % 2)))
    rows = np.pad(even[:, ::2] << 4 | even[:, 1::2], ((0, 0), (1, 0)))  # each after a 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)  # four bits of grey, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def shrunk(values: NDArray[np.generic]) -> tuple[NDArray[np.float32], int, int]:
    """Sums over blocks, at most `LARGEST` rows and columns of them, and how many rows and columns a block has.

    Blocks at the far edges may have fewer.
    """
    rows, columns = (-(-side // LARGEST) for side in values.shape)
    sums = np.add.reduceat(values, np.arange(0, values.shape[0], rows), axis=0, dtype=np.float32)
    return np.add.reduceat(sums, np.arange(0, values.shape[1], columns), axis=1), rows, columns


def of_chroma(levels: NDArray[np.uint8]) -> bytes:
    """PNG of twelve channels (n_frames, 12): time to the right, C at the bottom; several frames to a pixel if long."""
    sums, frames, _ = shrunk(levels)
    counts = np.full(len(sums), frames)
    counts[-1] = len(levels) - frames * (len(sums) - 1)
    return png(np.rint(sums / counts[:, None]).astype(np.uint8).T[::-1])


def of_recurrence(recurrence: NDArray[np.bool_]) -> bytes:
    """PNG of a recurrence matrix, rows downwards; where several cells share a pixel, a diagonal through it is white."""
    sums, rows, columns = shrunk(recurrence)
    return png(np.rint(TOP * np.minimum(sums / min(rows, columns), 1)).astype(np.uint8))
