"""Arrangements drawn straight to a CQT magnitude, without a waveform: what `render` and the front end do, for less.

Every part is a matrix product, spectra of its tones times their envelopes laid out where the notes are; power adds up
over notes and parts. What phases do, beats and cancellations, is not there, nor are slides into a tone. Room, equaliser
and compression are drawn as the renderer draws them; who plays a part is drawn from the bank's own instruments and
sound fonts.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...songs.arrange.arrangement import Arrangement, Part, seeded
from ...songs.arrange.drums import DRUM_SOUNDS
from ...songs.arrange.performance import LOWEST_PITCH
from ...songs.instruments import INSTRUMENTS
from .augment import add_tail, retune_power, room_tail
from .tone_bank import FRAME_HOPS, FRAME_S, LEAD_FRAMES, N_FRAMES, N_ROWS, SUNG, ToneBank

FONT_SHARE = 0.5  # of the parts are played by a sound font, where the bank has one
_SYLLABLES = 6  # that a singer's notes share
_ROOM_FRAMES = 12  # 1.4 s of reverberation


class SpectralRenderer:
    """Draws arrangements with the tones of a bank.

    Parameters
    ----------
    bank : ToneBank
    weight : np.ndarray [shape=(n_bins,)]
        `loudness_weight` of the bank's front end.
    """

    def __init__(self, bank: ToneBank, weight: NDArray[np.float32]) -> None:
        self.bank, self.weight = bank, weight
        self._known: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def render(self, arrangement: Arrangement, pooling: int, max_duration_s: float) -> NDArray[np.float32]:
        """The arrangement's CQT magnitude, mean over `pooling` frames as `pool_time` takes it.

        Parameters
        ----------
        arrangement : Arrangement
        pooling : int
            CQT frames per column, a multiple of 5.
        max_duration_s : float
            Draw only the beginning.

        Returns
        -------
        cqt : np.ndarray [shape=(n_bins, n_columns)]
        """
        ratio = pooling // FRAME_HOPS
        duration_s = min(arrangement.duration_s, max_duration_s)
        n_frames = max(1, int(duration_s / FRAME_S) // ratio) * ratio
        rng = seeded(arrangement.song_id, arrangement.seed, "spectral")
        power = np.zeros((len(self.weight), n_frames), dtype=np.float32)
        fonts = rng.choice([0.0, FONT_SHARE, 1.0])  # all own, mixed, all from the font
        for part in arrangement.parts:
            power += np.float32(part.gain**2) * self._part(part, n_frames, fonts, rng)
        if len(arrangement.drums):
            power += np.float32(arrangement.drum_gain**2) * self._drums(arrangement.drums, n_frames, fonts, rng)
        power = retune_power(power, arrangement.tuning_cents / 100)
        power = _equalised(_in_a_room(power, rng), rng)
        magnitude = self._compressed(np.sqrt(power), rng)
        if arrangement.fade_out_s:
            before_end_s = arrangement.duration_s - FRAME_S * np.arange(n_frames)
            magnitude *= np.clip(before_end_s / arrangement.fade_out_s, 0, 1).astype(np.float32) ** 2
        return magnitude.reshape(len(magnitude), -1, ratio).mean(axis=2)

    def _tone(self, sound: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if sound not in self._known:
            self._known[sound] = self.bank.spectrum(sound), self.bank.envelope(sound)
        return self._known[sound]

    def _part(self, part: Part, n_frames: int, fonts: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """Power of one part alone, of unit loudness while it plays."""
        from_font = bool(rng.random() < fonts)
        candidates = self.bank.sounds.get((part.instrument, from_font), ())
        if not len(candidates):
            candidates = self.bank.sounds[part.instrument, False]
        sounds = [int(rng.choice(candidates))]
        lyrics = INSTRUMENTS[part.instrument].lyrics
        if lyrics and rng.random() < lyrics:  # whatever plays the rest: a sound font has no words
            syllables = self.bank.sounds.get((f"{part.instrument}{SUNG}", False), np.array(sounds))
            sounds = rng.permutation(syllables)[:_SYLLABLES].tolist()
        which = rng.integers(len(sounds), size=len(part.notes)) if len(sounds) > 1 else np.zeros(len(part.notes))
        power = np.zeros((len(self.weight), n_frames), dtype=np.float32)
        for i, sound in enumerate(sounds):
            power += self._tones(part.notes[which == i], sound, n_frames)
        colour_db = np.interp(np.arange(len(power)), np.linspace(0, len(power) - 1, 6), rng.normal(0, 3, 6))
        power *= (10 ** (colour_db / 10)).astype(np.float32)[:, None]
        active = np.clip(part.notes["duration_s"].sum() / FRAME_S, 1, n_frames)
        return power / (np.float32((self.weight @ power).sum() / active) + np.float32(1e-20))

    def _tones(self, notes: NDArray[np.void], sound: int, n_frames: int) -> NDArray[np.float32]:
        spectrum, envelope = self._tone(sound)
        rolls = _roll(notes, envelope, float(self.bank.release_s[sound]), n_frames)  # (2, N_ROWS, n_frames)
        played = np.flatnonzero(rolls.any(axis=(0, 2)))
        return _product(np.concatenate([*spectrum[:, :, played]], axis=1), np.concatenate([*rolls[:, played]]))

    def _drums(
        self, hits: NDArray[np.void], n_frames: int, fonts: float, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        power = np.zeros((len(self.weight), n_frames), dtype=np.float32)
        from_font = bool(rng.random() < fonts)
        for which in np.unique(hits["sound"]).tolist():
            strikes = self.bank.strikes.get((DRUM_SOUNDS[which], from_font), ())
            if not len(strikes):
                strikes = self.bank.strikes[DRUM_SOUNDS[which], False]
            strike = self.bank.drums[int(rng.choice(strikes))]  # (n_bins, N_FRAMES)
            own = hits[hits["sound"] == which]
            when = np.floor(own["onset_s"] / FRAME_S).astype(int)
            within = when < n_frames
            struck = np.bincount(when[within], own["velocity"][within] ** 2, n_frames).astype(np.float32)
            padded = np.pad(struck, (N_FRAMES - 1 - LEAD_FRAMES, LEAD_FRAMES))
            past = np.lib.stride_tricks.sliding_window_view(padded, N_FRAMES)[:, ::-1]  # (n_frames, N_FRAMES)
            power += _product(strike, np.ascontiguousarray(past.T))
        return power

    def _compressed(self, magnitude: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Softly limited, from hardly at all to as loud as records are made."""
        loudness = np.sqrt(self.weight @ np.square(magnitude))  # (n_frames,)
        drive = rng.uniform(0.15, 1.0) * loudness / (np.sqrt(np.mean(loudness**2)) + 1e-12)
        return magnitude * (np.tanh(drive) / np.maximum(drive, 1e-6)).astype(np.float32)


