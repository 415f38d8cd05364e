"""A cover of a song: another band, key, tempo and form, the same melody over (nearly) the same chords.

Everything is drawn from the song's id and a seed. What musicians change when they cover a song is drawn here; what a
recording changes (players' timbres, room, equaliser) is drawn by the renderer from the same seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SongError
from ..score import Song
from .adapt import in_other_metre, in_parallel_mode
from .bands import BAND_WEIGHTS, BANDS
from .form import ENDINGS, Passage, draw_form
from .medley import with_guest, with_vamp
from .patterns import Metre
from .performance import Performance
from .players import Players
from .reharmonise import AS_WRITTEN, HARMONIES, Harmony

TEMPI_BPM = (40.0, 240.0)


@dataclass(frozen=True, eq=False)
class Part:
    """The notes of one player, in seconds."""

    role: str  # "lead", "second voice", "solo", "fills", "backing", "comping" or "bass"
    instrument: str  # a key of INSTRUMENTS
    style: str  # of the pattern; empty for melodies
    notes: NDArray[np.void]  # (n_notes,) of NOTE_DTYPE
    gain: float


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Notes in seconds and the facts they were made from."""

    song_id: str
    seed: int
    duration_s: float
    parts: tuple[Part, ...]
    drums: NDArray[np.void]  # (n_hits,) of DRUM_DTYPE
    drum_gain: float
    transpose: int  # semitones
    tuning_cents: float  # off A = 440 Hz
    mode: str  # as it is played: rarely not the song's
    beats_per_bar: int  # likewise
    bpm: float
    liberty: float  # 0 keeps to the song, 1 goes as far from it as covers do
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
            f"{self.mode}, {self.beats_per_bar} beats, {self.bpm:.0f} bpm, "
            f"liberty {self.liberty:.1f}, chords {self.harmony}; {players}{drums}; {' '.join(self.form)}; "
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
        Not negative. Of a stranger, what is drawn is what is drawn for the song that it is one to.

    Returns
    -------
    arrangement : Arrangement
        Of 60 to 200 seconds.

    Raises
    ------
    SongError
        If the song's form has no beats.
    """
    if not any(song.sections[i].n_beats > 0 for i in song.form):
        raise SongError(f"{song.song_id}: a form without beats cannot be arranged; check its sections")
    rng = seeded(song.stranger_to or song.song_id, seed, "arrange")
    liberty = float(rng.random() ** 2)  # most covers keep to their song
    band = BANDS[rng.choice(len(BANDS), p=BAND_WEIGHTS)]
    if rng.random() < 0.03 * liberty:
        song = in_parallel_mode(song)
    if rng.random() < 0.12 * liberty:
        song = in_other_metre(song, rng)
    if rng.random() < 0.12 * liberty:
        song = with_guest(song, rng)
    metre = Metre.of(song)
    song = with_vamp(song, metre, rng)
    widest = 1.7 if rng.random() < 0.15 else 1.4
    bpm = float(np.clip(song.bpm * np.exp(rng.uniform(-1, 1) * np.log(widest)), *TEMPI_BPM))
    transpose = int(rng.integers(-6, 7))
    tuning_cents = float(np.clip(rng.normal(0, 18), -50, 50))
    swing = float(rng.uniform(0.55, 0.68)) if metre.step == 0.5 and rng.random() < band.swing else 0.5
    ending = str(rng.choice(ENDINGS))
    segments = draw_form(song, len(song.sections) - 1, metre, bpm, ending, max(band.n_comping) > 0, liberty, rng)
    manner = str(rng.choice(HARMONIES)) if rng.random() < 1.2 * liberty else AS_WRITTEN
    harmony = Harmony(song, manner, transpose, rng)
    players = Players(song, band, metre, segments, harmony, liberty, rng)
    performance = Performance(segments, band, metre, bpm, swing, ending, rng)
    parts = tuple(
        Part(line.role, line.instrument, line.style, performance.notes(line.events, line.instrument), line.gain)
        for line in players.lines()
    )
    drum_style, hits = players.drums()
    return Arrangement(
        song.song_id,
        seed,
        duration_s=performance.end_s + float(rng.uniform(1.0, 3.0)),
        parts=parts,
        drums=performance.drums(hits),
        drum_gain=float(np.exp(rng.uniform(np.log(0.15), np.log(2.5)))),
        transpose=transpose,
        tuning_cents=tuning_cents,
        mode=song.mode,
        beats_per_bar=song.beats_per_bar,
        bpm=bpm,
        liberty=liberty,
        style=band.name,
        drum_style=drum_style,
        swing=swing,
        harmony=harmony.manner,
        form=tuple(_label(song, segment) for segment in segments),
        fade_out_s=float(rng.uniform(4, 10)) if ending == "fade" else 0.0,
    )


def _label(song: Song, segment: Passage) -> str:
    name = song.sections[segment.section].name
    if segment.kind in ("intro", "ending") and name != "vamp":
        return segment.kind
    return name if segment.kind == "sung" else f"{name}({segment.kind})"
