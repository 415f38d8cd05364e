"""The end of a file by what its container says.

That is the chunks of WAV and AVI, the header of ASF, the pages of Ogg, the packets of MPEG.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_PLACEHOLDER = 0x7FFFF000  # bytes; an encoder that cannot go back states this or more
_PAGE = 65_307  # bytes of the longest page of Ogg
_OGG_FIRST, _OGG_LAST = 2, 4  # flags of a page: it begins its stream, it ends it
_HEADER = 65_536  # bytes at the start in which a header is looked for
_TS_PACKETS = (
    188,
    192,
    204,
)  # bytes: MPEG-TS as broadcast, with a clock before each (Blu-ray), a checksum behind
_PES = b"\0\0\1"  # before the packets of MPEG-PS (VOB, MPG); then comes the kind, and their size in bytes
_PES_KINDS = range(0xBB, 0xF0)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # GUIDs: of its header, and of what holds the size
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def misstates_data(raw: BinaryIO) -> bool:
    """True for a WAV with more samples than it states.

    Its encoder never came back to fill in the size, or had more to write than 32 bits count: after the end that it
    states come neither other chunks nor tags.
    """
    size = raw.seek(0, os.SEEK_END)
    at, stated = _data(raw, size)
    if at == 0 or stated >= _PLACEHOLDER:  # libsndfile reads the latter to the end of the file
        return False
    return not _follows(raw, at + stated + (stated & 1), size)


def ends_early(raw: BinaryIO) -> bool:
    """True for a RIFF or ASF file shorter than it states, for an Ogg file whose last page ends no stream, and for MPEG
    whose last packet is not whole.
    """
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    head = raw.read(_HEADER)
    if head[:4] == b"RIFF" and len(head) >= 8:
        (stated,) = struct.unpack_from("<I", head, 4)
        return bool(size < 8 + stated < _PLACEHOLDER)
    if head[:16] == _ASF and 0 <= (at := head.find(_ASF_PROPERTIES)) <= len(head) - 48:
        (stated,) = struct.unpack_from("<Q", head, at + 40)
        return bool(size < stated)
    if head[:4] == b"OggS":
        raw.seek(max(0, size - _PAGE))
        tail = raw.read()
        last = tail.rfind(b"OggS")
        return last < 0 or len(tail) < last + 6 or not tail[last + 5] & _OGG_LAST
    for packet in _TS_PACKETS:
        at = 4 if packet == 192 else 0
        if len(head) > 8 * packet and all(byte == 0x47 for byte in head[at : at + 8 * packet : packet]):
            return size % packet != 0
    if head[:4] == _PES + b"\xba":
        raw.seek(max(0, size - _HEADER - 6))
        tail = raw.read()
        at = len(tail) - 6
        while (at := tail.rfind(_PES, 0, at + 3)) >= 0:
            if tail[at + 3] in _PES_KINDS:
                return at + 6 + int.from_bytes(tail[at + 4 : at + 6], "big") > len(tail)
    return False


def is_chain(raw: BinaryIO) -> bool:
    """True for Ogg with a stream behind the end of another, as recorders of radio write; libsndfile reads the first."""
    at = 0
    while True:  # the first pages of all streams that run side by side
        raw.seek(at)
        page = raw.read(27)
        if len(page) < 27 or page[:4] != b"OggS":
            return False
        if not page[5] & _OGG_FIRST:
            break
        at += 27 + page[26] + sum(raw.read(page[26]))
    raw.seek(at)
    first, rest = b"OggS\0" + bytes([_OGG_FIRST]), b""
    while chunk := raw.read(2**20):
        if first in rest + chunk:
            return True
        rest = chunk[-len(first) + 1 :]
    return False


def _data(raw: BinaryIO, size: int) -> tuple[int, int]:
    """The place of the first sample of a WAV and the bytes that it states for all, or zeros."""
    raw.seek(0)
    head, at, stated_64 = raw.read(12), 12, 0
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return 0, 0
    for _ in range(64):  # chunks; who writes more before the samples is not known
        raw.seek(at)
        chunk = raw.read(8)
        if len(chunk) < 8:
            break
        (stated,) = struct.unpack("<I", chunk[4:])
        if chunk[:4] == b"ds64":
            (stated_64,) = struct.unpack("<8xQ", raw.read(16).ljust(16, b"\0"))
        if chunk[:4] == b"data":
            return at + 8, stated if head[:4] == b"RIFF" or stated != 0xFFFFFFFF else stated_64
        at += 8 + stated + (stated & 1)
    return 0, 0


def _follows(raw: BinaryIO, at: int, size: int) -> bool:
    """Something other than samples is at this place: the end of the file, a chunk that fits into it, or a tag."""
    if at >= size - 8:
        return True
    raw.seek(at)
    chunk = raw.read(8)
    (stated,) = struct.unpack("<I", chunk[4:])
    name = chunk[:4]
    fits = name.isascii() and name.decode("ascii").isprintable() and at + 8 + stated <= size
    return fits or name[:3] in (b"ID3", b"TAG") or name == b"APET"
