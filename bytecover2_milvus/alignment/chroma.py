"""Chroma sequences: folded from a map of notes, on a grid of 16 levels, packed into half a byte per value.

A chroma sequence is an array (n_frames, 12 x groups) in [0, 1]. Each group of twelve channels, C to B, is a view of the
same music, for instance all notes and the tune. On the grid it is uint8 with the levels 0 to 15; that is what
collections store and what is aligned.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ChromaError

PITCH_CLASSES = 12
TOP = 15  # the highest level: four bits
CENTRE_BIN = 45.0  # semitones above the lowest bin, C1: A4
WIDTH_BINS = 18.0  # standard deviation
STORED_FRAMES = 2_900  # 22 minutes: of 36 channels, what fits a text field of Milvus even if nothing compresses
_CHECKSUM_BYTES = 4
_NO_DIGIT = 85
_DIGITS = np.full(256, _NO_DIGIT, dtype=np.uint8)  # by character of base 85
_DIGITS[[base64.b85encode(bytes([0, 0, 0, digit]))[-1] for digit in range(85)]] = np.arange(85)


def fold(
    notes: NDArray[np.floating], centre: float = CENTRE_BIN, width: float = WIDTH_BINS
) -> NDArray[np.float32]:  # (n_frames, 12)
    """Chroma of a map of notes: weighted by a Gaussian over pitch, summed over octaves, each frame over its maximum.

    Parameters
    ----------
    notes : np.ndarray [shape=(n_bins, n_frames)]
        Strength of each semitone, not negative, the lowest bin a C; whole octaves.
    centre, width : float
        Mean and standard deviation of the weight, in bins.

    Returns
    -------
    chroma : np.ndarray [shape=(n_frames, 12)] of float32
        In [0, 1]; a frame without notes is all 0.

    Raises
    ------
    ChromaError
        If the bins are no whole octaves, or a strength is negative or not finite.
    """
    notes = np.asarray(notes, dtype=np.float32)
    if notes.ndim != 2 or notes.shape[0] % PITCH_CLASSES:
        raise ChromaError(f"a map of notes of shape {notes.shape}: (bins, frames) in whole octaves of 12 bins needed")
    if not np.isfinite(notes).all() or (notes < 0).any():
        raise ChromaError("a map of notes with values that are negative or not finite")
    bins = np.arange(len(notes), dtype=np.float32)
    weight = np.exp(-0.5 * ((bins - centre) / width) ** 2)
    octaves = (notes * weight[:, None]).reshape(-1, PITCH_CLASSES, notes.shape[1])
    chroma = octaves.sum(axis=0).T  # (n_frames, 12)
    loudest = chroma.max(axis=1, keepdims=True)
    return np.divide(chroma, loudest, out=np.zeros_like(chroma), where=loudest > 0)


def to_levels(chroma: NDArray[Any], name: str = "chroma") -> NDArray[np.uint8]:
    """Chroma on the grid of 16 levels; of what is on it already (uint8), a checked copy.

    Parameters
    ----------
    chroma : np.ndarray [shape=(n_frames, 12 * groups)]
        In [0, 1], or uint8 levels.
    name : str
        Of the track, for the message.

    Returns
    -------
    levels : np.ndarray [shape=(n_frames, 12 * groups)] of uint8

    Raises
    ------
    ChromaError
        If the shape is another, or a value is NaN or out of range.
    """
    chroma = np.asarray(chroma)
    if chroma.ndim != 2 or chroma.shape[1] == 0 or chroma.shape[1] % PITCH_CLASSES:
        raise ChromaError(f"{name}: chroma of shape {chroma.shape}; (frames, a multiple of 12 channels) needed")
    if chroma.dtype == np.uint8:
        if chroma.size and chroma.max() > TOP:
            raise ChromaError(f"{name}: a chroma level of {chroma.max()}; the highest is {TOP}")
        return np.array(chroma, order="C")  # writable, too: compiled code tells read-only arrays apart
    if not ((chroma >= 0) & (chroma <= 1)).all():  # NaN is neither
        raise ChromaError(f"{name}: chroma holds NaN or values outside [0, 1]; embed the track again")
    return np.rint(chroma * TOP).astype(np.uint8)


def packed_bytes(n_frames: int, channels: int) -> int:
    """Bytes of a packed sequence, half a byte per value: 6 240 for four minutes (520 frames) of 24 channels."""
    return n_frames * channels // 2


def pack(levels: NDArray[np.uint8]) -> bytes:
    """Levels as bytes, frame after frame, the even channel of two in the lower half; no header.

    Parameters
    ----------
    levels : np.ndarray [shape=(n_frames, 12 * groups)] of uint8
        From 0 to 15, as `to_levels` gives them.
    """
    levels = to_levels(levels)
    return (levels[:, ::2] | levels[:, 1::2] << 4).tobytes()


def unpack(data: bytes, n_frames: int, channels: int, track_id: str) -> NDArray[np.uint8]:
    """The levels (n_frames, channels) that `pack` packed.

    Raises
    ------
    ChromaError
        If the bytes are too few or too many: the message names the track.
    """
    expected = packed_bytes(n_frames, channels)
    if len(data) != expected:
        raise ChromaError(
            f"{track_id}: {len(data)} bytes of chroma, where {n_frames} frames of {channels} channels take {expected};"
            " the row is damaged: ingest the track again"
        )
    pairs = np.frombuffer(data, dtype=np.uint8).reshape(n_frames, channels // 2)
    levels = np.empty((n_frames, channels), dtype=np.uint8)
    levels[:, ::2] = pairs & TOP
    levels[:, 1::2] = pairs >> 4
    return levels


def encode(levels: NDArray[np.uint8]) -> str:
    """Levels as a text for a field of a collection, of the first `STORED_FRAMES`.

    They are packed and deflated; CRC-32 of the packed bytes goes before (Adler-32, which zlib would add, misses some
    changes of one character), and base 85 makes text of both.

    Parameters
    ----------
    levels : np.ndarray [shape=(n_frames, 12 * groups)] of uint8
        From 0 to 15, as `to_levels` gives them.

    Returns
    -------
    text : str
        At most 65 535 ASCII characters where there are three groups; `decode` reads it.
    """
    data = pack(levels[:STORED_FRAMES])
    return base64.b85encode(_checksum(data) + zlib.compress(data, 9, wbits=-zlib.MAX_WBITS)).decode("ascii")


def decode(text: str, channels: int, track_id: str) -> NDArray[np.uint8]:
    """The levels (n_frames, channels) that `encode` made a text of.

    Raises
    ------
    ChromaError
        If the text is damaged, or of another number of channels: the message names the track.
    """
    most = packed_bytes(STORED_FRAMES, channels)
    reader = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        stored = _from_base_85(text)
        data = reader.decompress(stored[_CHECKSUM_BYTES:], most + 1)
    except (ValueError, zlib.error) as error:
        raise _damaged(track_id, str(error)) from error
    if stored[:_CHECKSUM_BYTES] != _checksum(data):
        raise _damaged(track_id, "its checksum is another")
    if not reader.eof or reader.unused_data or len(data) > most or len(data) % packed_bytes(1, channels):
        raise _damaged(track_id, f"not whole frames of {channels} channels, at most {STORED_FRAMES}")
    return unpack(data, len(data) // packed_bytes(1, channels), channels, track_id)


def _from_base_85(text: str) -> bytes:
    """As `base64.b85decode`, which takes ten times as long: half a millisecond, as long as half an alignment.

    Raises
    ------
    ValueError
    """
    padding = -len(text) % 5
    digits = _DIGITS[np.frombuffer(text.encode("ascii") + b"~" * padding, dtype=np.uint8)].reshape(-1, 5)
    words = digits.astype(np.int64) @ 85 ** np.arange(4, -1, -1)
    if (digits == _NO_DIGIT).any() or (words >= 1 << 32).any():
        raise ValueError("no text of base 85")
    data = words.astype(">u4").tobytes()
    return data[: len(data) - padding]


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES)


def _damaged(track_id: str, reason: str) -> ChromaError:
    return ChromaError(f"{track_id}: its stored chroma is damaged ({reason}); delete the track and ingest it again")
