"""Sung syllables as levels in decibels, measured from two voices by ``recipes/voices.py``.

A syllable is a consonant, noise of some colour and length before the voice sets in, and a vowel whose spectrum is known
where it sets in, in its middle and towards its end. ``syllables.csv`` has a row for each: what was measured, no sound.

References
----------
The voices are ErithacusVB by the Erithacus Project (https://github.com/ErithacusProject/ErithacusVB, CC BY 4.0) and
UTAU-Yuki by Adios (https://github.com/kgs233/UTAU-Yuki, public domain).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE

LEVELS = 24  # bands
_LOWEST_HZ, _HIGHEST_HZ = 120.0, 9_000.0
# Evenly spaced in equivalent rectangular bandwidths, 24.7 (0.00437 hz + 1) Hz wide (Glasberg and Moore, 1990).
BANDS_HZ = (np.geomspace(0.00437 * _LOWEST_HZ + 1, 0.00437 * _HIGHEST_HZ + 1, LEVELS) - 1) / 0.00437
MOMENTS = 3  # of a vowel: where the voice sets in, in the middle, towards the end
COLUMNS = (
    *("voice", "syllable", "consonant_ms", "consonant_db", "noise_db"),
    *(f"{part}_{band}" for part in ("consonant", "start", "middle", "end") for band in range(LEVELS)),
)


@dataclass(frozen=True, eq=False)
class Syllable:
    voice: str
    name: str
    consonant_s: float  # before the voice; 0 for none
    consonant_db: float  # its loudest moment over the vowel
    noise_db: float  # breath over the harmonics
    consonant: NDArray[np.float64]  # (LEVELS,) dB
    vowel: NDArray[np.float64]  # (MOMENTS, LEVELS) dB, of harmonics

    def amplitudes(self, moment: int, hz: NDArray[np.floating]) -> NDArray[np.float64]:
        """Linear amplitudes of partials at `hz`, of the loudest 1."""
        return _levels(self.vowel[moment], hz)

    def hiss(self, n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """The consonant's noise, of RMS 1."""
        return _coloured(self.consonant, n_samples, rng)

    def breath(self, n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Noise as the tract of the vowel colours it, of RMS 1."""
        return _coloured(self.vowel[1], n_samples, rng)


@cache
def syllables() -> dict[str, tuple[Syllable, ...]]:
    """All that were measured, by voice."""
    voices: dict[str, list[Syllable]] = {}
    lines = files(__package__).joinpath("syllables.csv").read_text(encoding="utf-8").splitlines()
    for voice, name, *numbers in list(csv.reader(lines))[1:]:
        length_ms, consonant_db, noise_db, *levels = map(float, numbers)
        consonant, vowel = np.array(levels[:LEVELS]), np.array(levels[LEVELS:]).reshape(MOMENTS, LEVELS)
        voices.setdefault(voice, []).append(
            Syllable(voice, name, length_ms / 1000, consonant_db, noise_db, consonant, vowel)
        )
    return {voice: tuple(measured) for voice, measured in voices.items()}


def _levels(levels_db: NDArray[np.float64], hz: NDArray[np.floating]) -> NDArray[np.float64]:
    return 10 ** (np.interp(hz, BANDS_HZ, levels_db) / 20)


def _coloured(levels_db: NDArray[np.float64], n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    noise = np.fft.irfft(spectrum * _levels(levels_db, np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)), n_samples)
    return (noise / (np.sqrt(np.mean(noise**2)) + 1e-12)).astype(np.float32)
