"""Audio files in, waveforms out.

A *waveform* is float32, mono, 22 050 Hz, shape (n_samples,); channels are averaged, the level is left as it is.

Decoding goes block by block: decode, average the channels, resample, append. Whatever the length, rate and number of
channels of the file, memory holds the waveform and one block.

libsndfile reads WAV, FLAC, Ogg (Vorbis and Opus) and AIFF. ffmpeg reads all else, and MP3, where libsndfile 1.2.2
garbles mono files that are read in blocks, takes the length of a variable-rate file without a Xing header from its
first frame and drops what lies beyond, and gives up on damage after which ffmpeg finds the next frame.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .config import SAMPLE_RATE
from .errors import EmptyAudio, ShortAudio, SilentAudio, UnreadableAudio

if TYPE_CHECKING:
    from av.audio import AudioStream
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from soundfile import SoundFile

MINIMUM_S = 1.0  # seconds; nothing shorter is a recording of a work
SILENCE = 1e-3  # peak, full scale being 1: -60 dBFS, the level of an empty room and well above dither
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf"),
        *(".m4a", ".m4b", ".mp4", ".aac", ".alac", ".ac3", ".wma", ".webm", ".mka", ".ape", ".wv"),
    }
)

_BLOCK = 16_384  # sample frames averaged and resampled at once: ffmpeg gives a thousand; four times as many took longer
_SLACK_S = 0.25  # seconds by which containers misstate their length without anything being lost
_UNKNOWN = 2**63 - 1  # libsndfile's length of a FLAC that was written to a pipe; it fails on the last block of it
_PLACEHOLDER = 0x7FFFF000  # bytes; the data size written by a WAV encoder that cannot seek back is this or more
_DATA_SIZE = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")  # in libsndfile's log of a header

_Block: TypeAlias = tuple[int, NDArray[np.float32]]  # sample rate in Hz, mono samples


class TruncatedAudio(UserWarning):
    """The file is cut off or damaged; what could be decoded is used."""


def load_audio(path: str | Path) -> NDArray[np.float32]:
    """The recording as a waveform.

    Parameters
    ----------
    path : str or Path
        An audio file, or a video file with an audio stream, of any sample rate and number of channels.

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)] of float32
        Mono, 22 050 Hz.

    Warns
    -----
    TruncatedAudio
        If the file ends before the length it states or cannot be decoded to its end. Formats that state no length and
        mark no end (raw AAC, MP3 without a Xing header) can be cut without a trace.

    Raises
    ------
    UnreadableAudio
        If the file is missing, is no audio, has no audio stream, is corrupt from the start, or holds NaN or infinity.
    EmptyAudio
        If it holds no samples.
    ShortAudio
        If it lasts less than `MINIMUM_S`.
    SilentAudio
        If no sample of the mono mix reaches `SILENCE`.
    """
    samples = bytearray()  # grows in place, unlike a list of blocks that would have to be joined by a copy
    for block in stream_audio(path):
        samples += block.data
    return np.frombuffer(samples, dtype=np.float32)


def stream_audio(path: str | Path) -> Iterator[NDArray[np.float32]]:
    """What `load_audio` gives, block by block: for recordings that memory should not hold.

    Warns and raises as `load_audio` does. Some errors come only at the end; then discard the blocks already yielded.
    """
    path = Path(path)
    size, peak = 0, np.float32(0)
    try:
        for block in _resample(_decode(path)):
            yield block
            size += block.size
            if block.size:  # np, not max(): NaN must stay NaN; and without the copy that abs() makes
                peak = np.maximum(peak, np.maximum(block.max(), -block.min()))
    except OSError as error:
        raise UnreadableAudio(f"{path}: {error.strerror or error}; check the path and its permissions") from error
    if size == 0:
        raise EmptyAudio(f"{path}: no samples; fetch or export it again")
    if not np.isfinite(peak):
        raise UnreadableAudio(f"{path}: NaN or infinite samples; export it again")
    if size < MINIMUM_S * SAMPLE_RATE:
        duration_s = size / SAMPLE_RATE
        raise ShortAudio(f"{path}: {duration_s:.2f} s, shorter than {MINIMUM_S:g} s; give a longer recording")
    if peak < SILENCE:
        raise SilentAudio(
            f"{path}: silent, no sample of the mono mix above {20 * np.log10(SILENCE):.0f} dBFS; leave it out"
        )


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


def _resample(blocks: Iterable[_Block]) -> Iterator[NDArray[np.float32]]:
    """Blocks at 22 050 Hz; a chain of streams may change its sample rate on the way."""
    import soxr

    for rate, run in groupby(blocks, key=itemgetter(0)):
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for _, block in run:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _decode(path: Path) -> Iterator[_Block]:
    with path.open("rb") as raw:  # a handle takes any spelling of a path, and its OSError says what is wrong
        if os.fstat(raw.fileno()).st_size == 0:
            raise EmptyAudio(f"{path}: a file of 0 bytes; fetch or export it again")
        # the suffix decides first, as libmpg123 writes its complaints to stderr
        file = None if path.suffix.lower() == ".mp3" else _open_libsndfile(raw)
        if file is None:
            yield from _ffmpeg_blocks(path)
        else:
            with file:
                yield from _libsndfile_blocks(path, file)


def _open_libsndfile(raw: BinaryIO) -> SoundFile | None:
    """The open file, or None where ffmpeg is needed: unknown formats, MP3, and FLAC that states no length."""
    from soundfile import LibsndfileError, SoundFile

    try:
        file = SoundFile(raw)
    except (LibsndfileError, TypeError):  # TypeError: a file called .raw says nothing of what it holds
        return None
    return None if file.format == "MP3" or file.frames == _UNKNOWN else file


def _libsndfile_blocks(path: Path, file: SoundFile) -> Iterator[_Block]:
    from soundfile import LibsndfileError

    announced, damaged = file.frames, False
    for stated, actual in _DATA_SIZE.findall(file.extra_info):  # libsndfile has cut `frames` to what is there
        if int(stated) < _PLACEHOLDER:
            announced = file.frames * int(stated) // max(int(actual), 1)
    decoded = 0
    # libsndfile takes longer to make 16-bit samples float32 than to read them.
    dtype, full_scale = ("int16", 32_768) if file.subtype == "PCM_16" else ("float32", 1)
    try:
        while (block := file.read(_BLOCK, dtype=dtype, always_2d=True)).size:  # (n_frames, n_channels)
            decoded += len(block)
            yield file.samplerate, _average(block, full_scale)
    except LibsndfileError:
        damaged = True
    if "lacks an end-of-stream" in file.extra_info:  # Ogg states no length, but marks its end
        announced, damaged = 0, True
    _check_end(path, decoded / file.samplerate, announced / file.samplerate, damaged)


def _ffmpeg_blocks(path: Path) -> Iterator[_Block]:
    import av

    try:
        container = av.open(f"file:{path}", metadata_errors="ignore")  # without "file:", "Artist: Title" is a protocol
    except av.error.FFmpegError as error:
        raise UnreadableAudio(f"{path}: not audio ({error.strerror}); export it again or leave it out") from error
    with container:
        if not container.streams.audio:
            raise UnreadableAudio(f"{path}: no audio stream; leave it out")
        stream = container.streams.audio[0]
        packets = container.demux(stream)
        decoded_s, damaged = 0.0, False

        def frames() -> Iterator[AudioFrame]:
            nonlocal damaged
            while True:
                try:
                    yield from next(packets).decode()
                except StopIteration:
                    return
                except av.error.FFmpegError:  # the next packet may be sound
                    damaged = True

        for rate, block in _gather(frames()):
            decoded_s += len(block) / rate
            yield rate, block
        _check_end(path, decoded_s, _announced_s(container, stream), damaged or decoded_s == 0)


def _gather(frames: Iterable[AudioFrame]) -> Iterator[_Block]:
    """Frames of ffmpeg joined to blocks: calls of NumPy and of the resampler cost more than a thousand samples do."""
    import av

    def form(frame: AudioFrame) -> tuple[int, str, str]:
        return frame.sample_rate, frame.layout.name, frame.format.name

    for (rate, *_), run in groupby(frames, key=form):
        to_float, gathered = av.AudioResampler(format="fltp"), av.AudioFifo()
        for frame in chain.from_iterable(map(to_float.resample, run)):
            frame.pts = None  # else gaps between time stamps, as damage leaves them, are refused
            gathered.write(frame)
            if gathered.samples >= _BLOCK:
                yield rate, _average(gathered.read().to_ndarray().T)
        if gathered.samples:
            yield rate, _average(gathered.read().to_ndarray().T)


def _announced_s(container: InputContainer, stream: AudioStream) -> float:
    """The duration that the file states in seconds, 0 where it states none and ffmpeg guesses from the bit rate."""
    kind = container.format.name
    if kind == "aac" or (kind == "mp3" and not stream.start_time):  # a Xing header also states the encoder's delay
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1 and container.duration is not None
    return container.duration / 1e6 if alone else 0.0  # microseconds


def _average(block: NDArray[np.float32] | NDArray[np.int16], full_scale: int = 1) -> NDArray[np.float32]:
    """Mean over the channels of (n_frames, n_channels), `full_scale` becoming 1; a product, faster than ``mean()``."""
    n_channels = block.shape[1]
    return block.astype(np.float32, copy=False) @ np.full(n_channels, 1 / (n_channels * full_scale), dtype=np.float32)


def _check_end(path: Path, decoded_s: float, announced_s: float, damaged: bool) -> None:
    """Warn when less was decoded than the file announced or, where it announced nothing (0), when it was damaged."""
    complete = decoded_s > announced_s - _SLACK_S if announced_s else not damaged
    if complete:
        return
    if decoded_s == 0:
        raise UnreadableAudio(f"{path}: nothing in it can be decoded; fetch or export it again")
    whole = f" of {announced_s:.1f} s" if announced_s else ""
    warnings.warn(
        f"{path}: cut off or damaged, decoded {decoded_s:.1f} s{whole}; fetch or export it again",
        TruncatedAudio,
        stacklevel=2,
    )
