"""Augmentation of CQT magnitudes, as recordings differ: key, tuning, tempo, tone, loudness, room, noise, masks.

Magnitudes (n_bins, T) in and out, T in input frames of the network. Every change has its setting in `Training` and is
off where the setting is 0. What needs a waveform (codecs, clipping, tape) is in `bytecover2_milvus.audio.degrade`.

References
----------
D. S. Park et al., "SpecAugment: A simple data augmentation method for automatic speech recognition", 2019: the masks.
M. R. Schroeder, "Statistical parameters of the frequency response curves of large rooms", J. Audio Eng. Soc. 35, 1987
(German original 1954): the phases of a room.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...config import Training

Cqt = NDArray[np.float32]

_ROOM_DB = -20.0, 6.0  # of the reverberation against the direct sound
_DRIEST_ROOM = 0.06  # the shortest decay, as a share of the longest
_ROOM_TAIL = 8.0  # time constants after which a tail is inaudible
_CROWD_PEAK, _CROWD_WIDTH = 60.0, 18.0  # bins (1 kHz) and its spread: where applause and talk are loudest


def augment(cqt: Cqt, training: Training, frame_s: float, rng: np.random.Generator) -> Cqt:
    """All changes that `training` sets, each drawn anew; `frame_s` is the length of a frame in seconds.

    Each draws from a stream of its own: what one of them does never depends on whether another is on.
    """
    key, tuning, room, tone, loudness, hiss, crowd, silence, time, bins = rng.spawn(10)
    if training.transpose:
        cqt = transpose(cqt, int(key.integers(-training.transpose, training.transpose + 1)))
    if training.tuning:
        cqt = retune(cqt, tuning.uniform(-training.tuning, training.tuning))
    if training.room_s:
        decay_s = training.room_s * np.exp(room.uniform(np.log(_DRIEST_ROOM), 0))
        cqt = reverberate(cqt, decay_s / frame_s, 10 ** (room.uniform(*_ROOM_DB) / 20), room)
    if training.equaliser_db:
        cqt = cqt * _smooth_gain(len(cqt), training.equaliser_db, tone)[:, None]
    if training.compression:
        cqt = compress(cqt, loudness.uniform(0, training.compression))
    if training.noise:
        level = np.float32(hiss.uniform(0, training.noise) * cqt.max())
        tilt = np.exp2(hiss.uniform(-0.5, 0.5) * (np.arange(len(cqt)) / 12 - 3.5)).astype(np.float32)  # per octave
        cqt = cqt + level * tilt[:, None] * _hiss(cqt.shape, hiss)
    if crowd.random() < training.crowd:
        cqt = cqt + _crowd(cqt, frame_s, crowd)
    if silence.random() < training.silence:
        cqt = _with_silence(cqt, silence)
    if training.mask_s:
        cqt = _masked(cqt, axis=1, longest=round(training.mask_s / frame_s), rng=time)
    if training.mask_bins:
        cqt = _masked(cqt, axis=0, longest=training.mask_bins, rng=bins)
    return cqt


def stretch(cqt: Cqt, n_frames: int) -> Cqt:
    """The same music in `n_frames`, by linear interpolation in time: (n_bins, T) -> (n_bins, n_frames)."""
    position = np.linspace(0, cqt.shape[1] - 1, n_frames)
    left = np.minimum(position.astype(int), cqt.shape[1] - 2)
    weight = (position - left).astype(cqt.dtype)
    return cqt[:, left] * (1 - weight) + cqt[:, left + 1] * weight


def transpose(cqt: Cqt, bins: int) -> Cqt:
    """Up by `bins`, zeros where nothing moved in: a roll would wrap bass into treble."""
    moved = np.zeros_like(cqt)
    if bins >= 0:
        moved[bins:] = cqt[: len(cqt) - bins]
    else:
        moved[:bins] = cqt[-bins:]
    return moved


def retune(cqt: Cqt, bins: float) -> Cqt:
    """Up by a fraction of a bin, between -1 and 1."""
    return np.sqrt(retune_power(np.square(cqt), bins))


def retune_power(power: Cqt, bins: float) -> Cqt:
    """Up by a fraction of a bin, between -1 and 1: power moves to the neighbour."""
    moved = transpose(power, 1 if bins >= 0 else -1)
    return power + np.float32(abs(bins)) * (moved - power)


def reverberate(cqt: Cqt, decay_frames: float, wet: float, rng: np.random.Generator) -> Cqt:
    """The CQT in a room whose reverberation is `wet` against the direct sound and falls to 1/e within `decay_frames`.

    Both are amplitudes. What arrives within a frame meets the direct sound in a phase that is as good as random and
    stays what it is for each bin (Schroeder): a tone may gain or vanish. What arrives later is a tail.
    """
    power = np.square(cqt)
    tail = room_tail(decay_frames, wet, 1 + int(min(_ROOM_TAIL * decay_frames, cqt.shape[1] - 1)))
    phases = np.sqrt(tail[0] / 2) * rng.standard_normal((2, len(cqt)))
    result = (np.square(1 + phases[0]) + np.square(phases[1])).astype(np.float32)[:, None] * power
    add_tail(result, power, tail)
    return np.sqrt(result)


def room_tail(decay_frames: float, wet: float, n_frames: int) -> NDArray[np.float64]:
    """Power of a room's reverberation (n_frames,), from the frame of the direct sound on; an endless one sums to wet².

    `decay_frames` and `wet` are those of `reverberate`.
    """
    return wet**2 * np.exp(-2 / decay_frames * np.arange(n_frames)) * -np.expm1(-2 / decay_frames)


def add_tail(direct: Cqt, power: Cqt, tail: NDArray[np.float64]) -> None:
    """Add to the power of the direct sound what `room_tail` makes of `power` in the frames after it, in place."""
    for frames, gain in enumerate(tail[1:].tolist(), start=1):
        direct[:, frames:] += np.float32(gain) * power[:, :-frames]


def compress(cqt: Cqt, share: float) -> Cqt:
    """Every frame's loudness brought nearer to that of the loudest, by `share` of its distance in decibels."""
    loudness = np.sqrt(np.square(cqt).sum(axis=0))  # (T,)
    floor = 1e-3 * loudness.max() + 1e-12  # below it is silence, which stays
    return cqt * (np.maximum(loudness, floor) / (loudness.max() + 1e-12)).astype(np.float32) ** np.float32(-share)


