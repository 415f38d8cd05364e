"""Distortions of recordings, each at three severities: the list that `benchmarks.robustness.severity` goes through.

What is added to the music (a room, a crowd, noise), codecs and equalisers are those of
`bytecover2_milvus.audio.degrade`; here their severity is set and the rest is drawn. "Moderate" is what a listener hears
and does not mind much, such as an MP3 of 32 kbit/s, a telephone, or a band a minor third higher; "severe" is what
spoils the music.

Conventions
-----------
Waveforms are float32, mono, 22 050 Hz. A severity has one value in the unit that the distortion names. All that is
random comes from the generator that is passed; with generators of one seed all severities of a distortion are of the
same room, crowd or equaliser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import Waveform, Work, song_of
from bytecover2_milvus.audio.codec import encode_decode
from bytecover2_milvus.audio.degrade import Degradation, crowd, equaliser, noise, retune, room
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, arrange
from bytecover2_milvus.songs.render.soundfont import render_with_soundfont

SEVERITIES = ("mild", "moderate", "severe")
MODERATE = SEVERITIES[1]

Change: TypeAlias = Callable[[Waveform, float, np.random.Generator], Waveform]

MIDDLE = frozenset({"lead", "solo", "bass"})  # roles that a mix has in the middle of the stereo picture, as the drums
_PHONE_HZ = 300 * 3400  # low cut times high cut of a telephone
_NOTHING_DB = -60.0


@dataclass(frozen=True)
class Distortion:
    """One kind, from mild to severe."""

    unit: str
    steps: tuple[float, float, float]
    change: Change | None  # None where the track is played anew: `without_middle`


def beside(added_by: Degradation, waveform: Waveform, level_db: float, rng: np.random.Generator) -> Waveform:
    """The waveform with what a degradation adds to it at another level, in dB against the music."""
    added = added_by(waveform, rng) - waveform
    rms = np.sqrt(np.mean(added**2)) + 1e-12
    return waveform + added * np.float32(np.sqrt(np.mean(waveform**2)) / rms * 10 ** (level_db / 20))


def band(waveform: Waveform, low_hz: float, rng: np.random.Generator) -> Waveform:
    """Between `low_hz` and 1.02 MHz² over it, by 24 dB per octave: 300 Hz is a telephone."""
    from scipy.signal import butter, sosfilt

    edges = (low_hz, min(_PHONE_HZ / low_hz, 0.49 * SAMPLE_RATE))
    return sosfilt(butter(4, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), waveform).astype(np.float32)


def wow(waveform: Waveform, percent: float, rng: np.random.Generator) -> Waveform:
    """Of a tape whose speed wavers by `percent` either way, slowly, and by a tenth of that eight times a second."""
    from scipy.ndimage import map_coordinates

    position = np.arange(len(waveform), dtype=np.float64)
    for rate_hz, depth in ((rng.uniform(0.4, 2.0), percent / 100), (8.0, percent / 1000)):
        phase = 2 * np.pi * (rate_hz * np.arange(len(waveform)) / SAMPLE_RATE + rng.random())
        position += depth * SAMPLE_RATE / (2 * np.pi * rate_hz) * np.sin(phase)
    return map_coordinates(waveform, [position], order=3, mode="nearest", prefilter=True).astype(np.float32)


def overdrive(waveform: Waveform, gain_db: float, rng: np.random.Generator) -> Waveform:
    """Peaks raised by `gain_db` above full scale and cut off there."""
    return np.clip(waveform * np.float32(10 ** (gain_db / 20) / max(np.abs(waveform).max(), 1e-9)), -1, 1)


def antiphase(waveform: Waveform, level_db: float, rng: np.random.Generator) -> Waveform:
    """The sum of two channels in opposite phase, the second 0.3 ms later and at `level_db`: little bass is left."""
    late = round(0.0003 * SAMPLE_RATE)
    return waveform - np.float32(10 ** (level_db / 20)) * np.pad(waveform, (late, 0))[: len(waveform)]


def equalised(waveform: Waveform, times: float, rng: np.random.Generator) -> Waveform:
    """Through so many equalisers."""
    for _ in range(int(times)):
        waveform = equaliser(waveform, rng)
    return waveform


def transposed(waveform: Waveform, semitones: float, rng: np.random.Generator) -> Waveform:
    """Up or down at the same tempo."""
    import librosa

    steps = float(rng.choice([-1, 1])) * semitones
    slower = librosa.effects.time_stretch(waveform, rate=2 ** (-steps / 12)).astype(np.float32)
    return retune(slower, 100 * steps)


def retimed(waveform: Waveform, percent: float, rng: np.random.Generator) -> Waveform:
    """Slower or faster at the same pitch."""
    import librosa

    rate = (1 + percent / 100) ** float(rng.choice([-1, 1]))
    return librosa.effects.time_stretch(waveform, rate=rate).astype(np.float32)


def at_speed(waveform: Waveform, percent: float, rng: np.random.Generator) -> Waveform:
    """Slower and lower, or faster and higher."""
    return retune(waveform, float(rng.choice([-1, 1])) * 1200 * np.log2(1 + percent / 100))


def padded(waveform: Waveform, seconds: float, rng: np.random.Generator) -> Waveform:
    """With silence before and after."""
    return np.pad(waveform, round(seconds * SAMPLE_RATE))


def _coded(name: str) -> Change:
    return lambda waveform, kbits, rng: encode_decode(waveform, name, round(1000 * kbits))


DISTORTIONS: dict[str, Distortion] = {
    "MP3": Distortion("kbit/s", (64, 32, 16), _coded("libmp3lame")),
    "AAC": Distortion("kbit/s", (48, 24, 12), _coded("aac")),
    "Opus": Distortion("kbit/s", (24, 12, 6), _coded("libopus")),
    "room": Distortion("dB of reverberation against the direct sound", (-6, 0, 6), partial(beside, room)),
    "telephone": Distortion("Hz of the low cut; the high cut is 1 020 000 over it", (150, 300, 600), band),
    "crowd": Distortion("dB against the music", (-20, -12, -3), partial(beside, crowd)),
    "noise": Distortion("dB against the music", (-24, -12, 0), partial(beside, noise)),
    "tape": Distortion("per cent of wow", (0.3, 1, 3), wow),
    "loudness": Distortion("dB above full scale, cut off", (6, 12, 24), overdrive),
    "equaliser": Distortion("equalisers in series", (1, 2, 4), equalised),
    "antiphase": Distortion("dB of the opposite channel in the sum", (-6, -2, 0), antiphase),
    "vocals removed": Distortion("dB of tune, bass and drums", (-6, -12, _NOTHING_DB), None),
    "pitch": Distortion("semitones", (1, 3, 6), transposed),
    "tempo": Distortion("per cent", (6, 15, 30), retimed),
    "speed": Distortion("per cent", (2, 4, 8), at_speed),
    "silence": Distortion("s at both ends", (0.5, 5, 30), padded),
}


def without_middle(
    work: Work, number: int, level_db: float, soundfont: Path, longest_s: float
) -> NDArray[np.float32] | None:
    """The beginning of a track of a work, played with what phase cancelling removes at `level_db`; None of files.

    The difference of the two channels has what is to the sides; what is in the middle, as tune, bass and drums are, is
    gone, or lowered where the middle is not quite even.
    """
    song = song_of(work)
    if song is None:
        return None
    return render_with_soundfont(lowered(arrange(song, number), level_db), soundfont, longest_s)


def lowered(arrangement: Arrangement, level_db: float) -> Arrangement:
    """The arrangement with `MIDDLE` and the drums at `level_db`."""
    gain = 10 ** (level_db / 20)
    parts = tuple(replace(part, gain=part.gain * (gain if part.role in MIDDLE else 1.0)) for part in arrangement.parts)
    return replace(arrangement, parts=parts, drum_gain=arrangement.drum_gain * gain)
