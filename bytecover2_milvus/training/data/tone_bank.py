"""Tones of every instrument in the constant-Q plane: measured once, so that music is drawn straight there.

A *tone* is measured by synthesising one held note, analysing it with the front end's own CQT, and factorising its power
(n_bins, N_FRAMES) into two spectra with an envelope each, roughly the attack and what remains. Own instruments are
measured in several variants, as several players have them; General MIDI programs as a sound font has them. Tones are
measured every STEP semitones; between them, the nearest is moved by whole bins.

References
----------
C. Fevotte, N. Bertin, J.-L. Durrieu, "Nonnegative matrix factorization with the Itakura-Saito divergence", Neural
Computation 2009: the factorisation, whose cost does not depend on scale, so that soft partials count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...atomic import atomic_write
from ...config import SAMPLE_RATE, FrontEnd
from ...errors import ConfigError
from ...model.cqt import ConstantQ, octave_kernels
from ...songs.arrange.drums import DRUM_SOUNDS
from ...songs.arrange.performance import HIGHEST_PITCH, LOWEST_PITCH
from ...songs.instruments import INSTRUMENTS, Instrument
from ...songs.read.midi import DRUM_CHANNEL
from ...songs.render.midi_events import DRUM_KEYS, PROGRAMS
from ...songs.render.renderer import DRUM_RECIPES, drum_strike
from ...songs.render.soundfont import play
from ...songs.version import ANALYSIS, DRAWING, PLAYING
from ...untrusted import DAMAGED, read_npz

FRAME_HOPS = 5  # CQT frames per frame of the bank: 0.116 s
FRAME_S = FRAME_HOPS * 512 / SAMPLE_RATE  # seconds
LEAD_FRAMES = 2  # before the onset: the long windows of low bins see a tone before it begins
N_FRAMES = 28  # of a measured tone, 3.25 s; a longer one goes on fading as it did at the end
BANK_BYTES = 1 << 30  # of all tones, unpacked
SYLLABLES = 16  # that each singer of words has
SUNG = ", sung"  # behind the name of an instrument: its tones are syllables
STEP = 4  # semitones between measured tones
VARIANTS = 4  # players of each own instrument, and own drum kits
RELEASE_S = 0.15  # of a sound font's tones
_COMPONENTS = 2
_ROUNDS = 40  # of the factorisation
_TONES_AT_ONCE = 16  # that are factorised: a few hundred kilobytes, which a core's cache holds
_KIT_PROGRAMS = (0, 8, 16, 24, 25, 32, 40, 48)  # General MIDI level 2: standard, room, power, electronic, ...
N_ROWS = HIGHEST_PITCH - LOWEST_PITCH + 1  # pitches, one row each
ANCHORS = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1, STEP)  # MIDI numbers of the measured tones


@dataclass(frozen=True, eq=False)
class ToneBank:
    """Tones and drum strikes as power in the constant-Q plane; `names` says which instrument each tone can play."""

    names: NDArray[np.str_]  # (n_sounds,)
    from_font: NDArray[np.bool_]  # (n_sounds,)
    release_s: NDArray[np.float32]  # (n_sounds,)
    spectra: NDArray[np.float32]  # (n_sounds, n_anchors, n_bins, 2)
    envelopes: NDArray[np.float32]  # (n_sounds, n_anchors, 2, N_FRAMES)
    drum_names: NDArray[np.str_]  # (n_drums,)
    drum_from_font: NDArray[np.bool_]  # (n_drums,)
    drums: NDArray[np.float32]  # (n_drums, n_bins, N_FRAMES)

    @cached_property
    def sounds(self) -> dict[tuple[str, bool], NDArray[np.int64]]:
        """Indices of the sounds that can play an instrument, own ones (False) and a sound font's (True)."""
        return _index(self.names, self.from_font)

    @cached_property
    def strikes(self) -> dict[tuple[str, bool], NDArray[np.int64]]:
        return _index(self.drum_names, self.drum_from_font)

    def spectrum(self, sound: int) -> NDArray[np.float32]:
        """Power of both components for every pitch, (2, n_bins, N_ROWS)."""
        n_bins = self.spectra.shape[2]
        rows = np.zeros((_COMPONENTS, n_bins, N_ROWS), dtype=np.float32)
        for row in range(N_ROWS):
            anchor = _nearest(row)
            moved = row + LOWEST_PITCH - ANCHORS[anchor]
            spectrum = self.spectra[sound, anchor].T  # (2, n_bins)
            rows[:, max(0, moved) : n_bins + min(0, moved), row] = spectrum[:, max(0, -moved) : n_bins - max(0, moved)]
        return rows

    def envelope(self, sound: int) -> NDArray[np.float32]:
        """Both envelopes of every pitch, (N_ROWS, 2, 2 * N_FRAMES): the second half fades on as the first ended."""
        measured = self.envelopes[sound]  # (n_anchors, 2, N_FRAMES)
        fade = np.clip((measured[..., -1:] + 1e-12) / (measured[..., -9:-8] + 1e-12), 0, 1) ** (1 / 8)
        extended = np.concatenate([measured, measured[..., -1:] * fade ** np.arange(1, N_FRAMES + 1)], axis=2)
        return extended[[_nearest(row) for row in range(N_ROWS)]].astype(np.float32)

    @classmethod
    def open(cls, folder: Path, front_end: FrontEnd, sound_fonts: Sequence[Path] = ()) -> ToneBank:
        """The bank for a front end and sound fonts, measured if `folder` does not hold it yet (minutes, with fonts).

        Raises
        ------
        ConfigError
            If the front end's frames are not those that the bank is made of.
        SongError
            If a sound font or FluidSynth is missing.
        """
        if (front_end.hop_length, front_end.bins_per_octave) != (512, 12) or front_end.time_pooling % FRAME_HOPS:
            raise ConfigError(
                "drawing songs straight to CQTs needs hop_length 512, 12 bins per octave and a time_pooling divisible "
                f"by {FRAME_HOPS}"
            )
        path = bank_path(folder, front_end, sound_fonts)
        with suppress(*DAMAGED):
            return cls(**read_npz(path, BANK_BYTES))
        bank = _measure(front_end, sound_fonts)  # not there, or damaged, as when the power failed
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **{name: getattr(bank, name) for name in cls.__dataclass_fields__})
        return bank


