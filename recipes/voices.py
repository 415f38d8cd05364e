"""Spectra of sung syllables, from recordings to ``bytecover2_milvus/songs/syllables.csv``.

    python recipes/voices.py SCORES/voices bytecover2_milvus/songs/syllables.csv

The folder has an ``index.csv`` with `path`, `voice`, `syllable` (its last word is the syllable in Latin letters) and
`f0_hz`, the pitch that all of a file is sung at. Of every syllable the take that holds its pitch best is measured: the
levels of the harmonics where the voice sets in, in the middle and towards the end, interpolated to the bands of
`songs.syllables`; the noise between them; and the spectrum and length of what is heard before the voice, the consonant.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.syllables import BANDS_HZ, COLUMNS, LEVELS, MOMENTS

CONSONANTS = ("", "k", "s", "sh", "t", "ch", "n", "h", "m", "y", "r", "w", "g", "d", "b", "p", "z", "j")
VOWELS = "aiueo"
VOICED = 0.7  # normalised autocorrelation at the pitch
QUIET_DB, FLOOR_DB = -35.0, -60.0  # of the loudest frame; of the loudest harmonic
HOP, N_WINDOW, N_FFT = 110, 1024, 4096  # samples: 5 ms, 46 ms
LONGEST_CONSONANT_S = 0.15


def main(folder: Path, out: Path) -> None:
    wanted = {consonant + vowel for consonant in CONSONANTS for vowel in VOWELS}
    best: dict[tuple[str, str], dict[str, str]] = {}
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["voice"], row["syllable"].split()[-1]
            better = key not in best or float(row["f0_sd_cents"]) < float(best[key]["f0_sd_cents"])
            if key[1] in wanted and better:
                best[key] = row
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (voice, syllable), row in sorted(best.items()):
            waveform, _ = soundfile.read(folder / row["path"])
            measured = measure(waveform, float(row["f0_hz"]))
            if measured is not None:
                writer.writerow((voice, syllable, *np.round(measured).astype(int).tolist()))


def measure(waveform: NDArray[np.float32], f0_hz: float) -> NDArray[np.float64] | None:
    """The numbers of a row: milliseconds and decibels; None where no voice is heard for a fifth of a second."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, N_WINDOW)[::HOP].astype(np.float64)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud = level_db > level_db.max() + QUIET_DB
    voiced = loud & (np.array([_periodicity(frame, f0_hz) for frame in frames]) > VOICED)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(int), [0]])))
    start, end = max(edges.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0], default=(0, 0))
    if (end - start) * HOP < 0.2 * SAMPLE_RATE:
        return None
    places = [start + np.arange(2, 8), start + ((end - start) * np.linspace(0.3, 0.6, 12)).astype(int)]
    places.append(start + ((end - start) * np.linspace(0.75, 0.9, 8)).astype(int))
    moments = [np.mean([_harmonics(frames[i], f0_hz) for i in place], axis=0) for place in places[:MOMENTS]]
    noise_db = np.mean([_between(frames[i], f0_hz) for i in places[1]])
    before = np.arange(max(0, start - int(LONGEST_CONSONANT_S * SAMPLE_RATE / HOP)), max(0, start - 2))
    heard = [i for i in before if loud[i] and not voiced[i]]
    consonant, length_ms, consonant_db = np.full(LEVELS, FLOOR_DB), 0.0, FLOOR_DB
    if len(heard) > 2:
        power = np.mean([np.abs(np.fft.rfft(frames[i] * np.hanning(N_WINDOW), N_FFT)) ** 2 for i in heard], axis=0)
        hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
        widths = np.gradient(BANDS_HZ)
        near = [np.abs(hz - centre) <= width / 2 + 20 for centre, width in zip(BANDS_HZ, widths, strict=True)]
        bands = [power[bins].mean() for bins in near]
        consonant = np.maximum(10 * np.log10(np.array(bands) / max(bands) + 1e-12), FLOOR_DB)
        length_ms = 1000 * len(heard) * HOP / SAMPLE_RATE
        consonant_db = level_db[heard].max() - level_db[places[1]].mean()
    return np.concatenate([[length_ms, consonant_db, noise_db], consonant, *moments])


def _periodicity(frame: NDArray[np.float64], f0_hz: float) -> float:
    lags = np.arange(int(SAMPLE_RATE / f0_hz / 1.12), int(SAMPLE_RATE / f0_hz * 1.12) + 2)
    scores = []
    for lag in lags:
        one, other = frame[:-lag], frame[lag:]
        scores.append(np.dot(one, other) / np.sqrt(np.dot(one, one) * np.dot(other, other) + 1e-12))
    return float(max(scores))


def _spectrum_db(frame: NDArray[np.float64]) -> NDArray[np.float64]:
    return 20 * np.log10(np.abs(np.fft.rfft(frame * np.hanning(N_WINDOW), N_FFT)) + 1e-9)


def _peaks(frame: NDArray[np.float64], f0_hz: float, at: NDArray[np.float64], pick: str) -> NDArray[np.float64]:
    spectrum, hz = _spectrum_db(frame), np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    choose = np.max if pick == "max" else np.min
    return np.array([choose(spectrum[np.abs(hz - f0_hz * number) <= 0.3 * f0_hz]) for number in at])


def _harmonics(frame: NDArray[np.float64], f0_hz: float) -> NDArray[np.float64]:
    """Levels of the harmonics at the bands, dB below the loudest, (LEVELS,)."""
    numbers = np.arange(1.0, 10_000 / f0_hz)
    levels = _peaks(frame, f0_hz, numbers, "max")
    return np.maximum(np.interp(BANDS_HZ, numbers * f0_hz, levels - levels.max()), FLOOR_DB)


def _between(frame: NDArray[np.float64], f0_hz: float) -> float:
    """Noise between the harmonics up to 4 kHz, dB below them."""
    numbers = np.arange(1.0, 4_000 / f0_hz)
    between = _peaks(frame, f0_hz, numbers + 0.5, "min")
    return float(np.mean(between - _peaks(frame, f0_hz, numbers, "max")))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
