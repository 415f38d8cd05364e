"""The channels of a file become one, block by block.

The mean of the channels, except where they cancel: of a stereo recording with one channel inverted the mean is nothing,
or the noise of the codec, and its loudest channel is the recording. Whether they cancel is decided block by block from
the last second or two, so that memory holds one block; the change from the mean to a channel takes a block.

Damaged packets decode to peaks of thousands, full scale being 1. They are cut to what recordings hold.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UnreadableAudio

SILENCE = 1e-3  # peak, full scale being 1: -60 dBFS, the level of an empty room and well above dither

_LOUDEST = 2.0  # of what a codec gives, full scale being 1: it overshoots by a few decibels
_LOUDEST_FLOAT = 8.0  # of samples in float, which masters leave higher
_RARE = 0.01  # share of the samples of a block; if more of a file in float are louder, it is of another scale
_ABSURD = 1e6  # no scale of samples in float goes beyond the 2^15 of 16 bits or the 2^19 of calibrated pascals
_STRIDE = 251  # one sample frame in so many tells the energies, some hundred in a second
_MEMORY = 0.5  # of the energies, per block: about a second
_CANCELS = 0.1  # energy of the sum of the channels to the sum of their energies: 1 if they have nothing in common
_RETURNS = 0.3  # above this the mean is taken again
_NOTABLE_S = 1.0  # seconds of cancelling channels that are worth a warning
_WINDOW_S = 0.1  # seconds in which whatever can be heard goes up and down
_AUDIBLE = 4  # windows; a constant has an edge at its start and at its end
_ARTEFACT = 0.5  # of the level, peak to peak: AAC and Vorbis make a hum of a constant, up to 0.43 of it


class Block(NamedTuple):
    """Consecutive sample frames as a decoder gives them."""

    rate: int  # Hz
    samples: NDArray[np.float32] | NDArray[np.int16]  # (n_frames, n_channels)
    full_scale: int = 1


class Mixdown:
    """One recording on its way to mono.

    Parameters
    ----------
    path : Path
        For messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.in_float = False  # the file holds samples in float, which may be of any scale: no codec made them
        self.lossy = False  # a codec made them, and adds something of its own
        self._sum, self._own = 0.0, [0.0]  # energies of the sum of the channels, and of each
        self._weights: NDArray[np.float32] | None = None
        self._channel: int | None = None  # the one that is taken alone
        self._alone_s = 0.0
        self._clipped, self._loudest = 0, 0.0
        self._sounding = 0  # windows in which something is heard, as far as they are counted

    def mix(self, block: Block) -> NDArray[np.float32]:
        """The block in mono, shape (n_frames,), full scale being 1."""
        samples = block.samples.astype(np.float32, copy=False)
        self._choose(samples)
        before, weights = self._weights, _weights(samples.shape[1], self._channel, block.full_scale)
        self._weights = weights
        mono = samples @ weights
        if before is not weights and before is not None and before.shape == weights.shape:
            fade = np.linspace(0, 1, len(mono), dtype=np.float32)
            mono = fade * mono + (1 - fade) * (samples @ before)
        if self._channel is not None:
            self._alone_s += len(mono) / block.rate
        if not mono.size:
            return mono
        in_range = block.samples.dtype == np.int16 or (mono.max() <= _LOUDEST and mono.min() >= -_LOUDEST)
        if not in_range:  # or NaN
            mono = self._tame(mono)
        if not self.audible:
            artefact = _ARTEFACT if self.lossy else 0.0
            self._sounding += _sounding(mono, max(2, round(block.rate * _WINDOW_S)), artefact)
        return mono

    @property
    def audible(self) -> bool:
        """Something was heard: a constant is not, nor the edges where a codec or an editor lets it begin and end."""
        return self._sounding >= _AUDIBLE

    def remarks(self) -> list[str]:
        """Sentences about what was done to the recording that its user should know."""
        remarks = []
        if self._alone_s >= _NOTABLE_S:
            remarks.append(
                f"its channels cancel each other for {self._alone_s:.1f} s, where one of them was taken alone; "
                "one is probably inverted"
            )
        if self._clipped:
            limit = _LOUDEST_FLOAT if self.in_float else _LOUDEST
            remarks.append(
                f"{self._clipped} samples of up to {self._loudest:.3g}, full scale being 1, were cut to {limit:g}; "
                "it is probably damaged, fetch or export it again"
            )
        return remarks

    def _choose(self, samples: NDArray[np.float32]) -> None:
        """Take one channel alone where they cancel, and the mean again where they do not."""
        n_channels = samples.shape[1]
        if len(self._own) != n_channels:
            self._sum, self._own, self._channel = 0.0, [0.0] * n_channels, None
        if n_channels == 1:
            return
        some = samples[::_STRIDE]
        products = np.dot(some.T, some).tolist()  # unlike @, it does not warn of what overflows
        self._sum = _MEMORY * self._sum + sum(map(sum, products))
        self._own = [_MEMORY * own + row[channel] for channel, (own, row) in enumerate(zip(self._own, products))]  # noqa: B905
        energy = sum(self._own)
        if not math.isfinite(energy):
            self._sum, self._own = 0.0, [0.0] * n_channels
        elif self._channel is None and self._sum < _CANCELS * energy:
            self._channel = self._own.index(max(self._own))
        elif self._channel is not None and self._sum > _RETURNS * energy:
            self._channel = None

    def _tame(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        """The block without what no recording holds."""
        finite = np.isfinite(mono)
        if self.in_float and not finite.all():
            raise UnreadableAudio(f"{self._path}: NaN or infinite samples; export it again")
        loud = np.abs(np.where(finite, mono, 0))
        peak, limit = float(loud.max()), _LOUDEST
        if self.in_float:
            limit = _LOUDEST_FLOAT
            if peak > _ABSURD:
                raise UnreadableAudio(f"{self._path}: a sample of {peak:.3g}, full scale being 1; export it again")
            if (loud > limit).mean() > _RARE:
                return mono
        beyond = int(np.count_nonzero(loud > limit) + np.count_nonzero(~finite))
        if not beyond:
            return mono
        self._clipped += beyond
        self._loudest = max(self._loudest, peak)
        return np.clip(np.nan_to_num(mono, nan=0.0, posinf=limit, neginf=-limit), -limit, limit)


@cache
def _weights(n_channels: int, channel: int | None, full_scale: int) -> NDArray[np.float32]:
    """Those of the mean, or of one channel; a product with them is faster than ``mean()``."""
    weights = np.full(n_channels, 1 / n_channels) if channel is None else np.eye(n_channels)[channel]
    return (weights / full_scale).astype(np.float32)


def _sounding(mono: NDArray[np.float32], window: int, artefact: float) -> int:
    """The number of windows in which the signal goes up and down beside a straight line.

    That is by `SILENCE`, and by more than the share `artefact` of the level around which it does.
    """
    window = min(window, mono.size)
    parts = mono[: mono.size // window * window].reshape(-1, window)
    level = parts.mean(axis=1, keepdims=True)
    parts = parts - level
    line = np.linspace(-1, 1, window, dtype=np.float32)
    parts -= (parts @ line / (line @ line))[:, None] * line
    return int(np.count_nonzero(np.ptp(parts, axis=1) >= np.maximum(2 * SILENCE, artefact * np.abs(level[:, 0]))))
