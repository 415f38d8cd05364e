"""Audio files in, waveforms out.

A *waveform* is float32, mono, 22 050 Hz, shape (n_samples,); channels are averaged, the level is left as it is.

Decoding goes block by block: decode, average the channels, resample, append. Whatever the length, rate and number of
channels of the file, memory holds the waveform and one block.

libsndfile reads WAV, FLAC, Ogg Vorbis and AIFF. ffmpeg reads all else, and what libsndfile leaves unread; Opus, for
which libsndfile takes three times as long; and MP3, where libsndfile 1.2.2 garbles mono files that are read in blocks,
takes the length of a variable-rate file without a Xing header from its first frame and drops what lies beyond, and
gives up on damage after which ffmpeg finds the next frame.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..errors import AudioBeyondLimits, AudioError, EmptyAudio, ShortAudio, SilentAudio, UnreadableAudio
from .container_ends import ends_early, misstates_data
from .ffmpeg import FfmpegReader
from .limits import Limits, open_regular
from .mixdown import SILENCE, Block, Mixdown
from .sound_file import SoundFileReader, open_sound_file

MINIMUM_S = 1.0  # seconds; nothing shorter is a recording of a work
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mp1"),
        *(".mpa", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist", ".ircam", ".sf", ".pvf"),
        *(".m4a", ".m4b", ".m4p", ".m4r", ".mp4", ".aac", ".adts", ".alac", ".ac3", ".eac3", ".ec3", ".dts", ".dtshd"),
        *(".thd", ".mlp", ".wma", ".webm", ".weba", ".mka", ".ape", ".wv", ".tta", ".tak", ".shn", ".mpc", ".mp+"),
        *(".dsf", ".dff", ".amr", ".awb", ".3ga", ".ra", ".oma", ".aa3", ".gsm", ".qoa", ".xwma", ".8svx"),
        *(".mkv", ".mov", ".qt", ".m4v", ".avi", ".mpg", ".mpeg", ".vob", ".m2ts", ".mts", ".flv", ".f4a", ".f4v"),
        *(".3gp", ".3g2", ".wmv", ".asf", ".ogv", ".ogm", ".ogx", ".rm", ".rmvb", ".mxf"),
    }
)

_SLACK_S = 0.25  # seconds by which containers misstate their length without anything being lost
_AT_ONCE = 65_536  # sample frames that are resampled at once, whatever a decoder gives


class AudioWarning(UserWarning):
    """A waveform that is not simply what the file holds."""


class TruncatedAudio(AudioWarning):
    """The file is cut off or damaged; what could be decoded is used."""


class MendedAudio(AudioWarning):
    """Channels that cancel each other, or samples that no recording holds, were left out."""


def load_audio(path: str | Path, limits: Limits | None = None) -> NDArray[np.float32]:
    """The recording as a waveform.

    Parameters
    ----------
    path : str or Path
        An audio file, or a video file with an audio stream, of any sample rate and number of channels. Of several audio
        streams the default one is read.
    limits : Limits, optional
        Bounds on what the file may ask of the machine; by default `Limits.here()`.

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)] of float32
        Mono, 22 050 Hz.

    Warns
    -----
    TruncatedAudio
        If the file ends before the length it states or cannot be decoded to its end. Formats that state no length and
        mark no end (raw AAC, MP3 without a Xing header) can be cut without a trace.
    MendedAudio
        If the channels cancel each other, where one of them is taken, or damage decodes to peaks that are cut.

    Raises
    ------
    UnreadableAudio
        If the file is missing, no regular file, no audio, has no audio stream, is encrypted or corrupt from the start,
        or holds NaN or infinity.
    AudioBeyondLimits
        If it is beyond the limits.
    EmptyAudio
        If it holds no samples.
    ShortAudio
        If it lasts less than `MINIMUM_S`.
    SilentAudio
        If no sample of the mono mix reaches `SILENCE`, or they are all about the same.
    """
    samples = bytearray()  # grows in place, unlike a list of blocks that would have to be joined by a copy
    for block in stream_audio(path, limits):
        samples += block.data
    return np.frombuffer(samples, dtype=np.float32)


def stream_audio(path: str | Path, limits: Limits | None = None) -> Iterator[NDArray[np.float32]]:
    """The waveform of `load_audio` in blocks, for recordings that memory should not hold.

    Warns and raises as `load_audio` does. Some errors come only at the end; then discard the blocks already yielded.
    """
    path = Path(path)
    recording = _Recording(path, limits or Limits.here())
    size, peak = 0, np.float32(0)
    try:
        for block in _resample(recording.mono()):
            yield block
            size += block.size
            if peak < SILENCE and block.size:
                peak = np.maximum(block.max(), -block.min())
    except (AudioError, MemoryError):
        raise
    except OSError as error:
        raise UnreadableAudio(f"{path}: {error.strerror or error}; check the path and its permissions") from error
    except Exception as error:  # of a decoder: one file must not end a run over many
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableAudio(f"{path}: cannot be decoded ({reason}); export it again or leave it out") from error
    if size == 0:
        raise EmptyAudio(f"{path}: no samples; fetch or export it again")
    if size < MINIMUM_S * SAMPLE_RATE:
        duration_s = size / SAMPLE_RATE
        raise ShortAudio(f"{path}: {duration_s:.2f} s, shorter than {MINIMUM_S:g} s; give a longer recording")
    if peak < SILENCE:
        raise SilentAudio(
            f"{path}: silent, no sample of the mono mix above {20 * np.log10(SILENCE):.0f} dBFS; leave it out"
        )
    if not recording.audible:
        raise SilentAudio(f"{path}: silent, a constant level that cannot be heard; leave it out")
    recording.warn()


def find_audio(paths: Iterable[str | Path]) -> list[Path]:
    """The audio files at `paths`: files as given, folders walked in sorted order.

    Inside folders, hidden files and folders, linked folders, pipes and files without one of `AUDIO_SUFFIXES` (in either
    case) are skipped. Missing paths and folders that cannot be read are returned: whoever opens them reports it.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(_walk(path)) if os.path.isdir(path) else [path]
    return list(dict.fromkeys(found))


