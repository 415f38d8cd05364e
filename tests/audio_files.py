"""Small audio files, each seed another sound."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE


def write_tone(path: Path, seed: int, duration_s: float = 1.5) -> Path:
    """A chord of three random sine tones."""
    time_s = np.arange(int(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    pitches = np.random.default_rng(seed).uniform(100, 9000, 3)
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * pitches[:, None] * time_s).sum(axis=0), SAMPLE_RATE)
    return path


def encode(
    path: Path,
    samples: NDArray[np.float32],
    rate: int,
    codec: str,
    options: dict[str, str] | None = None,
    **settings: int,
) -> Path:
    """Samples (n_frames, n_channels) in the container that the suffix names, by an encoder of ffmpeg's for planes.

    `options` are the container's, `settings` those of the stream, such as `bit_rate`.
    """
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, **settings)
        for start in range(0, len(samples), 1024):
            planar = np.ascontiguousarray(samples[start : start + 1024].T)
            frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
            frame.rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_two_hours(path: Path) -> Path:
    """Silence that takes seconds to decode and a few blocks of the disk."""
    return write_silence(path, 2 * 3600)


def write_silence(path: Path, duration_s: int) -> Path:
    """Silence in a few blocks of the disk."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.setnframes(duration_s * 48_000)
        file.writeframesraw(b"")
    header = bytearray(path.read_bytes())
    n_bytes = 2 * duration_s * 48_000
    header[4:8], header[40:44] = (36 + n_bytes).to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, len(header) + n_bytes)
    return path


def write_melody(path: Path, seed: int, duration_s: float = 9.0, silent: tuple[float, float] = (0.0, 0.0)) -> Path:
    """A random chord every second."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    pitches = rng.uniform(100, 9000, (int(duration_s) + 1, 3))[time_s.astype(int)]  # (n_samples, 3)
    waveform = 0.2 * np.sin(2 * np.pi * pitches * time_s[:, None]).sum(axis=1)
    waveform[(time_s >= silent[0]) & (time_s < silent[1])] = 0
    soundfile.write(path, waveform, SAMPLE_RATE)
    return path
