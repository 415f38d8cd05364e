"""Arrangements as MIDI events for a synthesiser with the programs of General MIDI.

Conventions
-----------
Each part has a MIDI channel of its own, drums have the tenth. A MIDI velocity, and a volume, is heard as its square
(SoundFont 2.04, section 8.4), so linear amplitudes are sent as their square roots. What belongs to the recording
(programs, kit, places in the room) is drawn from the arrangement's seed: with the same font and FluidSynth the same
arrangement always gives the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...errors import SongError
from ..arrange.arrangement import Arrangement, Part, seeded
from ..arrange.drums import DRUM_SOUNDS
from ..read.midi import DRUM_CHANNEL

# Programs of General MIDI, counted from 0, that pass for each of our instruments. None of them sings words, so a voice
# is also what carries a tune in instrumental covers: saxophones, flutes, lead synthesisers. Left out are programs that
# sound other notes too (bagpipes' drones, a lead in fifths, bells) or, as TimGM6mb's whistle, not all of their range.
PROGRAMS: dict[str, tuple[int, ...]] = {
    "voice": (52, 53, 54, 53, 85, 91, 64, 65, 66, 68, 71, 72, 73, 75, 79, 22, 40, 80, 81, 82, 87),
    "raw voice": (53, 54, 65, 66, 67, 85, 84, 81, 22, 60),
    "choir": (52, 53, 54, 91, 48, 19),
    "flute": (72, 73, 74, 75, 77),
    "whistle": (72, 74, 75, 79),
    "violin": (40, 41, 110, 40),
    "cello": (41, 42, 70, 42),
    "strings": (48, 49, 50, 51, 44),
    "saxophone": (64, 65, 66, 67),
    "clarinet": (68, 69, 70, 71, 71),
    "oboe": (68, 68, 69, 70),
    "harmonica": (20, 22, 22),
    "accordion": (20, 21, 21, 23),
    "trumpet": (56, 57, 59, 60, 56),
    "brass": (57, 60, 61, 62, 63),
    "nylon guitar": (24, 24, 25, 106),
    "steel guitar": (25, 25, 24, 104),
    "electric guitar": (26, 27, 28, 31),
    "driven guitar": (29, 30, 29, 84),
    "fuzz guitar": (30, 30, 29, 84),
    "muted guitar": (28, 28, 27),
    "pedal steel": (26, 25, 31),
    "mandolin": (25, 105, 106, 15),
    "banjo": (105, 105, 106, 107, 25),
    "harp": (46, 46, 15, 108),
    "piano": (0, 0, 1, 2),
    "upright piano": (0, 1, 3, 3),
    "electric piano": (4, 5, 2),
    "harpsichord": (6, 6, 7),
    "vibraphone": (8, 10, 11, 11, 12, 13, 108),
    "clavinet": (7, 7, 6),
    "marimba": (12, 13, 114, 11),
    "organ": (16, 17, 18),
    "church organ": (19, 19, 20),
    "synth lead": (81, 83, 84, 87, 62),
    "square lead": (80, 82, 79),
    "synth pad": (50, 51, 88, 89, 90, 92, 94, 95),
    "pluck synth": (15, 45, 98, 99, 107, 12),
    "double bass": (32, 32, 35, 43),
    "electric bass": (33, 34, 36, 37),
    "driven bass": (34, 36, 38),
    "synth bass": (38, 39, 87),
    "tuba": (58, 58, 57, 70),
}
# Keys of the tenth channel.
DRUM_KEYS: dict[str, tuple[int, ...]] = {
    "kick": (35, 36),
    "snare": (38, 40),
    "rim": (37,),
    "clap": (39,),
    "hat": (42, 44),
    "open hat": (46,),
    "ride": (51, 53, 59),
    "crash": (49, 52, 55, 57),
    "tom": (41, 43, 45, 47, 48, 50),
    "shaker": (69, 70, 82),
    "brush": (38, 40),
    "tambourine": (54,),
    "conga": (60, 61, 62, 63, 64),
}
_KITS = (0, 8, 16, 24, 25, 32)  # standard, room, power, electronic, analogue, jazz; a font without one plays its first
_BRUSH_KIT = 40

_CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)
_BEND_RANGE = 12  # semitones
_GLIDE_S = 0.05  # time constant of a slide into a pitch
_BEND_EVERY_S = 0.015  # between two bends of a slide
_PLAIN = 100  # velocity or volume of amplitude 1; 127 is 1.6
_DRUM_S = 0.1  # from the beginning of a stroke to its note-off

MidiEvent = tuple[float, int, str, dict[str, int]]  # second, order within it, type and fields of a mido.Message
_SETUP, _OFF, _BEND, _ON = range(4)  # the order of events at one moment


def midi_events(arrangement: Arrangement) -> Iterator[MidiEvent]:
    """The events that play an arrangement, channel by channel; sort them by time and order within it.

    Raises
    ------
    SongError
        If there are more than 15 parts.
    """
    if len(arrangement.parts) > len(_CHANNELS):
        raise SongError(
            f"{arrangement.song_id} #{arrangement.seed}: {len(arrangement.parts)} parts; MIDI has {len(_CHANNELS)} "
            "channels beside the drums"
        )
    rng = seeded(arrangement.song_id, arrangement.seed, "soundfont")
    players, drummer, room = rng.spawn(len(arrangement.parts)), *rng.spawn(2)
    wet = int(room.integers(10, 90))
    for part, channel, player in zip(arrangement.parts, _CHANNELS, players, strict=False):
        yield from _setup(channel, int(player.choice(PROGRAMS[part.instrument])), part.gain, wet, player)
        yield from _part(part, channel, arrangement.tuning_cents / 100)
    if len(arrangement.drums):
        hits = arrangement.drums
        brushes = DRUM_SOUNDS.index("brush") in hits["sound"]
        kit = _BRUSH_KIT if brushes else int(drummer.choice(_KITS))
        yield from _setup(DRUM_CHANNEL, kit, arrangement.drum_gain, wet, drummer)
        keys = [int(drummer.choice(DRUM_KEYS[sound])) for sound in DRUM_SOUNDS]
        for hit in hits:
            start_s, key = float(hit["onset_s"]), keys[hit["sound"]]
            yield _note(start_s, "note_on", DRUM_CHANNEL, key, _loudness(hit["velocity"]))
            yield _note(start_s + _DRUM_S, "note_off", DRUM_CHANNEL, key, 0)


def _setup(channel: int, program: int, gain: float, wet: int, rng: np.random.Generator) -> Iterator[MidiEvent]:
    """Program, volume, place and pitch-bend range of a channel."""
    yield 0.0, _SETUP, "program_change", {"channel": channel, "program": program}
    pan = int(np.clip(rng.normal(64, 22), 0, 127))
    controls = ((7, _loudness(gain)), (10, pan), (91, wet), (101, 0), (100, 0), (6, _BEND_RANGE), (38, 0))
    for control, value in controls:
        yield 0.0, _SETUP, "control_change", {"channel": channel, "control": control, "value": value}


def _part(part: Part, channel: int, tuning: float) -> Iterator[MidiEvent]:
    """Notes of a part, and the bends to their pitches: where notes overlap, the last bend holds for all of them."""
    notes = np.sort(part.notes, order=["onset_s", "pitch"])
    pitch = notes["pitch"].astype(np.float64)
    keys = np.clip(np.round(pitch), 0, 127).astype(int)
    onset_s = notes["onset_s"]
    end_s = onset_s + notes["duration_s"]
    struck_again: dict[int, float] = {}  # a string that is struck again sounds anew, and its first end must not stop it
    bent = None
    for i in reversed(range(len(notes))):
        end_s[i] = min(end_s[i], struck_again.get(keys[i], np.inf))
        struck_again[keys[i]] = onset_s[i]
    for i, key in enumerate(keys.tolist()):
        start_s = float(onset_s[i])
        target, glide = float(pitch[i]) - key + tuning, float(notes["glide"][i])
        if glide:
            until_s = min(6 * _GLIDE_S, end_s[i] - start_s)
            for t in np.arange(0, until_s, _BEND_EVERY_S).tolist():
                yield _bend(start_s + t, channel, target + glide * np.exp(-t / _GLIDE_S))
        elif bent is None or round(target, 3) != bent:
            yield _bend(start_s, channel, target)
        bent = None if glide else round(target, 3)
        if end_s[i] > start_s:
            yield _note(start_s, "note_on", channel, key, _loudness(notes["velocity"][i]))
            yield _note(float(end_s[i]), "note_off", channel, key, 0)


def _note(second: float, kind: str, channel: int, key: int, velocity: int) -> MidiEvent:
    return second, _ON if kind == "note_on" else _OFF, kind, {"channel": channel, "note": key, "velocity": velocity}


def _bend(second: float, channel: int, semitones: float) -> MidiEvent:
    value = int(np.clip(round(8192 * semitones / _BEND_RANGE), -8192, 8191))
    return second, _BEND, "pitchwheel", {"channel": channel, "pitch": value}


def _loudness(amplitude: float) -> int:
    """The velocity or volume that is heard as a linear amplitude."""
    return int(np.clip(round(_PLAIN * float(amplitude) ** 0.5), 1, 127))
