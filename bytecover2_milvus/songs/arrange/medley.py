"""Parts that covers have and their song has not: a vamp to begin with or to improvise over, a visit to another song."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..compose.composer import compose
from ..score import CHORD_QUALITIES, SCALES, Chord, Note, Section, Song
from .patterns import Metre

_VAMP_BARS = 16
_GUESTS_TRIED = 6  # until one has the song's metre


def with_vamp(song: Song, metre: Metre, rng: np.random.Generator) -> Song:
    """The song with one more section, the last, that its form does not visit: a riff over one to four chords.

    The chords are those of the song's mode, or a band's favourite on the flat seventh; nothing else is the song's.
    """
    length = int(rng.choice([1, 2, 2, 4]))
    roots = [_triad(song, int(degree)) for degree in rng.choice([0, 0, 3, 4, 5, 1, 6], size=length)]
    if rng.random() < 0.6:
        roots[0] = _triad(song, 0)
    if rng.random() < 0.15:
        roots[-1] = ((song.tonic + 10) % 12, "maj")
    bar = metre.beats
    chords = tuple(Chord(i * bar, bar, *roots[i % length]) for i in range(_VAMP_BARS))
    riff_bars = int(rng.choice([1, 2]))
    scale = [song.tonic + step for step in rng.permutation(SCALES[song.mode])[: rng.integers(3, 6)]]
    beats = [b for b in np.arange(0, riff_bars * bar, metre.step).tolist() if rng.random() < 0.5] or [0.0]
    pitches = [60 + int(rng.choice(scale)) for _ in beats]
    riff = tuple(
        Note(turn * riff_bars * bar + beat, 0.9 * metre.step, pitch)
        for turn in range(_VAMP_BARS // riff_bars)
        for beat, pitch in zip(beats, pitches, strict=True)
    )
    return replace(song, sections=(*song.sections, Section("vamp", _VAMP_BARS * bar, riff, chords)))


def with_guest(song: Song, rng: np.random.Generator) -> Song:
    """A medley: the song's form visits a section or two of a song that nobody knows, before, between or after its own.

    The guest is composed from a number drawn here and taken to the song's key or one near it. A song in a metre that
    no guest has stays alone.
    """
    for seed in rng.integers(2**31, 2**32, size=_GUESTS_TRIED).tolist():
        guest = compose(seed)
        if guest.beats_per_bar == song.beats_per_bar:
            break
    else:
        return song
    shift = (song.tonic - guest.tonic + int(rng.choice([0, 0, 0, 5, 7, 2, 9])) + 6) % 12 - 6
    visited = sorted(set(guest.form[: rng.integers(1, 3)]))
    sections = tuple(_transposed(guest.sections[i], shift) for i in visited)
    at = int(rng.integers(len(song.form) + 1))
    indices = tuple(range(len(song.sections), len(song.sections) + len(sections)))
    return replace(song, sections=(*song.sections, *sections), form=(*song.form[:at], *indices, *song.form[at:]))


def _transposed(section: Section, shift: int) -> Section:
    melody = tuple(replace(note, pitch=note.pitch + shift) for note in section.melody)
    chords = tuple(
        replace(chord, root=(chord.root + shift) % 12, bass=None if chord.bass is None else (chord.bass + shift) % 12)
        for chord in section.chords
    )
    return Section(f"guest {section.name}", section.n_beats, melody, chords)


def _triad(song: Song, degree: int) -> tuple[int, str]:
    """Root and quality of the triad on a degree of the song's mode."""
    scale = SCALES[song.mode]
    root, third, fifth = (scale[(degree + i) % 7] + 12 * ((degree + i) // 7) for i in (0, 2, 4))
    shape = (0, third - root, fifth - root)
    quality = next((name for name, intervals in CHORD_QUALITIES.items() if intervals == shape), "maj")
    return (song.tonic + root) % 12, quality
