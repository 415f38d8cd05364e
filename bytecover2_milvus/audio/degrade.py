"""Degradations of a waveform, as recordings have them: rooms, microphones, tapes, crowds and codecs.

Two recordings of one performance differ by a chain of such things. `degrade` draws a chain; each link stands by itself
in `DEGRADATIONS`, in the order in which sound meets them on its way from the stage to a file.

Conventions
-----------
Waveforms are float32, mono, 22 050 Hz. All that is random comes from the generator that is passed, so the same
generator gives the same samples. What is drawn is drawn once for the whole waveform, as the history of a recording is.
No link looks at the level in absolute terms, and none makes a waveform empty or puts NaN into it, even if it is silent
or one second short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..errors import ConfigError
from .codec import CODECS, encode_decode

Waveform: TypeAlias = NDArray[np.float32]  # (n_samples,)
Degradation: TypeAlias = Callable[[Waveform, np.random.Generator], Waveform]

SHORTEST_EXCERPT_S = 20.0  # seconds; a waveform that is shorter is left whole
LONGEST_CHAIN = 5  # links that `degrade` draws at most

_BANDS = {  # Hz: ranges of the low and of the high cut
    "telephone": ((250, 400), (2800, 3600)),
    "old record": ((80, 250), (3000, 6000)),
    "small speaker": ((150, 600), (9000, 11000)),
    "next room": ((20, 40), (500, 2500)),
    "far away": ((60, 120), (2500, 7000)),
}
_N_FFT = 2048  # of `remix`: 93 ms
_BLOCK = 256  # samples for which a compressor measures one level: 12 ms


def degrade(
    waveform: Waveform, seed: int | np.random.Generator, kinds: Iterable[str] | None = None
) -> NDArray[np.float32]:
    """The waveform after one to five degradations, drawn from the seed.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono, 22 050 Hz.
    seed : int or np.random.Generator
    kinds : iterable of str, optional
        The keys of `DEGRADATIONS` to draw from; all of them by default.

    Returns
    -------
    degraded : np.ndarray [shape=(m_samples,)]
        Peak at most 1; longer, shorter, faster or slower than `waveform` where the links drawn make it so.

    Raises
    ------
    ConfigError
        If `kinds` is empty or holds a name that is no key of `DEGRADATIONS`.
    """
    chosen = chosen_kinds(kinds)
    rng = np.random.default_rng(seed)
    count = min(int(rng.integers(1, LONGEST_CHAIN + 1)), len(chosen))
    drawn = set(rng.choice(chosen, size=count, replace=False).tolist())
    for kind, change in DEGRADATIONS.items():
        if kind in drawn:
            waveform = change(waveform, rng)
    return waveform / np.float32(max(1.0, _peak(waveform)))


def chosen_kinds(kinds: Iterable[str] | None) -> list[str]:
    """The keys of `DEGRADATIONS` that are among `kinds`, in their order; all of them where `kinds` is None.

    Raises
    ------
    ConfigError
        If `kinds` is empty or holds a name that is no key of `DEGRADATIONS`.
    """
    wanted = set(DEGRADATIONS if kinds is None else kinds)
    if not wanted or wanted - DEGRADATIONS.keys():
        unknown = ", ".join(sorted(wanted - DEGRADATIONS.keys())) or "none"
        raise ConfigError(f"degradations: {unknown}; choose from {', '.join(DEGRADATIONS)}")
    return [kind for kind in DEGRADATIONS if kind in wanted]


def retune(waveform: Waveform, cents: float) -> Waveform:
    """Played faster or slower so that every pitch is `cents` higher, by a band-limited resampler."""
    import soxr

    return soxr.resample(waveform, SAMPLE_RATE * 2 ** (cents / 1200), SAMPLE_RATE, quality="MQ").astype(np.float32)


def tuning(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Off A = 440 Hz by up to half a semitone either way."""
    return retune(waveform, rng.uniform(-50, 50))


