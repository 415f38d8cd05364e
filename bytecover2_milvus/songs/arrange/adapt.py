"""A song made over before anybody plays it: in another metre, or in the parallel mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..score import CHORD_QUALITIES, SCALES, Song

# Where a bar's beats go, from metre to metre (beats): each row maps the quarters of a bar, its first and last beat too.
_BARS: dict[tuple[int, int], tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]] = {
    (4, 3): (((0, 1, 2, 4), (0, 1, 2, 3)), ((0, 2, 3, 4), (0, 1, 2, 3)), ((0, 2, 4), (0, 2, 3))),
    (4, 6): (((0, 1, 2, 3, 4), (0, 2, 3, 5, 6)), ((0, 1, 2, 3, 4), (0, 1, 3, 4, 6))),
    (3, 4): (((0, 1, 2, 3), (0, 2, 3, 4)), ((0, 1, 3), (0, 2, 4))),
    (6, 4): (((0, 2, 3, 5, 6), (0, 1, 2, 3, 4)), ((0, 1, 3, 4, 6), (0, 1, 2, 3, 4))),
    (2, 3): (((0, 1, 2), (0, 2, 3)),),
}

# Semitones above the tonic that differ between a mode and the parallel one.
_MINOR = {4: 3, 9: 8, 11: 10}
_MAJOR = {3: 4, 8: 9, 10: 11}


def in_other_metre(song: Song, rng: np.random.Generator) -> Song:
    """The song as a waltz, in six-eight or in common time: beats stretched and squeezed within every bar.

    A bar lasts about as long as before. A song in a metre that has no neighbour comes back as it is.
    """
    metres = sorted(new for old, new in _BARS if old == song.beats_per_bar)
    if not metres:
        return song
    old, new = song.beats_per_bar, int(rng.choice(metres))
    bars = _BARS[old, new]
    knots, places = bars[rng.integers(len(bars))]

    def moved(beat: float) -> float:
        bar, within = divmod(beat, old)
        return float(bar * new + np.interp(within, knots, places))

    return replace(_remade(song, moved, lambda pitch: pitch), beats_per_bar=new, bpm=song.bpm * new / old)


def in_parallel_mode(song: Song) -> Song:
    """A song in major or a mode like it in minor, and the other way round; tones outside the scale stay."""
    is_major = 4 in SCALES[song.mode]
    mapping = _MINOR if is_major else _MAJOR

    def moved(pitch: int) -> int:
        degree = (pitch - song.tonic) % 12
        return pitch - degree + mapping.get(degree, degree)

    return replace(_remade(song, lambda beat: beat, moved), mode="minor" if is_major else "major")


def _remade(song: Song, time: Callable[[float], float], pitch: Callable[[int], int]) -> Song:
    """The song with every beat and every pitch moved; a chord becomes the one whose tones its tones become."""
    sections = []
    for section in song.sections:
        melody = tuple(
            replace(
                note,
                onset=time(note.onset),
                duration=time(note.onset + note.duration) - time(note.onset),
                pitch=pitch(note.pitch),
            )
            for note in section.melody
        )
        chords = []
        for chord in section.chords:
            root = pitch(chord.root) % 12
            tones = tuple((pitch(tone) - root) % 12 for tone in chord.pitch_classes)
            quality = next((name for name, known in CHORD_QUALITIES.items() if known == tones), chord.quality)
            onset, end = time(chord.onset), time(chord.onset + chord.duration)
            bass = None if chord.bass is None else pitch(chord.bass) % 12
            chords.append(replace(chord, onset=onset, duration=end - onset, root=root, quality=quality, bass=bass))
        sections.append(replace(section, n_beats=time(section.n_beats), melody=melody, chords=tuple(chords)))
    return replace(song, sections=tuple(sections))
