"""Whatever libsndfile does not read, and MP3, read by ffmpeg through PyAV.

An MP3 is read, decoded and joined to blocks by filters of ffmpeg's, as Python would spend a quarter of the time on
packets and frames of 26 ms. The filters end at the first damage or change of form. What comes then, and every other
format, is decoded packet by packet, as a container may say less, or other things, than its frames do.

Frames are taken by what each says of itself, since the stream may change its rate, channels and format on the way, and
damaged packets do. Their samples are read plane by plane: PyAV's own arrays (``AudioFrame.planes``) end the process
where there are eight channels or more.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import UnreadableAudio
from .mixdown import Block

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

_BLOCK = 16_384  # sample frames averaged and resampled at once: ffmpeg gives a thousand; four times as many took longer
_FORMATS = {  # ffmpeg's sample formats: type, zero, full scale
    "u8": ("u1", 128, 2**7),
    "s16": ("i2", 0, 2**15),
    "s32": ("i4", 0, 2**31),
    "s64": ("i8", 0, 2**63),
    "flt": ("f4", 0, 1),
    "dbl": ("f8", 0, 1),
}
# Of recordings alone: playlists and lists of files (hls, dash, concat, sdp) make ffmpeg read what they name.
_DEMUXERS = (
    "aac,ac3,ac4,aea,aiff,amr,amrnb,amrwb,ape,apm,aptx,aptx_hd,asf,asf_o,ast,au,avi,avs,bfstm,boa,brstm,caf,codec2,dff,dsf,"
    "dts,dtshd,eac3,flac,flv,gsm,iff,ircam,kux,live_flv,loas,matroska,mca,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,msf,mtv,mxf,"
    "nistsphere,nut,ogg,oma,osq,pvf,qcp,qoa,r3d,rm,rso,sbc,shn,smjpeg,sol,sox,spdif,svag,tak,truehd,tta,voc,vqf,w64,"
    "wav,wsd,wtv,wv,xwma,adx"
)
_MAX_SAMPLES = 2**20  # of a frame and channel; TTA's frames last a second
_LAST = 16  # packets that one of a container may hold
_MARGIN_S = 1.0  # seconds by which the last packet of all streams may end before the container does


class _Readable(Protocol):
    def read(self, n_bytes: int, /) -> bytes: ...


class FfmpegReader:
    """Blocks that ffmpeg reads of a file; after the last one, whether that is all of it.

    Parameters
    ----------
    path : Path
        For messages, and the file unless `source` is given.
    source : object with ``read(n_bytes)``, optional
        The bytes of a stream inside the file.
    format : str, optional
        ffmpeg's name of its format, where it cannot be told.
    whole : bool
        Read a WAV to the end of the file, whatever size it states.

    Raises
    ------
    UnreadableAudio
        While blocks are taken.
    """

    def __init__(
        self, path: Path, source: _Readable | None = None, format: str | None = None, whole: bool = False
    ) -> None:
        self._path, self._source, self._format = path, source, format
        self._options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        if whole:
            self._options["ignore_length"] = "1"
        self.stated_s = 0.0  # seconds; 0 where the file states none
        self.damaged = False
        self.cut = False  # MPEG-TS, which states no length, in the middle of a packet
        self.in_float = False
        self.lossy = False
        self._corrupt: deque[bool] = deque(maxlen=_LAST)

    def blocks(self) -> Iterator[Block]:
        """All that can be decoded; what lies behind damage too."""
        import av

        try:
            container = self._open()
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: a chain of errors that has no number
            reason = getattr(error, "strerror", None) or error
            raise UnreadableAudio(f"{self._path}: not audio ({reason}); export it again or leave it out") from error
        with container:
            stream = self._stream(container)
            stream.codec_context.options = {"max_samples": str(_MAX_SAMPLES)}
            self.in_float = stream.codec_context.name.startswith(("pcm_f32", "pcm_f64"))
            self.lossy = stream.codec_context.codec.lossy
            self.stated_s = 0.0 if "ignore_length" in self._options else _stated_s(container, stream)
            others = not self.stated_s and len(container.streams) > 1
            n_given = 0
            if container.format.name == "mp3" and not others and self._source is None:
                n_given, ended = yield from self._filtered(stream.index)
                if ended:
                    return
            ends = _End(container)
            packets = container.demux() if others else container.demux(stream)
            frames = self._frames(ends.watched(packets, stream) if others else packets)
            yield from _without(n_given, _gather(frames))
            self.cut = container.format.name == "mpegts" and any(self._corrupt)
            if others and ends.early():
                self.stated_s = ends.stated_s

    def hash_packets(self) -> str:
        """SHA-256 of what is to be decoded, hexadecimal: the same after an edit of tags, as they are no part of it.

        "" where nothing can be read. Equal packets with equal parameters decode to equal samples.
        """
        import av

        try:
            with self._open() as container:
                stream = self._stream(container)
                context = stream.codec_context
                # Vorbis has its comments, which are tags, before its codebooks.
                setup = (context.extradata or b"").rpartition(b"\x05vorbis")[2]
                form = (context.name, context.sample_rate, context.channels, stream.start_time, stream.duration)
                digest = hashlib.sha256(repr((form, setup)).encode())
                for packet in container.demux(stream):
                    digest.update(memoryview(packet))
                return digest.hexdigest()
        except (av.error.FFmpegError, UnreadableAudio, OSError, ValueError):
            return ""

    def _open(self) -> InputContainer:
        import av

        # Without "file:", "Artist: Title" is a protocol. Since PyAV 19 it is never strict about the text of tags.
        options: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
        source = f"file:{self._path}" if self._source is None else self._source
        container: InputContainer = av.open(
            source, "r", format=self._format, container_options=self._options, **options
        )
        return container

    def _stream(self, container: InputContainer) -> AudioStream:
        """The audio stream that players play: the default one, else that of the highest bit rate."""
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            kind = "audio stream that can be decoded" if container.streams.audio else "audio stream"
            raise UnreadableAudio(f"{self._path}: no {kind}; leave it out")
        best = container.streams.best("audio")
        return best if best in streams else streams[0]

    def _filtered(self, index: int) -> Generator[Block, None, tuple[int, bool]]:
        """Blocks of a stream up to damage or a change; the number of their sample frames, and True at its end."""
        import av

        graph, n_given = av.filter.Graph(), 0
        options = ":".join(f"{name}={value}" for name, value in self._options.items())
        try:
            source = graph.add("amovie", filename=f"file:{self._path}", stream_index=str(index), format_opts=options)
            joined, sink = graph.add("asetnsamples", nb_out_samples=str(_BLOCK), pad="0"), graph.add("abuffersink")
            source.link_to(joined)
            joined.link_to(sink)
            graph.configure()
            while True:
                for block in _gather([cast("AudioFrame", sink.pull())]):
                    n_given += len(block.samples)
                    yield block
        except av.error.EOFError:
            return n_given, True
        except (av.error.FFmpegError, ValueError):  # ValueError: a libavfilter without one of these
            return n_given, False

    def _frames(self, packets: Iterator[Packet[Any]]) -> Iterator[AudioFrame]:
        import av

        freed_twice = (17, 1) <= tuple(map(int, av.__version__.split(".")[:2])) < (19, 0)
        good = bad = 0
        while True:
            ending = False
            try:
                packet = next(packets)
                ending = not packet.size
                if not good + bad and hasattr(packet, "has_sidedata") and packet.has_sidedata("encryption_info"):
                    raise UnreadableAudio(f"{self._path}: encrypted (DRM); buy or export it without")
                self._corrupt.append(packet.is_corrupt)
                frames = cast("list[AudioFrame]", packet.decode())
            except StopIteration:
                break
            except av.error.FFmpegError:  # the next packet may be sound
                if not ending:  # the empty packet that ends a stream in NUT is refused
                    self.damaged, bad = True, bad + 1
                continue
            good += 1
            if freed_twice:
                _keep(frames)
            yield from frames
        if bad > good:
            raise UnreadableAudio(
                f"{self._path}: {bad} of {bad + good} packets cannot be decoded: encrypted, or damaged; "
                "fetch or export it again"
            )


class _End:
    """The end of the packets of all streams, against the duration of their container."""

    def __init__(self, container: InputContainer) -> None:
        self.stated_s = (container.duration or 0) / 1e6  # microseconds
        self._start_s = (container.start_time or 0) / 1e6
        self._last_s = 0.0

    def watched(self, packets: Iterator[Packet[Any]], stream: AudioStream) -> Iterator[Packet[Any]]:
        """The packets of one stream, while those of all are looked at."""
        for packet in packets:
            if packet.pts is not None and packet.time_base:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._last_s = max(self._last_s, float(end) - self._start_s)
            if packet.stream.index == stream.index:
                yield packet

    def early(self) -> bool:
        """True for a file that was cut off; one stream may well end before the others do."""
        return 0 < self._last_s < self.stated_s - _MARGIN_S


def _without(n_frames: int, blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks without their first sample frames."""
    for rate, samples, full_scale in blocks:
        if len(samples) > n_frames:
            yield Block(rate, samples[n_frames:], full_scale)
        n_frames = max(0, n_frames - len(samples))