def bank_path(folder: Path, front_end: FrontEnd, sound_fonts: Sequence[Path]) -> Path:
    """The path of the bank for these in a folder; the name tells banks of other instruments or fonts apart."""
    facts = [PLAYING, DRAWING, ANALYSIS, front_end.fmin, front_end.n_octaves, repr(INSTRUMENTS), repr(DRUM_RECIPES)]
    facts += [VARIANTS, SYLLABLES, STEP, N_FRAMES]
    if sound_fonts:
        facts += [repr(PROGRAMS), repr(DRUM_KEYS), [[font.name, font.stat().st_size] for font in sound_fonts]]
    return folder / f"tones-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.npz"


def _nearest(row: int) -> int:
    return min(round(row / STEP), len(ANCHORS) - 1)


def _index(names: NDArray[np.str_], from_font: NDArray[np.bool_]) -> dict[tuple[str, bool], NDArray[np.int64]]:
    return {
        (str(name), font): np.flatnonzero((names == name) & (from_font == font))
        for name in np.unique(names)
        for font in (False, True)
    }


def loudness_weight(front_end: FrontEnd) -> NDArray[np.float32]:
    """Weights (n_bins,) that make a sum of power over bins the square of an amplitude: the CQT's scale undone."""
    return (octave_kernels(front_end)[1] ** -2).astype(np.float32)


