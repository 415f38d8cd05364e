"""A cover of a song: another band, key, tempo and form, the same melody over (nearly) the same chords.

Everything is drawn from the song's id and a seed. What musicians change when they cover a song is drawn here; what a
recording changes (players' timbres, room, equaliser) is drawn by the renderer from the same seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bands import BAND_WEIGHTS, BANDS
from .form import ENDINGS, Clock, Segment, draw_form
from .instruments import INSTRUMENTS
from .patterns import DRUM_SOUNDS, Metre
from .players import HARMONIES, Harmony, Line, Players
from .score import Song

LOWEST_PITCH, HIGHEST_PITCH = 24, 108  # MIDI numbers

NOTE_DTYPE = np.dtype(
    [("onset_s", "f8"), ("duration_s", "f8"), ("pitch", "f4"), ("velocity", "f4"), ("glide", "f4")]
)  # pitch in MIDI numbers, glide in semitones from which the tone slides into its pitch
DRUM_DTYPE = np.dtype([("onset_s", "f8"), ("sound", "u1"), ("velocity", "f4")])  # sound: index into DRUM_SOUNDS


@dataclass(frozen=True, eq=False)
class Part:
    """What one player plays."""

    role: str  # "lead", "second voice", "solo", "fills", "comping" or "bass"
    instrument: str  # a key of INSTRUMENTS
    style: str  # of the pattern; empty for melodies
    notes: NDArray  # (n_notes,) of NOTE_DTYPE
    gain: float


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Notes in seconds and the facts they were made from."""

    song_id: str
    seed: int
    duration_s: float
    parts: tuple[Part, ...]
    drums: NDArray  # (n_hits,) of DRUM_DTYPE
    drum_gain: float
    transpose: int  # semitones
    tuning_cents: float  # off A = 440 Hz
    bpm: float
    style: str  # the kind of band
    drum_style: str  # empty for none
    swing: float  # where the off-beat falls: 0.5 is straight
    harmony: str  # what became of the chords
    form: tuple[str, ...]  # what is played, in order
    fade_out_s: float  # 0 for a real ending

    @property
    def instruments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.instrument for part in self.parts))

    def describe(self) -> str:
        """The facts in a line."""
        players = ", ".join(f"{part.instrument} ({part.style or part.role})" for part in self.parts)
        drums = f", {self.drum_style} drums" if self.drum_style else ""
        return (
            f"{self.song_id} #{self.seed}: {self.style}, {self.transpose:+d} semitones {self.tuning_cents:+.0f} cents, "
            f"{self.bpm:.0f} bpm, chords {self.harmony}; {players}{drums}; {' '.join(self.form)}; "
            f"{self.duration_s:.0f} s"
        )


def seeded(song_id: str, seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for every song, seed and purpose, the same on every machine."""
    return np.random.default_rng([zlib.crc32(song_id.encode()), seed, zlib.crc32(purpose.encode())])


def arrange(song: Song, seed: int) -> Arrangement:
    """A cover of the song, the same for the same song id and seed.

    Parameters
    ----------
    song : Song
        Short tunes are repeated, long ones cut at a bar line.
    seed : int
        Not negative.

    Returns
    -------
    arrangement : Arrangement
        Of 60 to 200 seconds.

    Raises
    ------
    SongError
        If the song's form has no beats.
    """
    rng = seeded(song.song_id, seed, "arrange")
    band = BANDS[rng.choice(len(BANDS), p=BAND_WEIGHTS)]
    metre = Metre.of(song)
    bpm = song.bpm * float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    transpose = int(rng.integers(-6, 7))
    tuning_cents = float(np.clip(rng.normal(0, 15), -40, 40))
    swing = float(rng.uniform(0.55, 0.68)) if metre.step == 0.5 and rng.random() < band.swing else 0.5
    ending = str(rng.choice(ENDINGS))
    segments = draw_form(song, metre, bpm, ending, rng)
    clock = Clock(segments[-1].end, metre, bpm, swing, band.rubato, ending, rng)
    harmony = Harmony(song, str(rng.choice(HARMONIES)), transpose, rng)
    players = Players(song, band, metre, segments, harmony, rng)
    parts = tuple(_timed(line, clock, band.jitter_s, rng) for line in players.lines())
    drum_style, hits = players.drums()
    return Arrangement(
        song.song_id,
        seed,
        duration_s=clock.end_s + float(rng.uniform(1.0, 3.0)),
        parts=parts,
        drums=_timed_drums(hits, clock, band.jitter_s, rng),
        drum_gain=float(rng.uniform(0.2, 0.9)),
        transpose=transpose,
        tuning_cents=tuning_cents,
        bpm=bpm,
        style=band.name,
        drum_style=drum_style,
        swing=swing,
        harmony=harmony.manner,
        form=tuple(_label(song, segment) for segment in segments),
        fade_out_s=float(rng.uniform(4, 10)) if ending == "fade" else 0.0,
    )


def _label(song: Song, segment: Segment) -> str:
    if segment.kind in ("intro", "ending"):
        return segment.kind
    name = song.sections[segment.section].name
    return name if segment.kind == "sung" else f"{name}({segment.kind})"


def _timed(line: Line, clock: Clock, jitter_s: float, rng: np.random.Generator) -> Part:
    """A line in seconds, played by a human being, within the instrument's range."""
    onset, duration, pitch, velocity, glide = np.array(line.events, dtype=np.float64).T
    n_notes = len(line.events)
    lowest = max(LOWEST_PITCH, INSTRUMENTS[line.instrument].lowest)
    highest = min(HIGHEST_PITCH, INSTRUMENTS[line.instrument].highest)
    pitch += 12 * np.ceil(np.maximum(0, lowest - pitch) / 12)
    pitch -= 12 * np.ceil(np.maximum(0, pitch - highest) / 12)
    late_s = rng.normal(0, jitter_s) + rng.normal(0, jitter_s, n_notes)  # the player's habit and the moment's
    notes = np.zeros(n_notes, dtype=NOTE_DTYPE)
    notes["onset_s"] = np.maximum(0, clock(onset) + late_s)
    notes["duration_s"] = np.maximum(0.04, clock(onset + duration) - clock(onset))
    notes["pitch"] = pitch
    notes["velocity"] = velocity * rng.uniform(0.85, 1.1, n_notes)
    notes["glide"] = glide
    return Part(line.role, line.instrument, line.style, notes, line.gain)


def _timed_drums(
    hits: list[tuple[float, str, float]], clock: Clock, jitter_s: float, rng: np.random.Generator
) -> NDArray:
    drums = np.zeros(len(hits), dtype=DRUM_DTYPE)
    beats = np.array([beat for beat, _, _ in hits])
    drums["onset_s"] = np.maximum(0, clock(beats) + rng.normal(0, 0.4 * jitter_s, len(hits)))
    drums["sound"] = [DRUM_SOUNDS.index(sound) for _, sound, _ in hits]
    drums["velocity"] = np.array([velocity for _, _, velocity in hits]) * rng.uniform(0.85, 1.1, len(hits))
    return drums
