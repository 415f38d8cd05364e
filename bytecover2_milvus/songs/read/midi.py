"""MIDI files as transcripts. Needs mido."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import SongError
from ...untrusted import read_bytes, shorten
from ..score import CHORD_QUALITIES, Chord, Note
from .transcript import (
    DEFAULT_BPM,
    GRID,
    TimeSignature,
    Transcript,
    bars_between,
    is_monophonic,
    on_grid,
    skyline,
    upper_line,
)

MELODY_NAME = re.compile(r"melod|vocal|voice|singer|sing[st]|gesang|chant|canto", re.IGNORECASE)
LEAD_NAME = re.compile(r"soprano|lead", re.IGNORECASE)  # the melody where nothing is called one: a lead guitar plays it
CHORD_NAME = re.compile(r"chords?|harmony", re.IGNORECASE)
BLOCKS = 0.9  # share of a chord track's onsets that are chords; below it, a figure that tells them less well
DRUM_CHANNEL = 9  # counted from 0
MIDI_BYTES = 4 << 20  # of a file: an hour of an orchestra has less than one
ACCENT = 10  # MIDI velocity by which downbeats stand out in files that mark them


State = TypeVar("State")


@dataclass(frozen=True)
class MidiNote:
    start: int  # ticks
    end: int  # ticks
    pitch: int
    velocity: int


@dataclass(frozen=True)
class MidiTrack:
    name: str
    notes: tuple[MidiNote, ...]  # drums left out


@dataclass(frozen=True)
class MidiScore:
    tracks: tuple[MidiTrack, ...]  # those with notes
    title: str
    ticks_per_quarter: int
    tempi: tuple[tuple[int, int], ...]  # tick, microseconds per quarter; the first at tick 0
    metres: tuple[tuple[int, TimeSignature], ...]  # tick, time signature from there; the first at tick 0

    def seconds(self, ticks: ArrayLike) -> NDArray[np.float64]:
        """Time of `ticks` by the tempo map."""
        starts, tempi = np.array(self.tempi, dtype=np.float64).T
        per_tick = tempi / 1e6 / self.ticks_per_quarter  # seconds
        start_s = np.concatenate([[0.0], np.cumsum(np.diff(starts) * per_tick[:-1])])
        index = np.searchsorted(starts, ticks, side="right") - 1
        return start_s[index] + (np.asarray(ticks) - starts[index]) * per_tick[index]


def read_midi(path: Path) -> Transcript:
    """Notes of a MIDI file on its own beats.

    The melody is the track whose name says so, else the highest monophonic track, else the upper line of all tracks. A
    track called chords that plays block chords gives the chords.

    Raises
    ------
    SongError
        If the file is no MIDI file, or has no notes.
    """
    score = read_midi_score(path)
    metre = _longest(score.metres, _last_tick(score))
    ticks_per_beat = score.ticks_per_quarter / metre.beats_per_quarter
    lead = _melody_track(score.tracks, ticks_per_beat)
    notes = tuple(_on_beats(note, ticks_per_beat) for track in score.tracks for note in track.notes)
    melody = skyline(_on_beats(note, ticks_per_beat) for note in lead.notes) if lead else upper_line(notes)
    return Transcript(
        title=score.title or path.stem,
        origin=f"MIDI file {path.name}",
        melody=melody,
        notes=notes,
        downbeats=_downbeats(score, ticks_per_beat, lead),
        beats_per_bar=metre.beats_per_bar,
        bpm=60e6 / _longest(score.tempi, _last_tick(score)) * metre.beats_per_quarter,
        chords=next(
            (
                _block_chords(_on_beats(note, ticks_per_beat) for note in track.notes)
                for track in score.tracks
                if lead and track is not lead and CHORD_NAME.fullmatch(track.name)
            ),
            (),
        ),
    )


def read_midi_score(path: Path) -> MidiScore:
    """Tracks, tempi and metres of a MIDI file, in ticks.

    Raises
    ------
    SongError
        If the file is no MIDI file, or has no notes.
    """
    import mido

    try:
        file = mido.MidiFile(file=io.BytesIO(read_bytes(path, MIDI_BYTES)), clip=True)
    except FileNotFoundError as error:
        raise SongError(f"{path}: no such file") from error
    except Exception as error:  # mido does not check what it reads, and its exceptions have no common class
        raise SongError(f"{path}: not a readable MIDI file ({shorten(error) or type(error).__name__})") from error
    if not 0 < file.ticks_per_beat < 0x8000:
        raise SongError(f"{path}: times are SMPTE frames, not beats; export it with ticks per quarter")

    tracks: list[MidiTrack] = []
    title = ""
    tempi = {0: round(60e6 / DEFAULT_BPM)}
    metres = {0: TimeSignature(4, 4)}
    for messages in file.tracks:
        title = title or messages.name.strip()
        sounding: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        notes: list[MidiNote] = []
        tick = 0
        for message in messages:
            tick += message.time
            if message.type == "set_tempo":
                tempi[tick] = message.tempo
            elif message.type == "time_signature":
                metres[tick] = TimeSignature(message.numerator, message.denominator)
            elif message.type in ("note_on", "note_off") and message.channel != DRUM_CHANNEL:
                key = (message.channel, message.note)
                if message.type == "note_on" and message.velocity > 0:
                    sounding[key].append((tick, message.velocity))
                elif sounding[key]:
                    start, velocity = sounding[key].pop(0)
                    if tick > start:
                        notes.append(MidiNote(start, tick, message.note, velocity))
        if notes:
            tracks.append(MidiTrack(messages.name.strip(), tuple(sorted(notes, key=lambda note: note.start))))
    if not tracks:
        raise SongError(f"{path}: no notes")
    return MidiScore(
        tracks=tuple(tracks),
        title=title,
        ticks_per_quarter=file.ticks_per_beat,
        tempi=tuple(sorted(tempi.items())),
        metres=tuple(sorted(metres.items())),
    )


def _on_beats(note: MidiNote, ticks_per_beat: float) -> Note:
    return on_grid(note.start / ticks_per_beat, note.end / ticks_per_beat, note.pitch)


def _last_tick(score: MidiScore) -> int:
    return max(note.end for track in score.tracks for note in track.notes)


def _longest(changes: tuple[tuple[int, State], ...], end: int) -> State:
    """The state that lasts longest, given the ticks from which each holds."""
    untils = [*(tick for tick, _ in changes[1:]), end]
    index = max(range(len(changes)), key=lambda index: min(untils[index], end) - changes[index][0])
    return changes[index][1]


def _melody_track(tracks: tuple[MidiTrack, ...], ticks_per_beat: float) -> MidiTrack | None:
    for name in (MELODY_NAME, LEAD_NAME):
        for track in tracks:
            if name.search(track.name):
                return track
    lines = [track for track in tracks if is_monophonic([_on_beats(note, ticks_per_beat) for note in track.notes])]
    return max(lines, key=lambda track: median(note.pitch for note in track.notes), default=None)


def _downbeats(score: MidiScore, ticks_per_beat: float, lead: MidiTrack | None) -> tuple[float, ...]:
    end = round(_last_tick(score) / ticks_per_beat * GRID) / GRID
    starts = [tick / ticks_per_beat for tick, _ in score.metres]
    if lead and len(starts) == 1:
        starts = [_pickup(lead, ticks_per_beat, score.metres[0][1].beats_per_bar)]
    downbeats: list[float] = []
    for start, until, (_, metre) in zip(starts, [*starts[1:], end], score.metres, strict=True):
        if start < end:
            beats_per_bar = metre.quarters_per_bar * score.ticks_per_quarter / ticks_per_beat
            downbeats += bars_between(start, until, beats_per_bar)
    return (*downbeats, max(end, downbeats[-1] + 1))


def _block_chords(notes: Iterable[Note]) -> tuple[Chord, ...]:
    """The chords of notes struck together, each until the next; none, where too few are."""
    blocks: dict[float, list[Note]] = defaultdict(list)
    for note in notes:
        blocks[note.onset].append(note)
    named = {onset: name_chord([note.pitch for note in block]) for onset, block in sorted(blocks.items())}
    chords = [(onset, chord) for onset, chord in named.items() if chord]
    if len(chords) < BLOCKS * len(named):
        return ()
    end = max(note.onset + note.duration for block in blocks.values() for note in block)
    untils = [onset for onset, _ in chords[1:]] + [end]
    return tuple(Chord(onset, until - onset, *chord) for (onset, chord), until in zip(chords, untils, strict=True))


def name_chord(pitches: Iterable[int]) -> tuple[int, str, int | None] | None:
    """Root, quality and bass of the known chord nearest to pitches that sound together; None if two or fewer classes.

    Missing and added tones count alike; of chords equally near, one that stands on the lowest pitch wins.
    """
    pitches = sorted(pitches)
    classes = {pitch % 12 for pitch in pitches}
    if len(classes) < 3:
        return None
    bass = pitches[0] % 12
    root, quality = min(
        ((root, quality) for root in sorted(classes) for quality in CHORD_QUALITIES),
        key=lambda chord: (
            len(classes ^ {(chord[0] + interval) % 12 for interval in CHORD_QUALITIES[chord[1]]}),
            chord[0] != bass,
        ),
    )
    return root, quality, None if bass == root else bass


def _pickup(lead: MidiTrack, ticks_per_beat: float, beats_per_bar: int) -> float:
    """Beats before the first downbeat, where accents tell: programs that write MIDI from notation accent downbeats."""
    loudness: dict[int, list[int]] = defaultdict(list)  # by half beat of the bar
    for note in lead.notes:
        half_beat = round(2 * note.start / ticks_per_beat)
        loudness[half_beat % (2 * beats_per_bar)].append(note.velocity)
    accents = {phase: mean(velocities) for phase, velocities in loudness.items()}
    loudest = max(accents, key=lambda phase: accents[phase])
    return loudest / 2 if accents[loudest] >= accents.get(0, 0) + ACCENT else 0.0