def _measure(front_end: FrontEnd, sound_fonts: Sequence[Path]) -> ToneBank:
    constant_q = ConstantQ(front_end)
    sounds = [*_own_sounds(constant_q)]
    drums = [*_own_drums(constant_q)]
    for font in sound_fonts:
        sounds += _font_sounds(constant_q, font)
        drums += _font_drums(constant_q, font)
    power = np.concatenate([power for *_, power in sounds])  # (n_sounds * n_anchors, n_bins, N_FRAMES)
    spectra, envelopes = factorise(power)
    envelopes /= np.einsum("nbf,b->nf", power, loudness_weight(front_end)).max(axis=1)[:, None, None] + 1e-30
    shape = (len(sounds), len(ANCHORS))
    return ToneBank(
        names=np.array([name for name, *_ in sounds]),
        from_font=np.array([font for _, font, *_ in sounds]),
        release_s=np.array([release_s for _, _, release_s, _ in sounds], dtype=np.float32),
        spectra=spectra.reshape(*shape, -1, _COMPONENTS),
        envelopes=envelopes.reshape(*shape, _COMPONENTS, N_FRAMES),
        drum_names=np.array([name for name, *_ in drums]),
        drum_from_font=np.array([font for _, font, _ in drums]),
        drums=np.stack([power for *_, power in drums]),
    )


_N_SAMPLES = N_FRAMES * FRAME_HOPS * 512
_LEAD = LEAD_FRAMES * FRAME_HOPS * 512  # samples of silence before a measured tone