def _product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Matrix product by torch, whose BLAS suits this processor where NumPy's may not."""
    return (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()


def _roll(
    notes: NDArray[np.void], envelope: NDArray[np.float32], release_s: float, n_frames: int
) -> NDArray[np.float32]:
    """Both envelopes of every note at its row and time, (2, N_ROWS, n_frames).

    A pitch between two rows goes to both; a note between two frames, too.
    """
    notes = notes[notes["onset_s"] < n_frames * FRAME_S]
    place = np.clip(notes["pitch"].astype(np.float64) - LOWEST_PITCH, 0, N_ROWS - 1.001)
    row = np.floor(place).astype(int)
    upper = place - row
    row = np.concatenate([row, row[upper > 0.02] + 1])
    share = np.concatenate([1 - upper, upper[upper > 0.02]])
    notes = np.concatenate([notes, notes[upper > 0.02]])

    at = notes["onset_s"] / FRAME_S
    first = np.floor(at).astype(int)
    late = at - first  # (n,) in [0, 1)
    sounding = (notes["duration_s"] + release_s) / FRAME_S  # frames
    lengths = np.minimum(np.ceil(sounding + 1).astype(int) + LEAD_FRAMES, envelope.shape[2])
    note = np.repeat(np.arange(len(notes)), lengths)
    k = np.arange(len(note)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # frame within its note
    values = envelope[row[note], :, k] * (1 - late[note])[:, None]
    values += envelope[row[note], :, np.maximum(k - 1, 0)] * (late[note] * (k > 0))[:, None]
    gate = np.clip(sounding[note] - (k - LEAD_FRAMES - late[note]), 0, 1)
    values *= (gate * share[note] * np.square(notes["velocity"], dtype=np.float64)[note])[:, None]
    frame = first[note] + k - LEAD_FRAMES
    inside = (frame >= 0) & (frame < n_frames)
    cell = row[note][inside] * n_frames + frame[inside]
    rolls = [np.bincount(cell, values[inside, i], N_ROWS * n_frames) for i in range(2)]
    return np.stack(rolls).reshape(2, N_ROWS, n_frames).astype(np.float32)


def _in_a_room(power: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """With a decaying tail, reverberation times as the renderer's."""
    decay_s = np.exp(rng.uniform(np.log(0.05), np.log(0.4)))
    wet = power.copy()
    add_tail(wet, power, room_tail(decay_s / FRAME_S, rng.uniform(0.05, 0.8), _ROOM_FRAMES))
    return wet


def _equalised(power: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    n_bins = len(power)
    octaves = np.arange(n_bins) / 12 - 4  # 0 at C5, 523 Hz
    level_db = rng.uniform(-3, 1.5) * octaves + np.interp(octaves, np.linspace(-4, 3, 6), rng.normal(0, 2.5, 6))
    return power * (10 ** (level_db / 10)).astype(np.float32)[:, None]
