"""From an arrangement to a waveform: every pitch of a part is synthesised once and laid down wherever it is played.

Conventions
-----------
Parts are brought to the same loudness before their gain, so that a gain means the same on a bass and on a flute. What
belongs to the recording and not to the music (players' timbres, drum kit, room, equaliser, compression) is drawn from
the arrangement's seed: the same arrangement always gives the same samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...config import SAMPLE_RATE
from ..arrange.arrangement import Arrangement, Part, seeded
from ..arrange.drums import DRUM_SOUNDS
from ..instruments import INSTRUMENTS, Instrument

PEAK = 0.9
_LYRICS = 32  # syllables that a singer has for each pitch
_N_FFT = 2**17  # of the convolution with the room, block by block


def render(arrangement: Arrangement, max_duration_s: float | None = None) -> NDArray[np.float32]:
    """The arrangement as audio.

    Parameters
    ----------
    arrangement : Arrangement
    max_duration_s : float, optional
        Render only the beginning; what is cut is not synthesised.

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono at 22 050 Hz, peak 0.9.
    """
    duration_s = arrangement.duration_s if max_duration_s is None else min(arrangement.duration_s, max_duration_s)
    n_samples = round(duration_s * SAMPLE_RATE)
    rng = seeded(arrangement.song_id, arrangement.seed, "render")
    players, drummer, room = rng.spawn(len(arrangement.parts)), *rng.spawn(2)
    mix = np.zeros(n_samples, dtype=np.float32)
    for part, player in zip(arrangement.parts, players, strict=True):
        mix += np.float32(part.gain) * _stem(part, arrangement.tuning_cents, n_samples, player)
    if len(arrangement.drums):
        mix += np.float32(arrangement.drum_gain) * _drums(arrangement.drums, n_samples, drummer)
    return at_peak(fade_out(_compress(_room(mix, room), room), arrangement))


def fade_out(mix: NDArray[np.float32], arrangement: Arrangement) -> NDArray[np.float32]:
    """`mix`, or its beginning, with the fade-out that the arrangement asks for, if it does."""
    if not arrangement.fade_out_s:
        return mix
    before_end = arrangement.duration_s * SAMPLE_RATE - np.arange(len(mix), dtype=np.float32)
    return mix * np.clip(before_end / (arrangement.fade_out_s * SAMPLE_RATE), 0, 1) ** 2


def at_peak(mix: NDArray[np.float32]) -> NDArray[np.float32]:
    """`mix` scaled to a peak of 0.9; silence stays silence."""
    peak = np.abs(mix).max(initial=0)
    return mix * np.float32(PEAK / peak) if peak > 0 else mix


def _stem(part: Part, tuning_cents: float, n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """One part alone, at the loudness that a gain of 1 means."""
    stem = np.zeros(n_samples, dtype=np.float32)
    instrument = INSTRUMENTS[part.instrument].played_by(rng)
    notes = part.notes
    start = np.round(notes["onset_s"] * SAMPLE_RATE).astype(np.int64)
    held = np.maximum(1, np.round(notes["duration_s"] * SAMPLE_RATE)).astype(np.int64)
    release = _release(instrument)
    stop = np.minimum(start + held + len(release), n_samples)
    audible = start < n_samples
    verse = rng.spawn(1)[0].integers(_LYRICS, size=len(notes)) * bool(instrument.words)
    keys = np.stack([notes["pitch"], notes["glide"], verse], axis=1)[audible]
    if not len(keys):
        return stem
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    longest = np.zeros(len(distinct), dtype=np.int64)
    group = group.ravel()  # NumPy 2.0 gives (n, 1)
    np.maximum.at(longest, group, (stop - start)[audible])
    voice = int(rng.integers(2**32))  # a tone is the same in every excerpt of the track that holds it
    tones = [
        instrument.tone(
            pitch + tuning_cents / 100, n, glide, np.random.default_rng([voice, round(100 * pitch), int(word)])
        )
        for (pitch, glide, word), n in zip(distinct.tolist(), longest.tolist(), strict=True)
    ]
    velocity = notes["velocity"].astype(np.float32)
    for which, i in zip(group.tolist(), np.flatnonzero(audible).tolist(), strict=True):
        sound = tones[which][: stop[i] - start[i]] * velocity[i]
        tail = sound[held[i] :]
        tail *= release[: len(tail)]
        stem[start[i] : stop[i]] += sound
    active = max(1, int(np.minimum(held, n_samples)[audible].sum()))
    rms = np.sqrt(np.dot(stem, stem) / min(active, n_samples)) + 1e-9
    stem *= np.float32(1 / rms)
    if instrument.drive:
        stem = np.tanh(np.float32(instrument.drive) * stem)
    return stem


def _release(instrument: Instrument) -> NDArray[np.float32]:
    n_samples = max(2, int(2 * instrument.release_s * SAMPLE_RATE))
    return np.linspace(1, 0, n_samples, dtype=np.float32) ** 2


def _drums(hits: NDArray[np.void], n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """All drum hits; a gain of 1 is a snare about as loud as a part."""
    stem = np.zeros(n_samples, dtype=np.float32)
    kits = rng.spawn(len(DRUM_SOUNDS))
    kit = {i: drum_strike(DRUM_SOUNDS[i], kits[i]) for i in np.unique(hits["sound"]).tolist()}
    starts = np.round(hits["onset_s"] * SAMPLE_RATE).astype(np.int64)
    for start, sound, velocity in zip(starts.tolist(), hits["sound"].tolist(), hits["velocity"].tolist(), strict=True):
        if start < n_samples:
            strike = kit[sound][: n_samples - start]
            stem[start : start + len(strike)] += np.float32(velocity) * strike
    return stem


# Per sound: pitch at the end of the sweep (Hz; 0 for none), sweep in octaves, its loudness, noise loudness, band of the
# noise (Hz), time constants of tone and noise (s).
DRUM_RECIPES: dict[str, tuple[float, float, float, float, tuple[float, float], float, float]] = {
    "kick": (50, 2.0, 4.0, 0.4, (100, 3000), 0.11, 0.012),
    "snare": (185, 0.4, 1.6, 1.8, (400, 9000), 0.06, 0.09),
    "rim": (420, 0.3, 1.5, 0.8, (1500, 6000), 0.02, 0.01),
    "clap": (0, 0, 0, 2.2, (900, 5000), 0.01, 0.07),
    "hat": (0, 0, 0, 1.0, (6500, 11000), 0.01, 0.03),
    "open hat": (0, 0, 0, 1.0, (6000, 11000), 0.01, 0.2),
    "ride": (3100, 0, 0.2, 0.7, (5000, 11000), 0.3, 0.25),
    "crash": (0, 0, 0, 1.6, (3000, 11000), 0.01, 0.6),
    "tom": (110, 0.6, 2.6, 0.3, (200, 3000), 0.14, 0.03),
    "shaker": (0, 0, 0, 0.8, (5000, 10000), 0.01, 0.05),
    "brush": (0, 0, 0, 1.0, (800, 8000), 0.01, 0.12),
    "tambourine": (0, 0, 0, 1.0, (4000, 11000), 0.01, 0.08),
    "conga": (210, 0.2, 2.4, 0.5, (300, 3000), 0.09, 0.015),
}


def drum_strike(sound: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """One drum as one kit has it."""
    hz, sweep, tone_level, noise_level, (low, high), tone_s, noise_s = DRUM_RECIPES[sound]
    size = rng.uniform(0.8, 1.25)  # larger drums are lower and ring longer
    low *= rng.uniform(0.35, 1.3)  # cymbals and skins reach down into the band as far as the microphone lets them
    tone_s, noise_s = tone_s * size, noise_s * rng.uniform(0.6, 1.5)
    n_samples = int(5 * max(tone_s, noise_s) * SAMPLE_RATE)
    time_s = np.arange(n_samples) / SAMPLE_RATE
    strike = np.zeros(n_samples)
    if hz:
        bend = hz / size * 2 ** (sweep * np.exp(-time_s / 0.02))
        strike += tone_level * np.sin(2 * np.pi * np.cumsum(bend) / SAMPLE_RATE) * np.exp(-time_s / tone_s)
    n_fft = 2 ** int(np.ceil(np.log2(n_samples)))
    frequencies = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    band = 1 / (1 + (low / np.maximum(frequencies, 1)) ** 4 + (frequencies / high) ** 8)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_fft)) * band)
    strike += noise_level * noise[:n_samples] * np.exp(-time_s / noise_s)
    strike[-64:] *= np.linspace(1, 0, 64)
    return strike.astype(np.float32)


def _room(mix: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The mix in a room and through an equaliser: one convolution for both."""
    lead = 1024  # samples; the equaliser is symmetric in time and needs room before the direct sound
    decay_s = float(np.exp(rng.uniform(np.log(0.05), np.log(0.25))))  # reverberation times of 0.3 to 1.7 s
    n_tail = int(5 * decay_s * SAMPLE_RATE)
    time_s = np.arange(n_tail) / SAMPLE_RATE
    tail = rng.standard_normal(n_tail) * np.exp(-time_s / decay_s)
    tail[: int(rng.uniform(0.004, 0.03) * SAMPLE_RATE)] = 0  # the first wall is some metres away
    tail[-lead:] *= np.linspace(1, 0, lead)
    tail *= rng.uniform(0.05, 0.7) / np.sqrt(np.sum(tail**2))

    frequencies = np.fft.rfftfreq(_N_FFT, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 20) / 500)
    knots = np.linspace(-4, 4, 5)
    level_db = rng.uniform(-2.5, 1) * octaves + np.interp(octaves, knots, rng.normal(0, 2, 5))
    low_cut = 1 / (1 + (30 / np.maximum(frequencies, 1)) ** 2)
    equaliser = 10 ** (level_db / 20) * low_cut * np.exp(-2j * np.pi * lead / _N_FFT * np.arange(len(frequencies)))
    dull = 1 / (1 + (frequencies / rng.uniform(2000, 6000)) ** 2)  # air and walls swallow the treble of the tail
    response = ((1 + np.fft.rfft(tail, _N_FFT) * dull) * equaliser).astype(np.complex64)

    n_block = _N_FFT - n_tail - 2 * lead
    wet = np.zeros(len(mix) + _N_FFT, dtype=np.float32)
    for start in range(0, len(mix), n_block):
        spectrum = np.fft.rfft(mix[start : start + n_block], _N_FFT)
        wet[start : start + _N_FFT] += np.fft.irfft(spectrum * response, _N_FFT)
    return wet[lead : lead + len(mix)]


def _compress(mix: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Softly limited, from hardly at all to as loud as records are made."""
    rms = np.sqrt(np.mean(mix**2)) + 1e-9
    return np.tanh(mix * np.float32(rng.uniform(0.15, 0.6) / rms))
