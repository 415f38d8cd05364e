"""The front end: from waveform to the network's input, as one torch module that exports to plain convolutions.

The constant-Q transform is multi-rate: every octave sees the same few kernels, each at half the sampling rate of the
octave above it. Decimation runs as a block-Toeplitz convolution (many outputs per stride), because a stride-2
convolution with one channel is slow on CPUs.

References
----------
C. Schoerkhuber, A. Klapuri, "Constant-Q transform toolbox for music processing", SMC 2010.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import SAMPLE_RATE, FrontEnd

HALF_BAND_TAPS = 63  # 0.002 dB ripple up to the top bin of the next octave, 90 dB down where aliases fall on it
DECIMATION_BLOCK = 64  # decimated samples per row of the block-Toeplitz kernel
SILENCE_BELOW = 1e-3  # of the loudest sample: 60 dB, by which reverberation has faded by definition
LOG_COMPRESSION = 100.0  # of the scale "log": log(1 + 100 x) / log(101)


def octave_kernels(config: FrontEnd) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Complex Hann-windowed kernels of the highest octave, and the scale of every bin.

    Returns
    -------
    kernels : np.ndarray [shape=(2 * bins_per_octave, n_taps)]
        Real parts, then imaginary parts, each filter of unit L1 norm, centred.
    scale : np.ndarray [shape=(n_bins,)]
        Square root of the filter length in samples at full rate, as librosa's ``scale=True`` leaves it.
    """
    ratio = 4 ** (1 / config.bins_per_octave)  # frequency ratio of the neighbours above and below a bin
    quality = (ratio + 1) / (ratio - 1)
    frequency = config.fmin * 2 ** (np.arange(config.n_bins) / config.bins_per_octave)  # Hz
    length = quality * SAMPLE_RATE / frequency  # samples at full rate
    top_length = length[-config.bins_per_octave :, None]
    half = math.ceil(top_length.max() / 2)
    t = np.arange(-half, half + 1)
    # Whole samples, rounded as librosa rounds them: half a sample of difference would cost 1 to 3 % of agreement.
    n = np.floor(top_length / 2) + np.ceil(top_length / 2)
    position = np.ceil(top_length / 2) - t
    window = np.where((position >= 0) & (position < n), 0.5 - 0.5 * np.cos(2 * np.pi * position / n), 0)
    window /= window.sum(axis=1, keepdims=True)
    phase = 2 * np.pi * frequency[-config.bins_per_octave :, None] / SAMPLE_RATE * t
    kernels = np.concatenate([window * np.cos(phase), -window * np.sin(phase)])
    return kernels.astype(np.float32), np.sqrt(length)


def half_band_kernel() -> NDArray[np.float32]:
    """Block-Toeplitz kernel of a half-band low-pass followed by decimation by two, shape (64, 2 * 63 + 63 taps)."""
    t = np.arange(HALF_BAND_TAPS) - HALF_BAND_TAPS // 2
    low_pass = np.sinc(t / 2) * np.kaiser(HALF_BAND_TAPS, 9.0)
    low_pass /= low_pass.sum()
    kernel = np.zeros((DECIMATION_BLOCK, 2 * (DECIMATION_BLOCK - 1) + HALF_BAND_TAPS))
    for row in range(DECIMATION_BLOCK):
        kernel[row, 2 * row : 2 * row + HALF_BAND_TAPS] = low_pass
    return kernel.astype(np.float32)


