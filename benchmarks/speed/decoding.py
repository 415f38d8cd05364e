"""The time of loading MP3 and Opus files, beside a reference and other decoders, in turns.

Milliseconds of processor time of one thread, the median of all rounds, for one composed song in several encodings:

reference
    ``librosa.load``: libsndfile with its libmpg123, the mean of the channels, soxr.
ours
    `load_audio`, from file to waveform.
read
    What ours spends in ffmpeg and on blocks of samples, before mixing and resampling.
packets
    The same samples by PyAV, packet by packet and frame by frame, thrown away.
libsndfile
    All samples, thrown away; its libmpg123 has the decoder for AVX.
libmpg123, libmpg123 halved
    The system's library, where there is one: all samples, and one channel synthesised at half the rate.
miniaudio
    dr_mp3, where the package miniaudio is installed.
hash file, hash packets, tags
    What an ingest reads of the file besides.

``times`` is the time of the reference over that of each, from the same rounds. Prints JSON lines on stdout and a table
on stderr. Run from the repository::

    taskset --cpu-list 0 python -m benchmarks.speed.decoding
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import av
import click
import librosa
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.machine import processor
from bytecover2_milvus.audio.decode_pool import hash_content
from bytecover2_milvus.audio.ffmpeg import FfmpegReader
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.audio.tags import read_tags
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render

ENCODINGS = {  # encoder, sample rate in Hz, layout, bits per second
    "MP3, stereo, 44.1 kHz, 192 kbit/s": ("libmp3lame", 44_100, "stereo", 192_000),
    "MP3, stereo, 44.1 kHz, 320 kbit/s": ("libmp3lame", 44_100, "stereo", 320_000),
    "MP3, stereo, 48 kHz, 128 kbit/s": ("libmp3lame", 48_000, "stereo", 128_000),
    "MP3, mono, 44.1 kHz, 96 kbit/s": ("libmp3lame", 44_100, "mono", 96_000),
    "Opus, stereo, 48 kHz, 96 kbit/s": ("libopus", 48_000, "stereo", 96_000),
}
BUFFER = 65_536  # bytes that libmpg123 fills at once
ADD_FLAGS, DOWN_SAMPLE = 2, 4  # parameters of libmpg123
MIX, QUIET, FLOAT = 0x4, 0x20, 0x400  # flags
NEW_FORMAT, DONE = -11, -12  # results


def composed_song(seconds: float) -> NDArray[np.float32]:
    """A waveform (n_samples,) of a composed song, which begins anew every 45 seconds."""
    return np.resize(render(arrange(compose(0), 0), min(45.0, seconds)), round(seconds * SAMPLE_RATE))


def encode(song: NDArray[np.float32], path: Path, encoder: str, rate: int, layout: str, bit_rate: int) -> None:
    """Write a waveform, the right channel later than the left one, over a noise floor that reaches to the top."""
    song = soxr.resample(song, SAMPLE_RATE, rate)
    channels = np.stack([song, np.roll(song, 40)])[: 1 if layout == "mono" else 2]
    channels = channels + np.random.default_rng(0).normal(0, 1e-3, channels.shape)
    channels = (0.9 * channels / np.abs(channels).max()).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=rate, layout=layout, bit_rate=bit_rate)
        for start in range(0, channels.shape[1], 1152):
            block = np.ascontiguousarray(channels[:, start : start + 1152])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def by_packets(path: Path) -> None:
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            packet.decode()


def by_mpg123(library: ctypes.CDLL, path: Path, halved: bool) -> int:
    """The number of samples of all channels."""
    handle = ctypes.c_void_p(library.mpg123_new(None, None))
    flags = ctypes.c_long(QUIET | FLOAT | (MIX if halved else 0))
    library.mpg123_param(handle, ADD_FLAGS, flags, ctypes.c_double())
    library.mpg123_param(handle, DOWN_SAMPLE, ctypes.c_long(halved), ctypes.c_double())
    buffer, done, result, n_bytes = ctypes.create_string_buffer(BUFFER), ctypes.c_size_t(), 0, 0
    library.mpg123_open(handle, str(path).encode())
    while result in (0, NEW_FORMAT):
        result = library.mpg123_read(handle, buffer, ctypes.c_size_t(BUFFER), ctypes.byref(done))
        n_bytes += done.value
    library.mpg123_delete(handle)
    if result != DONE:
        raise RuntimeError(f"{path}: libmpg123 gives {result}")
    return n_bytes // 4


def ways(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls to be measured, by name."""
    yield "reference", partial(librosa.load, path, sr=SAMPLE_RATE)
    yield "ours", partial(load_audio, path)
    yield "read", lambda: sum(len(block.samples) for block in FfmpegReader(path).blocks())
    yield "packets", partial(by_packets, path)
    yield "libsndfile", lambda: soundfile.read(path, dtype="float32")
    mp3 = path.suffix == ".mp3"
    if mp3 and (name := ctypes.util.find_library("mpg123")):
        library = ctypes.CDLL(name)
        library.mpg123_init()
        library.mpg123_new.restype = ctypes.c_void_p
        yield "libmpg123", partial(by_mpg123, library, path, False)
        yield "libmpg123 halved", partial(by_mpg123, library, path, True)
    if mp3 and importlib.util.find_spec("miniaudio"):
        miniaudio = importlib.import_module("miniaudio")
        yield "miniaudio", lambda: miniaudio.mp3_read_f32(path.read_bytes())
    yield "hash file", lambda: hash_content(path.open("rb"))
    yield "hash packets", lambda: FfmpegReader(path).hash_packets()
    yield "tags", partial(read_tags, path)


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of each way; a round before the others is not counted."""
    calls = dict(ways(path))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if number >= 0:
                taken[name].append(1e3 * (time.thread_time() - start))
    return {name: median(values) for name, values in taken.items()}


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=45, show_default=True, help="Of the song.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Time loading a compressed file, in turns with a reference and other decoders."""
    song = composed_song(seconds)
    with tempfile.TemporaryDirectory() as folder:
        for number, (encoding, form) in enumerate(ENCODINGS.items()):
            path = Path(folder, f"{number}.{'opus' if form[0] == 'libopus' else 'mp3'}")
            encode(song, path, *form)
            taken = measure(path, rounds)
            times = {name: taken["reference"] / milliseconds for name, milliseconds in taken.items()}
            line = {"encoding": encoding, "seconds": seconds, "rounds": rounds, "processor": processor()}
            click.echo(json.dumps(line | {"cpu_ms": taken, "times": times}))
            click.echo(encoding, err=True)
            for name, milliseconds in taken.items():
                click.echo(f"    {name:18} {milliseconds:8.1f} ms {times[name]:8.2f}", err=True)


if __name__ == "__main__":
    main()
