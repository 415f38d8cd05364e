"""WAV, FLAC, Ogg Vorbis, AIFF and their like, read by libsndfile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .container_ends import is_chain
from .mixdown import Block

if TYPE_CHECKING:
    from soundfile import SoundFile

BLOCK = 16_384  # sample frames read at once: a few thousand, or four times as many, took longer

_UNKNOWN = 2**63 - 1  # libsndfile's length of a FLAC that was written to a pipe; it fails on the last block of it
_PLACEHOLDER = 0x7FFFF000  # bytes; the data size written by a WAV encoder that cannot seek back is this or more
_PLACEHOLDER_64 = 2**62  # the same of the formats that state 64 bits
# In libsndfile's log of a header: of WAV, AIFF, AU; of W64, RF64.
_SIZES = re.compile(r"(?:(data|SSND|Data Size)|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_AU_SIZE = range(8, 12)  # bytes of the header
_AHEAD = 64 * 1024  # bytes that libsndfile may leave unread at the end: tags, and less than it reads at once
_BITSTREAMS = {  # the words that open each frame of it, in samples of 16 bits; played, they are noise
    b"\xfe\x7f\x01\x80": "dts",
    b"\x7f\xfe\x80\x01": "dts",
    b"\xff\x1f\x00\xe8": "dts",  # 14 bits in every 16
    b"\x1f\xff\xe8\x00": "dts",
    b"\x72\xf8\x1f\x4e": "spdif",  # IEC 61937: AC-3, DTS and others
}


class SoundFileReader:
    """Blocks that libsndfile reads of a file; after the last one, whether that is all of it."""

    def __init__(self, file: SoundFile, raw: BinaryIO) -> None:
        self._file, self._raw = file, raw
        self.in_float = file.subtype in ("FLOAT", "DOUBLE")
        self.lossy = file.subtype == "VORBIS"
        self.stated = file.frames  # sample frames; 0 where the file states none
        # libsndfile has cut `frames` to what is there
        for in_32_bits, stated, actual in _SIZES.findall(file.extra_info):
            if int(stated) < (_PLACEHOLDER if in_32_bits else _PLACEHOLDER_64):
                self.stated = file.frames * int(stated) // max(int(actual), 1)
        self.damaged = False
        self.bitstream: str | None = None  # ffmpeg's name of what stands in the place of samples, as on DTS CDs

    @property
    def stated_s(self) -> float:
        """Seconds that the file states, 0 where it states none."""
        return float(self.stated / self._file.samplerate)

    def leaves(self) -> bool:
        """More follows the end that a stream states: it states a wrong one, or another stream follows."""
        if self._file.format == "OGG":
            return is_chain(self._raw)
        return self._file.format == "FLAC" and os.fstat(self._raw.fileno()).st_size - self._raw.tell() > _AHEAD

    def blocks(self) -> Iterator[Block]:
        """All up to the end, to the first fault, or to where a `bitstream` begins."""
        from soundfile import LibsndfileError

        # libsndfile takes longer to make 16-bit samples float32 than to read them.
        dtype, full_scale = ("int16", 32_768) if self._file.subtype == "PCM_16" else ("float32", 1)
        stereo = self._file.channels == 2 and self._file.subtype in ("PCM_16", "PCM_24", "PCM_32")
        looking = 2 if stereo else 0  # blocks; silence may fill the first but for its end
        try:
            while (samples := self._file.read(BLOCK, dtype=dtype, always_2d=True)).size:  # (n_frames, n_channels)
                if looking and samples.any():
                    looking -= 1
                    words = (samples if dtype == "int16" else samples * 32_768).astype("<i2").tobytes()
                    self.bitstream = next((name for sync, name in _BITSTREAMS.items() if words.count(sync) >= 3), None)
                    if self.bitstream is not None:
                        self._file.seek(-len(samples), os.SEEK_CUR)
                        return
                yield Block(self._file.samplerate, samples, full_scale)
        except LibsndfileError:
            self.damaged = True
        if "lacks an end-of-stream" in self._file.extra_info:  # Ogg states no length, but marks its end
            self.stated, self.damaged = 0, True

    def read(self, n_bytes: int) -> bytes:
        """The next samples of 16 bits as bytes, for who decodes what stands in their place."""
        samples: NDArray[np.int16] = self._file.read(max(1, n_bytes // 4), dtype="int16", always_2d=True)
        return samples.astype("<i2", copy=False).tobytes()


class _Lenient:
    """A file as libsndfile should see it.

    It stays where it is when a damaged header asks for a place before its start, and says nothing. An AU file that
    states no samples, as its size was never filled in, states an unknown number of them.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.tell = raw.tell
        raw.seek(0)
        head = raw.read(_AU_SIZE.stop)
        self._unfinished = head[:4] in (b".snd", b"dns.") and not any(head[_AU_SIZE.start :])
        raw.seek(0)

    def readinto(self, buffer: memoryview) -> int:
        at = self._raw.tell()
        n_bytes: int = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        if self._unfinished:
            for place in _AU_SIZE:
                if at <= place < at + n_bytes:
                    buffer[place - at : place - at + 1] = b"\xff"
        return n_bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._raw.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self._raw.tell()


def open_sound_file(raw: BinaryIO) -> SoundFile | None:
    """The open file, or None where ffmpeg reads it: unknown formats, MP3, Opus, and FLAC that states no length."""
    from soundfile import LibsndfileError, SoundFile

    try:
        file = SoundFile(_Lenient(raw))
    except LibsndfileError:
        return None
    return None if file.format == "MP3" or file.subtype == "OPUS" or file.frames == _UNKNOWN else file