class ConstantQ(nn.Module):
    """CQT magnitude (B, n_bins, 1 + n_samples // hop_length) of waveform (B, n_samples), as ``abs(librosa.cqt())``."""

    kernels: Tensor
    half_band: Tensor
    scale: Tensor

    def __init__(self, config: FrontEnd) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        self.n_octaves = config.n_octaves
        kernels, scale = octave_kernels(config)
        self.register_buffer("kernels", torch.from_numpy(kernels)[:, None], persistent=False)
        self.register_buffer("half_band", torch.from_numpy(half_band_kernel())[:, None], persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32))[:, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        n_frames = 1 + waveform.shape[1] // self.hop_length
        signal = waveform[:, None]  # (B, 1, n_samples)
        octaves = []
        for octave in range(self.n_octaves):
            if octave:
                signal = self._decimate(signal)
            octaves.append(self._analyse(signal, self.hop_length >> octave)[:, :, :n_frames])
        return torch.cat(octaves[::-1], dim=1) * self.scale  # (B, n_bins, n_frames)

    def _decimate(self, signal: Tensor) -> Tensor:
        """Half the rate; a few zeros follow the end, which framing needs anyway."""
        padded = F.pad(signal, (HALF_BAND_TAPS // 2, self.half_band.shape[-1]))
        blocks = F.conv1d(padded, self.half_band, stride=2 * DECIMATION_BLOCK)  # (B, 64, n_blocks)
        return blocks.transpose(1, 2).flatten(1)[:, None]

    def _analyse(self, signal: Tensor, hop_length: int) -> Tensor:
        half = self.kernels.shape[-1] // 2
        padded = F.pad(signal, (half, half + 1))  # the last frame may be centred one sample after the end
        response = F.conv1d(padded, self.kernels, stride=hop_length)  # (B, 2 * bins, n_frames or more)
        real, imaginary = response.chunk(2, dim=1)
        return torch.sqrt(real.square() + imaginary.square())


def skip_silence(cqt: Tensor, waveform: Tensor, hop_length: int) -> Tensor:
    """The frames between the silences at both ends, from the first on, over and over until there are as many as before.

    So a recording begins with its first sound, wherever silence put that on the grid of input frames, and a batch may
    hold recordings with more and with less silence; cqt (B, n_bins, T) of waveform (B, n_samples) -> (B, n_bins, T).
    Whether it is silent is told by samples: filters of low bins hear a sound a quarter of a second before it begins.
    """
    n_frames = cqt.shape[2]
    padded = F.pad(waveform.abs(), (0, hop_length))[:, : n_frames * hop_length]
    level = padded.unflatten(1, (n_frames, hop_length)).amax(dim=2)  # (B, T)
    sounds = level >= SILENCE_BELOW * level.amax(dim=1, keepdim=True)
    frame = torch.arange(n_frames, device=cqt.device)
    first = torch.where(sounds, frame, n_frames).amin(dim=1, keepdim=True)
    last = torch.where(sounds, frame, -1).amax(dim=1, keepdim=True)
    taken = first + torch.remainder(frame, last - first + 1)  # (B, T)
    return cqt.gather(2, taken[:, None].expand(-1, cqt.shape[1], -1))


def pool_time(cqt: Tensor, frames: int) -> Tensor:
    """Mean over non-overlapping blocks, (B, n_bins, T) -> (B, n_bins, T // frames); the last partial one is dropped."""
    n_blocks = cqt.shape[2] // frames
    return cqt[:, :, : n_blocks * frames].unflatten(2, (n_blocks, frames)).mean(dim=3)


def scale_magnitude(cqt: Tensor, scale: str) -> Tensor:
    """Magnitude over each track's maximum, compressed as `scale` says; (B, n_bins, T) in [0, 1]."""
    cqt = cqt / cqt.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    if scale == "sqrt":
        return torch.sqrt(cqt)
    if scale == "log":
        return torch.log1p(LOG_COMPRESSION * cqt) / math.log1p(LOG_COMPRESSION)
    return cqt


class WaveformToCQT(nn.Module):
    """The whole front end: waveform (B, n_samples) -> cqt (B, n_bins, n_frames // time_pooling) in [0, 1]."""

    def __init__(self, config: FrontEnd) -> None:
        super().__init__()
        self.config = config
        self.constant_q = ConstantQ(config)

    def forward(self, waveform: Tensor) -> Tensor:
        return scale_magnitude(self.pooled(waveform, self.constant_q(waveform)), self.config.scale)

    def pooled(self, waveform: Tensor, cqt: Tensor, frames: int | None = None) -> Tensor:
        """The mean of a waveform's cqt (B, n_bins, n_frames) over so many frames, silence kept or skipped.

        Without `frames`, over `time_pooling` of them.
        """
        if self.config.silence == "skipped":
            cqt = skip_silence(cqt, waveform, self.config.hop_length)
        return pool_time(cqt, frames or self.config.time_pooling)
