"""Leads sung by recorded voices: syllables of a folder of voices, moved to the pitch and the length of notes.

What trains a model sings of measured spectra (`songs.syllables`); what it is judged by here are the recordings
themselves, cut into periods that are laid down as far apart as a note asks for.

References
----------
E. Moulines, F. Charpentier, "Pitch-synchronous waveform processing techniques for text-to-speech synthesis using
diphones", Speech Communication 1990 (TD-PSOLA).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, seeded
from bytecover2_milvus.songs.render.renderer import at_peak
from bytecover2_milvus.songs.render.soundfont import render_with_soundfont

SINGS = 2.0  # loudness of the lead over that of all others together
HELD = (0.4, 0.75)  # share of a syllable, after which a held note goes back and forth between these
VOICED = 0.6  # normalised autocorrelation at the period
_HOP = 110  # samples between places where it is looked whether a syllable is voiced


@dataclass(frozen=True, eq=False)
class Take:
    """A recorded syllable."""

    waveform: NDArray[np.float32]
    period: float  # samples
    marks: NDArray[np.int64]  # sample in the middle of each period, from where the voice sets in


@cache
def voices(folder: Path) -> dict[str, tuple[Take, ...]]:
    """The syllables in a folder with an ``index.csv`` (`path`, `voice`, `f0_hz`), by voice, but those without one.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    found: dict[str, list[Take]] = {}
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            waveform, rate = soundfile.read(folder / row["path"], dtype="float32")
            period = rate / float(row["f0_hz"])
            marks = pitch_marks(waveform, period)
            if len(marks) * period > 0.2 * rate:
                loudness = np.sqrt(np.mean(waveform[marks[0] :] ** 2))
                found.setdefault(row["voice"], []).append(Take(waveform / loudness, period, marks))
    return {voice: tuple(takes) for voice, takes in found.items()}


def pitch_marks(waveform: NDArray[np.float32], period: float) -> NDArray[np.int64]:
    """The peak of every period from where the voice sets in to where it ends."""
    lag, reach = round(period), round(4 * period)
    voiced = []
    for at in range(0, len(waveform) - reach - lag, _HOP):
        one, other = waveform[at : at + reach], waveform[at + lag : at + lag + reach]
        voiced.append(np.dot(one, other) > VOICED * np.sqrt(np.dot(one, one) * np.dot(other, other)) + 1e-6)
    edges = np.flatnonzero(np.diff([0, *map(int, voiced), 0])).reshape(-1, 2)
    if not len(edges):
        return np.zeros(0, dtype=np.int64)
    first, last = edges[np.diff(edges)[:, 0].argmax()] * _HOP + reach // 2  # half of the first window was no voice yet
    sign = 1 if waveform.max() > -waveform.min() else -1
    mark = int(first + np.argmax(sign * waveform[first : first + lag]))
    marks = []
    while mark < last + lag:
        marks.append(mark)
        around = range(round(mark + 0.85 * period), round(mark + 1.15 * period) + 1)
        if around[-1] >= len(waveform):
            break
        mark = around[int(np.argmax(sign * waveform[around[0] : around[-1] + 1]))]
    return np.array(marks, dtype=np.int64)


def sing(take: Take, pitch: float, n_samples: int) -> NDArray[np.float32]:
    """One syllable at a pitch (MIDI number), (n_samples,): its consonant as it is, its vowel stretched or cut."""
    target = SAMPLE_RATE / (440.0 * 2 ** ((pitch - 69) / 12))  # samples
    half = round(take.period)
    onset = min(int(take.marks[0]), n_samples // 3)  # of the vowel
    sound = np.zeros(n_samples + 2 * half, dtype=np.float32)
    consonant = take.waveform[take.marks[0] - onset : take.marks[0]]
    sound[half : half + onset] = consonant * np.minimum(1, np.arange(onset)[::-1] / half)
    grains = np.pad(take.waveform, half)
    window = np.hanning(2 * half + 1).astype(np.float32)
    low, high = (share * (len(take.marks) - 1) for share in HELD)
    for at in np.arange(onset, n_samples, target):
        number = (at - onset) / take.period
        if number > high:  # back and forth
            number = low + abs((number - low) % (2 * (high - low)) - (high - low))
        mark = take.marks[round(number)]
        place = round(at)
        stop = min(place + 2 * half + 1, len(sound))
        sound[place:stop] += (grains[mark : mark + 2 * half + 1] * window)[: stop - place]
    sound = sound[half : half + n_samples]
    fade = min(n_samples, SAMPLE_RATE // 20)
    sound[n_samples - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound


def sing_part(part: Part, n_samples: int, takes: dict[str, tuple[Take, ...]], seed: int) -> NDArray[np.float32]:
    """A lead sung by the voice that it suits best, (n_samples,); it moves by octaves into that voice's reach."""
    rng = np.random.default_rng(seed)
    pitches = part.notes["pitch"].astype(float)
    middle = float(np.median(pitches))
    own = {voice: 69 + 12 * np.log2(SAMPLE_RATE / taken[0].period / 440) for voice, taken in takes.items()}
    voice = min(own, key=lambda name: abs((own[name] - middle + 6) % 12 - 6))
    pitches = pitches + 12 * round((own[voice] - middle) / 12)
    line = np.zeros(n_samples, dtype=np.float32)
    for note, pitch in zip(part.notes, pitches, strict=True):
        take = takes[voice][rng.integers(len(takes[voice]))]
        start = round(note["onset_s"] * SAMPLE_RATE)
        length = min(round((note["duration_s"] + 0.05) * SAMPLE_RATE), n_samples - start)
        if length > 0:
            line[start : start + length] += note["velocity"] * sing(take, pitch, length)
    return line


def render_sung(
    arrangement: Arrangement, takes: dict[str, tuple[Take, ...]], soundfont: Path, max_duration_s: float
) -> NDArray[np.float32]:
    """An arrangement whose lead a recorded voice sings and whose other parts a sound font plays, peak 0.9."""
    leads = [part for part in arrangement.parts if part.role == "lead"]
    others = replace(arrangement, parts=tuple(part for part in arrangement.parts if part.role != "lead"))
    band = render_with_soundfont(others, soundfont, max_duration_s)
    seed = int(seeded(arrangement.song_id, arrangement.seed, "sung").integers(2**32))
    line = sum(sing_part(part, len(band), takes, seed) for part in leads)
    loudness = [np.sqrt(np.mean(np.square(sound)) + 1e-12) for sound in (band, line)]
    return at_peak(band / np.float32(loudness[0]) + np.float32(SINGS) * line / np.float32(loudness[1]))