@torch.inference_mode()
def _power(constant_q: ConstantQ, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean power per frame of the bank, (n, n_samples) -> (n, n_bins, N_FRAMES)."""
    magnitude = constant_q(torch.from_numpy(waveforms))[:, :, : N_FRAMES * FRAME_HOPS]
    return magnitude.square().unflatten(2, (N_FRAMES, FRAME_HOPS)).mean(dim=3).numpy()


def _own_sounds(constant_q: ConstantQ) -> Iterator[tuple[str, bool, float, NDArray[np.float32]]]:
    """Name, False, release and power (n_anchors, n_bins, N_FRAMES) of every own instrument and player, and syllable."""
    for name, instrument, rng in _players():
        waveforms = np.zeros((len(ANCHORS), _N_SAMPLES), dtype=np.float32)
        for waveform, pitch in zip(waveforms, ANCHORS.tolist(), strict=True):
            tone = instrument.tone(pitch, _N_SAMPLES - _LEAD, 0.0, rng)
            waveform[_LEAD:] = np.tanh(instrument.drive * tone) if instrument.drive else tone
        yield name, False, instrument.release_s, _power(constant_q, waveforms)


def _players() -> Iterator[tuple[str, Instrument, np.random.Generator]]:
    """The players that are measured, by name, and the function that draws the tones of each."""
    for name, instrument in INSTRUMENTS.items():
        plain = replace(instrument, lyrics=0.0)
        for variant in range(VARIANTS):
            rng = np.random.default_rng([variant, len(name), *name.encode()])
            yield name, plain.played_by(rng), rng
        for variant in range(SYLLABLES if instrument.lyrics else 0):
            rng = np.random.default_rng([variant, len(name), *f"{name}{SUNG}".encode()])
            singer = plain.played_by(rng).with_words(rng)
            syllable = singer.words[rng.integers(len(singer.words))]  # one for all pitches
            yield f"{name}{SUNG}", replace(singer, words=(syllable,)), rng


def _own_drums(constant_q: ConstantQ) -> Iterator[tuple[str, bool, NDArray[np.float32]]]:
    for name in DRUM_SOUNDS:
        waveforms = np.zeros((VARIANTS, _N_SAMPLES), dtype=np.float32)
        for variant, waveform in enumerate(waveforms):
            strike = drum_strike(name, np.random.default_rng([variant, *name.encode()]))[: _N_SAMPLES - _LEAD]
            waveform[_LEAD : _LEAD + len(strike)] = strike
        yield from ((name, False, power) for power in _power(constant_q, waveforms))


def _font_sounds(constant_q: ConstantQ, font: Path) -> Iterator[tuple[str, bool, float, NDArray[np.float32]]]:
    users: dict[int, list[str]] = {}
    for name, programs in PROGRAMS.items():
        for program in programs:
            users.setdefault(program, []).append(name)
    for program, names in sorted(users.items()):
        power = _power(constant_q, _font_notes(font, ANCHORS.tolist(), program, channel=0))
        yield from ((name, True, RELEASE_S, power) for name in names)


def _font_drums(constant_q: ConstantQ, font: Path) -> Iterator[tuple[str, bool, NDArray[np.float32]]]:
    keys = sorted({key for keys in DRUM_KEYS.values() for key in keys})
    loudest = None
    for program in _KIT_PROGRAMS:
        waveforms = _font_notes(font, keys, program, channel=DRUM_CHANNEL)
        loudest = loudest or float(np.sqrt(np.square(waveforms).mean(axis=1)).max())
        power = dict(zip(keys, _power(constant_q, waveforms / loudest), strict=True))
        yield from ((name, True, power[key]) for name, keys_of in DRUM_KEYS.items() for key in keys_of)


def _font_notes(font: Path, keys: Sequence[int], program: int, channel: int) -> NDArray[np.float32]:
    """One note after the other, as FluidSynth plays them dry: (n_keys, _N_SAMPLES)."""
    import mido

    slot_s = _N_SAMPLES / SAMPLE_RATE
    lead_s = _LEAD / SAMPLE_RATE
    ticks_per_s = 9600
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)])
    track.append(mido.Message("program_change", program=program, channel=channel))
    at = 0
    for i, key in enumerate(keys):
        for kind, time_s in (("note_on", i * slot_s + lead_s), ("note_off", (i + 1) * slot_s - 0.05)):
            tick = round(time_s * ticks_per_s)
            track.append(mido.Message(kind, note=key, velocity=100, channel=channel, time=tick - at))
            at = tick
    midi = mido.MidiFile(ticks_per_beat=ticks_per_s // 2, tracks=[track])
    waveform = play(midi, font, reverb=False)
    n_samples = len(keys) * _N_SAMPLES
    return np.pad(waveform, (0, max(0, n_samples - len(waveform))))[:n_samples].reshape(len(keys), _N_SAMPLES)


def factorise(power: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two spectra and two envelopes for every tone, whose product is close to its power on a logarithmic scale.

    Parameters
    ----------
    power : np.ndarray [shape=(n, n_bins, n_frames)]

    Returns
    -------
    spectra : np.ndarray [shape=(n, n_bins, 2)]
    envelopes : np.ndarray [shape=(n, 2, n_frames)]
    """
    starts = range(0, len(power), _TONES_AT_ONCE)
    parts = [_factorise_some(power[start : start + _TONES_AT_ONCE]) for start in starts]
    spectra, envelopes = (np.concatenate(factor) for factor in zip(*parts, strict=True))
    return spectra, envelopes


def _factorise_some(power: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `factorise`, all tones at a time."""
    peak = power.sum(axis=1).max(axis=1)[:, None, None].astype(np.float64) + 1e-30
    power = power / peak
    floor = 1e-6
    early = slice(LEAD_FRAMES, LEAD_FRAMES + 2)
    spectra = np.stack([power[..., early].mean(axis=2), power[..., N_FRAMES // 3 :].mean(axis=2)], axis=2) + floor
    envelopes = np.repeat(power.sum(axis=1)[:, None], 2, axis=1) + floor  # (n, 2, n_frames)
    for _ in range(_ROUNDS):
        for factor in ("spectra", "envelopes"):
            model = spectra @ envelopes + floor
            ratio, inverse = (power + floor) / model**2, 1 / model
            if factor == "spectra":
                transposed = envelopes.transpose(0, 2, 1)
                spectra = spectra * np.sqrt((ratio @ transposed) / (inverse @ transposed))
            else:
                transposed = spectra.transpose(0, 2, 1)
                envelopes = envelopes * np.sqrt((transposed @ ratio) / (transposed @ inverse))
    spectra[spectra @ np.ones(_COMPONENTS) < 3 * floor] = 0
    return spectra.astype(np.float32), (envelopes * peak).astype(np.float32)
