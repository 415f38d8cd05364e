"""A waveform through a lossy codec and back, in memory."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE

CODECS = {  # encoder: decoder, sample rate in Hz, sample format, range of bits per second, samples of delay left in
    "libmp3lame": ("mp3float", SAMPLE_RATE, "fltp", (16e3, 96e3), 0),
    "aac": ("aac", SAMPLE_RATE, "fltp", (12e3, 96e3), 1024),
    "libopus": ("libopus", 24_000, "flt", (8e3, 64e3), 0),
}


def encode_decode(waveform: NDArray[np.float32], name: str, bit_rate: int) -> NDArray[np.float32]:
    """The waveform after the encoder `name` ("libmp3lame", "aac" or "libopus") at `bit_rate` bits/s."""
    import av
    import soxr

    decoder_name, rate, sample_format, _, delay = CODECS[name]
    peak = np.float32(np.abs(waveform).max(initial=0) or 1.0)
    samples = soxr.resample(waveform / peak * np.float32(0.9), SAMPLE_RATE, rate, quality="MQ")
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", sample_format
    encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, rate)
    encoder.options = {"compression_level": "7" if name == "libmp3lame" else "5"}  # twice as fast as the defaults
    frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]

    decoder = av.CodecContext.create(decoder_name, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout, decoder.extradata = rate, "mono", encoder.extradata
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])[delay:]
    if decoded.dtype == np.int16:
        decoded = decoded.astype(np.float32) / 32768
    decoded = soxr.resample(decoded, frames[0].sample_rate, SAMPLE_RATE, quality="MQ")[: len(waveform)]
    return np.pad(decoded, (0, len(waveform) - len(decoded))) * (peak / np.float32(0.9))
