"""Recordings small enough to lie in a page."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE

MOST_BYTES = 3 << 20  # of one recording
BIT_RATES = (48_000, 40_000, 32_000, 24_000, 16_000, 8_000)  # bit/s of MP3 at 22 050 Hz; every browser plays it
_BLOCK = 1 << 20  # samples encoded at once


def compress(waveform: NDArray[np.float32], most_bytes: int = MOST_BYTES) -> bytes | None:
    """An MP3 of a waveform, at the highest of `BIT_RATES` that keeps it within `most_bytes`; None if none does.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)] of float32
        Mono, 22 050 Hz.
    most_bytes : int
        3 MiB hold 8.7 minutes at the highest rate, and 52 at the lowest.
    """
    import av

    duration_s = len(waveform) / SAMPLE_RATE
    # MP3 frames of constant size; a second more for the header and the encoder's delay.
    bit_rate = next((rate for rate in BIT_RATES if rate / 8 * (duration_s + 1) <= most_bytes), None)
    if bit_rate is None:
        return None
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono", format="fltp")
        stream.bit_rate = bit_rate
        for start in range(0, len(waveform), _BLOCK):
            block = np.ascontiguousarray(waveform[start : start + _BLOCK].clip(-1, 1), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
