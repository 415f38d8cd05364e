"""The chords as one band knows them, the same at every return."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..score import SCALES, Chord, Song
from .form import Passage

AS_WRITTEN = "as written"
HARMONIES = ("simplified", "coloured", "substituted", "dominants", "power chords", "pedal", "slowed")  # to draw from

_PLAIN = {"7": "maj", "maj7": "maj", "6": "maj", "min7": "min", "min6": "min", "sus2": "maj", "sus4": "maj"}
_COLOURED = {"maj": ("maj7", "6", "7", "sus2", "maj"), "min": ("min7", "min7", "min6"), "dim": ("min7b5", "dim7")}
_APPROACHES = ((7, "7"), (7, "7"), (1, "7"), (11, "dim7"), (2, "min7"))  # semitones above the chord they lead to


class Harmony:
    """Plain, coloured, some chords replaced, led up to, moving at half the pace, or over one bass tone."""

    def __init__(self, song: Song, manner: str, transpose: int, rng: np.random.Generator) -> None:
        self.song, self.manner, self.transpose = song, manner, transpose
        self.known: dict[tuple[int, str], tuple[int, str]] = {}
        self.approaches: dict[int, tuple[int, str]] = {}  # by the root that follows
        self.pedal = (song.tonic + int(rng.choice([0, 0, 7]))) % 12
        for section in song.sections:
            for chord in section.chords:
                if (chord.root, chord.quality) not in self.known:
                    self.known[chord.root, chord.quality] = self._heard(chord.root, chord.quality, rng)
        if manner == "dominants":
            for root in sorted({root for root, _ in self.known.values()}):
                if rng.random() < 0.6:
                    above, quality = _APPROACHES[rng.integers(len(_APPROACHES))]
                    self.approaches[root] = ((root + above) % 12, quality)

    def _heard(self, root: int, quality: str, rng: np.random.Generator) -> tuple[int, str]:
        match self.manner:
            case "simplified":
                return root, _PLAIN.get(quality, quality)
            case "coloured":
                return root, str(rng.choice(_COLOURED.get(quality, (quality,))))
            case "power chords":
                return root, "5"
            case "substituted" if rng.random() < 0.3:
                if quality in ("maj", "maj7", "6"):
                    return (root + int(rng.choice([4, 9]))) % 12, "min7"  # mediant or relative minor
                if quality in ("min", "min7"):
                    return (root + 3) % 12, "maj7"  # relative major
        return root, quality

    def chords(self, segment: Passage) -> list[Chord]:
        """The chords of a segment in beats and key of the arrangement; a drone on the tonic where the song has none."""
        shift = self.transpose + segment.key
        chords = []
        for chord in self.song.sections[segment.section].chords:
            onset, stop = max(chord.onset, segment.start), min(chord.onset + chord.duration, segment.stop)
            if stop > onset:
                root, quality = self.known[chord.root, chord.quality]
                bass = None if root != chord.root else chord.bass
                chords.append(Chord(onset + segment.at - segment.start, stop - onset, root, quality, bass))
        chords = self._moved(chords, segment.at) or [Chord(segment.at, segment.n_beats, self.song.tonic, "5")]
        if segment.kind == "ending":
            chords = [replace(chords[-1], onset=segment.at, duration=segment.n_beats)]
        return [
            replace(
                chord, root=(chord.root + shift) % 12, bass=None if chord.bass is None else (chord.bass + shift) % 12
            )
            for chord in chords
        ]

    def _moved(self, chords: list[Chord], start: float) -> list[Chord]:
        """The chords in the succession that the manner gives them."""
        match self.manner:
            case "pedal":
                return [replace(chord, bass=self.pedal) for chord in chords]
            case "slowed":
                return _slowed(chords, start, span=2.0 * self.song.beats_per_bar)
            case "dominants":
                return self._led_up_to(chords)
        return chords

    def _led_up_to(self, chords: list[Chord]) -> list[Chord]:
        """The second half of a long chord becomes the dominant, or its like, of what follows."""
        led: list[Chord] = []
        for i, chord in enumerate(chords):
            following = chords[i + 1] if i + 1 < len(chords) else None
            approach = self.approaches.get(following.root) if following and following.root != chord.root else None
            if approach and chord.duration >= 2:
                half = chord.duration / 2
                led += [replace(chord, duration=half), Chord(chord.onset + half, half, *approach)]
            else:
                led.append(chord)
        return led

    def scale(self, segment: Passage) -> list[int]:
        """The pitch classes of the song's mode in the key of a segment."""
        tonic = self.song.tonic + self.transpose + segment.key
        return [(tonic + step) % 12 for step in SCALES[self.song.mode]]


def _slowed(chords: list[Chord], start: float, span: float) -> list[Chord]:
    """The first chord of every `span` beats, held."""
    slowed: list[Chord] = []
    for chord in chords:
        if slowed and (chord.onset - start) // span == (slowed[-1].onset - start) // span:
            slowed[-1] = replace(slowed[-1], duration=chord.onset + chord.duration - slowed[-1].onset)
        else:
            slowed.append(chord)
    return slowed