def _walk(folder: Path) -> Iterator[Path]:
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = (name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(parent, name)
            pipe = path.is_fifo() or path.is_socket() or path.is_char_device()  # to open one may wait for ever
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".") and not pipe:
                yield path
    yield from (Path(error.filename) for error in closed)


def _resample(blocks: Iterable[Block]) -> Iterator[NDArray[np.float32]]:
    """Mono blocks at 22 050 Hz; a chain of streams may change its sample rate on the way."""
    import soxr

    for rate, run in groupby(blocks, key=itemgetter(0)):
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for _, samples, _ in run:
            for start in range(0, len(samples), _AT_ONCE):
                yield stream.resample_chunk(samples[start : start + _AT_ONCE])
        yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


class _Recording:
    """One file on its way to a waveform, and what there is to say of it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._decoded_s = 0.0
        self._stated_s, self._damaged, self._cut = 0.0, False, False
        self._mixdown = Mixdown(path)

    @property
    def audible(self) -> bool:
        return self._mixdown.audible

    def mono(self) -> Iterator[Block]:
        """Blocks of one channel, shape (n_frames,), at the rate of the file."""
        with open_regular(self._path, self._limits) as raw:
            if os.fstat(raw.fileno()).st_size == 0:
                raise EmptyAudio(f"{self._path}: a file of 0 bytes; fetch or export it again")
            for block in self._blocks(raw):
                if not self._limits.minimum_rate <= block.rate <= self._limits.maximum_rate:
                    raise UnreadableAudio(
                        f"{self._path}: states {block.rate} Hz, and {self._limits.minimum_rate} to "
                        f"{self._limits.maximum_rate} are read (--rates); export it again"
                    )
                self._decoded_s += len(block.samples) / block.rate
                if self._decoded_s > self._limits.maximum_s:
                    raise AudioBeyondLimits(
                        f"{self._path}: longer than {self._limits.maximum_s / 3600:g} hours; split it, or raise "
                        "--maximum-hours (BYTECOVER2_MAXIMUM_HOURS)"
                    )
                yield Block(block.rate, self._mixdown.mix(block))

    def warn(self) -> None:
        """Warn of what is missing and of what was mended."""
        if not self._complete():
            whole = f" of {self._stated_s:.1f} s" if self._stated_s > self._decoded_s + _SLACK_S else ""
            warnings.warn(
                f"{self._path}: cut off or damaged, decoded {self._decoded_s:.1f} s{whole}; fetch or export it again",
                TruncatedAudio,
                stacklevel=3,
            )
        for remark in self._mixdown.remarks():
            warnings.warn(f"{self._path}: {remark}", MendedAudio, stacklevel=3)

    def _blocks(self, raw: BinaryIO) -> Iterator[Block]:
        whole = misstates_data(raw)
        raw.seek(0)
        # the suffix decides first, as libmpg123 writes its complaints to stderr
        file = None if whole or self._path.suffix.lower() == ".mp3" else open_sound_file(raw)
        if file is None:
            other = FfmpegReader(self._path, whole=whole)
            yield from self._by_ffmpeg(other)
            self._cut = other.cut or ends_early(raw)
            return
        with file:
            reader = SoundFileReader(file, raw)
            self._mixdown.in_float, self._mixdown.lossy = reader.in_float, reader.lossy
            yield from reader.blocks()
            if reader.bitstream is not None:
                yield from self._by_ffmpeg(FfmpegReader(self._path, reader, reader.bitstream))
                return
            self._stated_s, self._damaged = reader.stated_s, reader.damaged
            if not self._complete() or reader.leaves():
                yield from self._continued()

    def _by_ffmpeg(self, reader: FfmpegReader) -> Iterator[Block]:
        for block in reader.blocks():
            self._mixdown.in_float, self._mixdown.lossy = reader.in_float, reader.lossy
            yield block
        self._stated_s, self._damaged = reader.stated_s, reader.damaged
        if self._decoded_s == 0:
            raise UnreadableAudio(f"{self._path}: nothing in it can be decoded; fetch or export it again")

    def _continued(self) -> Iterator[Block]:
        """Blocks that ffmpeg reads beyond the place where libsndfile has stopped."""
        reader, reached_s, at_s = FfmpegReader(self._path), self._decoded_s, 0.0
        try:
            for rate, samples, full_scale in reader.blocks():
                skipped = min(len(samples), max(0, round((reached_s - at_s) * rate)))
                at_s += len(samples) / rate
                if skipped < len(samples):
                    yield Block(rate, samples[skipped:], full_scale)
        except UnreadableAudio:
            return
        if self._decoded_s > reached_s:
            self._damaged = reader.damaged

    def _complete(self) -> bool:
        """As much was decoded as the file states or, where it states nothing, without damage."""
        if self._cut:
            return False
        return self._decoded_s > self._stated_s - _SLACK_S if self._stated_s else not self._damaged