def _smooth_gain(n_bins: int, spread_db: float, rng: np.random.Generator) -> Cqt:
    knots_db = rng.normal(0, spread_db / 2, size=6)
    gain_db = np.interp(np.arange(n_bins), np.linspace(0, n_bins - 1, len(knots_db)), knots_db)
    return (10 ** (gain_db / 20)).astype(np.float32)


def _hiss(shape: tuple[int, ...], rng: np.random.Generator) -> Cqt:
    """Magnitudes of noise as a mean over many CQT frames leaves them: around 1, never negative."""
    return np.abs(1 + 0.3 * rng.standard_normal(shape, dtype=np.float32))


def _crowd(cqt: Cqt, frame_s: float, rng: np.random.Generator) -> Cqt:
    """Applause and talk: a broad band of noise at the beginning, at the end, or all along but softer."""
    n_bins, n_frames = cqt.shape
    peak = _CROWD_PEAK + rng.normal(0, 6)
    band = np.exp(-0.5 * ((np.arange(n_bins) - peak) / (_CROWD_WIDTH * rng.uniform(0.7, 1.5))) ** 2)
    level = np.sqrt(np.square(cqt).mean()) * rng.uniform(0.3, 2.0)
    time_s = frame_s * np.arange(n_frames)
    fade_s = rng.uniform(2, 10)
    envelope = {
        "beginning": np.exp(-time_s / fade_s),
        "end": np.exp((time_s - time_s[-1]) / fade_s),
        "all": np.full(n_frames, 0.3),
    }[str(rng.choice(["beginning", "end", "all"]))]
    return (level * band[:, None] * envelope).astype(np.float32) * _hiss(cqt.shape, rng)


def _with_silence(cqt: Cqt, rng: np.random.Generator) -> Cqt:
    silent = cqt.copy()
    length = int(rng.integers(1 + cqt.shape[1] // 4))
    silent[:, slice(None, length) if rng.random() < 0.5 else slice(cqt.shape[1] - length, None)] = 0
    return silent


def _masked(cqt: Cqt, axis: int, longest: int, rng: np.random.Generator) -> Cqt:
    masked = cqt.copy()
    width = int(rng.integers(min(longest, cqt.shape[axis] // 2) + 1))
    start = int(rng.integers(cqt.shape[axis] - width + 1))
    masked[(slice(start, start + width), slice(None)) if axis == 0 else (slice(None), slice(start, start + width))] = 0
    return masked
