"""MP3 read by filters of ffmpeg's gives the samples of its decoder, called packet by packet; Opus those of libopus."""

from __future__ import annotations

import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from audio_files import encode
from numpy.typing import NDArray

from bytecover2_milvus.audio.ffmpeg import FfmpegReader
from bytecover2_milvus.audio.load import TruncatedAudio, load_audio
from bytecover2_milvus.config import SAMPLE_RATE


def mp3(path: Path, layout: str = "stereo", rate: int = 44_100, seed: int = 0) -> bytes:
    """Three seconds of tones and noise."""
    n_channels = 1 if layout == "mono" else 2
    rng = np.random.default_rng(seed)
    time_s = np.arange(3 * rate) / rate
    tones = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 2_000, (n_channels, 1)) * time_s)
    samples = (tones + 0.05 * rng.standard_normal(tones.shape)).astype(np.float32)
    return encode(path, samples.T, rate, "libmp3lame", bit_rate=128_000).read_bytes()


def by_packets(path: Path) -> tuple[list[tuple[int, NDArray[np.float32]]], bool]:
    """Rate and samples (n_frames, n_channels) of every frame, and True if a packet was refused."""
    frames, refused = [], False
    with av.open(f"file:{path}") as container:
        packets = container.demux(container.streams.audio[0])
        while True:
            try:
                packet = next(packets)
                frames += [(frame.sample_rate, frame.to_ndarray().T) for frame in packet.decode()]
            except StopIteration:
                return frames, refused
            except av.error.FFmpegError:
                refused = True


def assert_same(path: Path) -> bool:
    """The reader gives what the packets give, in the same order; True if it found damage."""
    frames, refused = by_packets(path)
    reader, done = FfmpegReader(path), 0
    expected = [(rate, *values) for rate, samples in frames for values in samples.tolist()]
    for block in reader.blocks():
        given = [(block.rate, *values) for values in block.samples.tolist()]
        assert given == expected[done : done + len(given)]
        done += len(given)
    assert (done, reader.damaged) == (len(expected), refused)
    return reader.damaged


@pytest.mark.parametrize(("layout", "rate"), [("stereo", 44_100), ("mono", 48_000), ("stereo", 22_050)])
def test_samples_are_those_of_the_packets(tmp_path: Path, layout: str, rate: int) -> None:
    path = tmp_path / "it's [a]; b:c, d\\=e.mp3"  # signs that mean something in descriptions of filters
    mp3(path, layout, rate)
    assert not assert_same(path)


def test_damage_is_told_and_what_lies_behind_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    whole = mp3(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(2_000) + whole[middle + 2_000 :])
    assert assert_same(path)


def test_tags_between_two_recordings_are_no_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    first, second = mp3(path), mp3(path, seed=1)
    path.write_bytes(first + b"TAG" + bytes(125) + second)
    assert_same(path)
    assert sum(len(block.samples) for block in FfmpegReader(path).blocks()) > 5.9 * 44_100


@pytest.mark.parametrize(("layout", "rate"), [("mono", 44_100), ("stereo", 48_000)])
def test_a_file_may_change_its_channels_or_its_rate(tmp_path: Path, layout: str, rate: int) -> None:
    path = tmp_path / "a.mp3"
    first, second = mp3(path), mp3(path, layout, rate)
    path.write_bytes(first + second)
    assert_same(path)
    forms = {(block.rate, block.samples.shape[1]) for block in FfmpegReader(path).blocks()}
    assert forms == {(44_100, 2), (rate, 1 if layout == "mono" else 2)}


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.mp3"
    content = np.frombuffer(mp3(path), np.uint8).copy()
    rng = np.random.default_rng(seed)
    at = rng.integers(1_000, content.size, 20)
    content[at] = rng.integers(0, 256, at.size)
    path.write_bytes(content[: content.size - 300 * (seed % 2)].tobytes())
    assert_same(path)


@pytest.mark.parametrize(("rate", "n_channels"), [(48_000, 2), (48_000, 1), (24_000, 2), (24_000, 1)])
def test_opus_is_as_close_to_what_was_encoded_as_its_own_library_gives(
    tmp_path: Path, rate: int, n_channels: int
) -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(4 * rate)[:, None] / rate
    tones = sum(0.1 * np.sin(2 * np.pi * rng.uniform(100, 3_000, n_channels) * time_s) for _ in range(4))
    soundfile.write(tmp_path / "a.opus", tones, rate, format="OGG", subtype="OPUS")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform = load_audio(tmp_path / "a.opus")
    samples, given = soundfile.read(tmp_path / "a.opus", always_2d=True)
    of_library = soxr.resample(samples.mean(axis=1), given, SAMPLE_RATE)
    encoded = soxr.resample(tones.mean(axis=1), rate, SAMPLE_RATE)
    assert waveform.size == of_library.size == encoded.size
    assert np.sum((waveform - encoded) ** 2) < 1.001 * np.sum((of_library - encoded) ** 2)


def test_a_hole_in_opus_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 8 * 48_000)
    soundfile.write(tmp_path / "a.opus", noise, 48_000, format="OGG", subtype="OPUS")
    content = (tmp_path / "a.opus").read_bytes()
    middle = len(content) // 2
    (tmp_path / "a.opus").write_bytes(content[:middle] + bytes(500) + content[middle + 500 :])
    with pytest.warns(TruncatedAudio, match=r"decoded \d\.\d s of 8\.0 s"):
        load_audio(tmp_path / "a.opus")