def tape(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A machine whose speed is wrong by up to a semitone, and wavers: slowly (wow) and fast (flutter)."""
    n_samples = max(2, round(len(waveform) * 2 ** (rng.uniform(-1, 1) / 12)))
    time_s = np.arange(n_samples) / SAMPLE_RATE
    position = np.linspace(0, len(waveform) - 1, n_samples)
    for rate_hz, depth in ((rng.uniform(0.3, 3), 10 ** rng.uniform(-3, -2)), (rng.uniform(5, 12), 10**-3.2)):
        swing = depth * SAMPLE_RATE / (2 * np.pi * rate_hz)  # samples by which the tape is ahead or behind
        position += swing * np.sin(2 * np.pi * (rate_hz * time_s + rng.random()))
    return _read_at(waveform, np.clip(position, 0, len(waveform) - 1))


def remix(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Sustained and struck sounds against each other, louder or softer by up to 12 dB.

    A soft mask from two means of the spectrogram, along time and along frequency (after D. FitzGerald,
    "Harmonic/percussive separation using median filtering", DAFx 2010, with means in place of medians for speed).
    """
    hop = _N_FFT // 2
    window = np.sqrt(np.hanning(_N_FFT + 1)[:-1]).astype(np.float32)
    padded = np.pad(waveform, (hop, hop + -len(waveform) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::hop]
    spectrum = np.fft.rfft(frames * window).astype(np.complex64)  # (n_frames, n_frequencies)
    magnitude = np.abs(spectrum)
    sustained, struck = _moving_mean(magnitude, 13, axis=0) ** 2, _moving_mean(magnitude, 33, axis=1) ** 2
    gain = np.float32(10 ** (rng.choice([-1, 1]) * rng.uniform(4, 12) / 20))
    spectrum *= 1 + (gain - 1) * sustained / (sustained + struck + np.float32(1e-20))
    mixed = np.zeros(len(padded), dtype=np.float32)
    pieces = np.fft.irfft(spectrum, _N_FFT).astype(np.float32) * window
    for half in (0, 1):  # frames of one parity do not overlap
        part = pieces[half::2].reshape(-1)
        mixed[half * hop : half * hop + len(part)] += part
    return mixed[hop : hop + len(waveform)]


def room(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Heard in a room: convolved with a noise that decays within 0.2 to 3 s, its treble sooner than its bass."""
    decay_s = np.exp(rng.uniform(np.log(0.2), np.log(3.0)))  # to -60 dB
    time_s = np.arange(round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    low, high = (rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / end) for end in (decay_s, decay_s / 2.5))
    response = _moving_mean(low, 8, axis=0) * 2.8 + high
    response[: round(rng.uniform(0.002, 0.03) * SAMPLE_RATE)] = 0  # the first wall is some metres away
    reverberant = 10 ** (rng.uniform(-15, 6) / 20)  # against the direct sound
    response *= reverberant / np.sqrt(np.sum(response**2) + 1e-12)
    response[0] = 1
    n_fft = _fast_length(len(waveform) + len(response))
    spectrum = np.fft.rfft(waveform, n_fft) * np.fft.rfft(response.astype(np.float32), n_fft)
    return np.fft.irfft(spectrum, n_fft)[: len(waveform)].astype(np.float32)


def crowd(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """An audience: it claps at the beginning, at the end or both, and may talk all along."""
    n_samples = len(waveform)
    time_s = np.arange(n_samples, dtype=np.float32) / SAMPLE_RATE
    noise = rng.standard_normal(n_samples, dtype=np.float32)
    level = _rms(waveform)
    heard = waveform.copy()
    ends = int(rng.integers(4))  # bit 1: the beginning, bit 2: the end, none: only talk
    if ends:
        applause_s = rng.uniform(2, 12, size=2)
        swell = np.zeros(n_samples, dtype=np.float32)
        if ends & 1:
            swell = np.exp(-time_s / np.float32(applause_s[0] / 2))
        if ends & 2:
            swell = np.maximum(swell, np.exp((time_s - time_s[-1]) / np.float32(applause_s[1] / 2)))
        hands = np.zeros(n_samples, dtype=np.float32)
        strikes = rng.integers(n_samples, size=max(1, round(rng.uniform(30, 300) * n_samples / SAMPLE_RATE)))
        hands[strikes] = rng.uniform(0.2, 1, size=len(strikes))
        hands = np.convolve(hands, np.exp(-np.arange(200) / 50).astype(np.float32))[:n_samples]  # 2 ms each
        claps = _filter(noise * hands, lambda hz: _between(hz, rng.uniform(500, 1000), rng.uniform(2500, 5000), 2))
        heard += _at_level(claps, level * rng.uniform(0.5, 2)) * swell
    if not ends or rng.random() < 0.5:
        at_s = np.arange(0, time_s[-1] + 1, rng.uniform(0.1, 0.2))  # a syllable each
        loudness = np.interp(time_s, at_s, rng.random(len(at_s)) ** 2).astype(np.float32)
        talk = _filter(noise[::-1] * loudness, lambda hz: _between(hz, 200, 1500, 2))
        heard += _at_level(talk, level * 10 ** (-rng.uniform(8, 25) / 20))
    return heard


def noise(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Hiss (white), rumble (pink to brown), mains hum or the crackle of a record, 5 to 35 dB below the music."""
    n_samples = len(waveform)
    kind = rng.choice(["hiss", "rumble", "hum", "crackle"])
    if kind == "hum":
        mains_hz = rng.choice([50.0, 60.0])
        time_s = np.arange(n_samples) / SAMPLE_RATE
        added = sum(
            rng.uniform(0.1, 1) / harmonic * np.sin(2 * np.pi * (harmonic * mains_hz * time_s + rng.random()))
            for harmonic in range(1, 7)
        )
    elif kind == "crackle":
        added = np.zeros(n_samples, dtype=np.float32)
        clicks = rng.integers(n_samples, size=max(1, round(rng.uniform(2, 40) * n_samples / SAMPLE_RATE)))
        added[clicks] = rng.standard_normal(len(clicks)) ** 3
        added = _filter(added, lambda hz: _between(hz, 300, rng.uniform(2000, 8000), 1))
    else:
        slope = 0 if kind == "hiss" else rng.uniform(0.5, 1.0)  # of the amplitude: 0.5 is pink, 1 is brown
        added = _filter(
            rng.standard_normal(n_samples, dtype=np.float32), lambda hz: np.maximum(hz, 20) ** -slope if slope else 1.0
        )
    return waveform + _at_level(np.asarray(added, dtype=np.float32), _rms(waveform) * 10 ** (-rng.uniform(5, 35) / 20))


def equaliser(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A tilt of up to 3 dB per octave either way, and bumps of 4 dB (standard deviation) on it, an octave apart."""
    octaves = np.arange(-5, 6)  # around 500 Hz
    gain_db = rng.uniform(-3, 3) * octaves + rng.normal(0, 4, size=len(octaves))
    return _filter(waveform, lambda hz: 10 ** (np.interp(np.log2(np.maximum(hz, 10) / 500), octaves, gain_db) / 20))


def band(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Through a telephone, off an old record, from a small speaker, from the next room or from far away."""
    low, high = (rng.uniform(*limits) for limits in _BANDS[rng.choice(list(_BANDS))])
    order = int(rng.integers(2, 5))  # 12 to 24 dB per octave
    return _filter(waveform, lambda hz: _between(hz, low, high, order))


def compression(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Loud and soft brought together, ratio 2 to 12 above a level that music often exceeds; what is slow pumps."""
    n_blocks = -(-len(waveform) // _BLOCK)
    blocks = np.pad(waveform, (0, n_blocks * _BLOCK - len(waveform))).reshape(n_blocks, _BLOCK)
    level_db = 10 * np.log10(np.mean(blocks**2, axis=1, dtype=np.float64) + 1e-12)
    fall_db = rng.uniform(20, 200) * _BLOCK / SAMPLE_RATE * np.arange(n_blocks)  # the release, per second
    level_db = np.maximum.accumulate(level_db + fall_db) - fall_db
    threshold_db = np.percentile(level_db, rng.uniform(5, 50))
    gain_db = (1 / rng.uniform(2, 12) - 1) * np.maximum(level_db - threshold_db, 0)
    centre = (np.arange(n_blocks) + 0.5) * _BLOCK
    gain = np.interp(np.arange(len(waveform)), centre, 10 ** (gain_db / 20)).astype(np.float32)
    return _at_level(waveform * gain, _rms(waveform))


def clipping(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Recorded too loud: 0.1 to 10 % of the samples are cut off, hard or softly."""
    share = 10 ** rng.uniform(-3, -1)
    ceiling = np.float32(max(np.quantile(np.abs(waveform[::8]), 1 - share), 1e-6))
    if rng.random() < 0.5:
        return np.clip(waveform, -ceiling, ceiling)
    return ceiling * np.tanh(waveform / ceiling)


def excerpt(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A stretch of 20 s or more."""
    shortest = min(round(SHORTEST_EXCERPT_S * SAMPLE_RATE), len(waveform))
    n_samples = int(rng.integers(shortest, len(waveform) + 1))
    start = int(rng.integers(len(waveform) - n_samples + 1))
    return waveform[start : start + n_samples].copy()


def silence(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Up to 5 s of nothing before and after."""
    return np.pad(waveform, tuple(np.round(rng.uniform(0, 5, size=2) * SAMPLE_RATE).astype(int)))


def codec(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Through MP3, AAC or Opus at a bit rate from hardly usable to transparent; length and alignment stay."""
    name = rng.choice(list(CODECS))
    low, high = np.log(CODECS[name][3])
    return encode_decode(waveform, str(name), int(np.exp(rng.uniform(low, high))))


DEGRADATIONS: dict[str, Degradation] = {
    "tuning": tuning,
    "remix": remix,
    "room": room,
    "crowd": crowd,
    "equaliser": equaliser,
    "compression": compression,
    "tape": tape,
    "band": band,
    "noise": noise,
    "clipping": clipping,
    "excerpt": excerpt,
    "silence": silence,
    "codec": codec,
}


def _filter(waveform: Waveform, gain: Callable[[NDArray[np.floating]], NDArray[np.floating] | float]) -> Waveform:
    """The waveform through a filter of zero phase with amplitude `gain` at a frequency in Hz."""
    n_fft = _fast_length(len(waveform) + SAMPLE_RATE // 4)  # the response must not reach round into the other end
    spectrum = np.fft.rfft(waveform, n_fft)
    spectrum *= gain(np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE))
    return np.fft.irfft(spectrum, n_fft)[: len(waveform)].astype(np.float32)


def _between(hz: NDArray[np.floating], low: float, high: float, order: int) -> NDArray[np.floating]:
    """Amplitude of a Butterworth band-pass of 6 dB per octave and order."""
    return 1 / np.sqrt((1 + (low / np.maximum(hz, 1)) ** (2 * order)) * (1 + (hz / high) ** (2 * order)))


def _read_at(waveform: Waveform, position: NDArray[np.float64]) -> Waveform:
    """Samples at fractional positions, by a cubic through four neighbours (Catmull-Rom)."""
    index = np.clip(position.astype(np.int64), 1, max(1, len(waveform) - 3))
    x = (position - index).astype(np.float32)
    before, left, right, after = (waveform[np.clip(index + i, 0, len(waveform) - 1)] for i in (-1, 0, 1, 2))
    slope, bend = (right - before) / 2, (after - left) / 2
    cubic = x * (3 * (right - left) - 2 * slope - bend + x * (2 * (left - right) + slope + bend))
    return (left + x * (slope + cubic)).astype(np.float32, copy=False)


def _moving_mean(values: NDArray[np.floating], width: int, axis: int) -> NDArray[np.floating]:
    """Mean over `width` neighbours along `axis`, zeros beyond the ends."""
    pads = [(0, 0)] * values.ndim
    pads[axis] = (width // 2 + 1, (width - 1) // 2)
    total = np.cumsum(np.pad(values, pads), axis=axis, dtype=np.float64)
    total = np.moveaxis(total, axis, 0)
    return np.moveaxis((total[width:] - total[:-width]) / width, 0, axis).astype(values.dtype)


def _fast_length(n_samples: int) -> int:
    """The smallest length of an FFT from `n_samples` on that is 9 to 16 times a power of two."""
    power = max(0, (n_samples - 1).bit_length() - 4)
    return -(-n_samples >> power) << power


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.dot(waveform, waveform) / len(waveform)))


def _peak(waveform: Waveform) -> float:
    return float(max(waveform.max(), -waveform.min()))


def _at_level(waveform: Waveform, rms: float) -> Waveform:
    """The waveform at another root mean square, silence staying silence."""
    return waveform * np.float32(rms / (_rms(waveform) + 1e-12))