def _gather(frames: Iterable[AudioFrame]) -> Iterator[Block]:
    """Frames joined to blocks: calls of NumPy and of the resampler cost more than a thousand samples do."""

    def form(frame: AudioFrame) -> tuple[int, int, str]:
        return frame.sample_rate, frame.layout.nb_channels, frame.format.name

    for (rate, n_channels, name), run in groupby(frames, key=form):
        gathered: list[AudioFrame] = []
        n_frames = 0
        for frame in run:
            gathered.append(frame)
            n_frames += frame.samples
            if n_frames >= _BLOCK:
                yield Block(rate, _join(gathered, n_frames, n_channels, name))
                gathered, n_frames = [], 0
        if n_frames:
            yield Block(rate, _join(gathered, n_frames, n_channels, name))


def _join(frames: list[AudioFrame], n_frames: int, n_channels: int, name: str) -> NDArray[np.float32]:
    """The samples of frames of one form, shape (n_frames, n_channels), full scale being 1."""
    from av.audio.plane import AudioPlane

    kind, zero, full_scale = _FORMATS[name.removesuffix("p")]
    planar = name.endswith("p")
    n_planes, per_frame = (n_channels, 1) if planar else (1, n_channels)
    joined: NDArray[Any] = np.empty((n_planes, n_frames * per_frame), dtype=kind)
    for plane, row in enumerate(joined):
        parts = [
            np.frombuffer(memoryview(AudioPlane(frame, plane)), joined.dtype, frame.samples * per_frame)
            for frame in frames
        ]
        np.concatenate(parts, out=row)
    if kind != "f4":
        joined = ((joined.astype("f8" if kind == "i8" else "f4") - zero) / full_scale).astype(np.float32)
    return joined.T if planar else joined.reshape(n_frames, n_channels)


def _keep(frames: list[AudioFrame]) -> None:
    """Never free the layouts of frames whose channels are in an order of their own.

    PyAV 17.1 to 18.1 frees what such a layout points to twice, with the layout and with the frame, which ends the
    process. The layout is the smaller loss.
    """
    for frame in frames:
        if " channels (" in frame.layout.name:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(frame.layout))


def _stated_s(container: InputContainer, stream: AudioStream) -> float:
    """The duration that the file states in seconds, 0 where it states none and ffmpeg guesses from the bit rate."""
    kind = container.format.name
    if kind in ("aac", "dts", "spdif") or (kind == "mp3" and not stream.start_time):  # Xing also states the delay
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1
    return (container.duration or 0) / 1e6 if alone else 0.0  # microseconds
