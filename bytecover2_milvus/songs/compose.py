"""Songs out of nothing but a seed: functional harmony, motifs that return and vary, phrases that close.

Variety decides what a network can learn from them, so every choice a writer makes is drawn: mode, metre, tempo, scale
of the melody, length of phrases, harmonic rhythm, colour of the chords, what repeats and what answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .idioms import IDIOMS
from .score import CHORD_QUALITIES, SCALES, Chord, Note, Section, Song

# Where a chord on a degree (row) likes to go (column), I to VII: subdominants before dominants before the tonic.
_PROGRESSIONS = np.array(
    [
        [0.5, 1.5, 1.0, 4.5, 4.5, 4.0, 0.6],
        [0.7, 0.2, 0.6, 1.0, 5.0, 0.8, 0.6],
        [0.5, 0.8, 0.1, 4.0, 0.8, 4.0, 0.3],
        [4.0, 1.2, 0.6, 0.2, 5.0, 1.2, 0.5],
        [5.0, 0.5, 0.6, 1.8, 0.2, 3.5, 0.2],
        [0.8, 2.5, 1.2, 4.5, 3.0, 0.1, 0.7],
        [4.0, 0.3, 2.0, 1.0, 0.8, 2.0, 0.1],
    ]
)
_OPENINGS = (0, 0, 0, 0, 5, 3, 1)  # degrees; most sections begin at home
_CADENCES = ((4, 0), (3, 0), (4, 5), (3, 4), (1, 4), (6, 0))  # the last two chords of a phrase
_SHORTEST_S, _LONGEST_S = 75.0, 240.0  # of a song played once at its own tempo
_PENTATONIC = {"major": (0, 2, 4, 7, 9), "minor": (0, 3, 5, 7, 10)}


def compose(seed: int) -> Song:
    """A song that nobody wrote, the same for the same seed.

    Returns
    -------
    song : Song
        Two to four sections in a form of 1 to 4 minutes, ``song_id`` "composed-<seed>".
    """
    rng = np.random.default_rng([0xC0DE, seed])
    return _Composer(rng).song(seed)


class _Motif(NamedTuple):
    """A figure that can return; onsets and durations in beats, the contour in scale steps around home."""

    onsets: tuple[float, ...]
    durations: tuple[float, ...]
    contour: tuple[int, ...]

    def moved(self, steps: int) -> _Motif:
        return self._replace(contour=tuple(height + steps for height in self.contour))

    def with_other_end(self, rng: np.random.Generator) -> _Motif:
        kept = max(1, len(self.contour) - int(rng.integers(1, 4)))
        end = (height + int(rng.integers(-2, 3)) for height in self.contour[kept:])
        return self._replace(contour=(*self.contour[:kept], *end))


class _Composer:
    """The choices that hold for a whole song, and the rules that fill its sections."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        idiom = self.idiom = IDIOMS[rng.integers(len(IDIOMS))]
        self.beats, self.step = idiom.metres[rng.integers(len(idiom.metres))]
        self.bpm = round(rng.uniform(*idiom.bpm))
        if self.beats == 6:
            self.bpm = round(rng.uniform(110, 160))  # the beat is an eighth: two slow pulses in a bar
        self.mode = str(rng.choice(idiom.modes))
        self.scale = SCALES[self.mode]
        self.tonic = int(rng.integers(12))
        self.density = rng.uniform(*idiom.density)
        self.colour = rng.uniform(*idiom.colour)
        self.chromatic = rng.choice([0.0, 0.03, 0.1])  # chance of a borrowed chord or a secondary dominant
        self.leaps = rng.uniform(0.03, 0.3)
        third = "major" if 4 in self.scale else "minor"
        pentatonic = rng.random() < 0.3 and set(_PENTATONIC[third]) <= set(self.scale)
        self.steps = _PENTATONIC[third] if pentatonic else self.scale
        self.centre = int(rng.integers(60, 70))
        self.pulses = tuple(range(0, self.beats, 3)) if self.beats == 6 else tuple(range(self.beats))

    def song(self, seed: int) -> Song:
        rng = self.rng
        letters = str(rng.choice(self.idiom.forms))
        names = sorted(set(letters))
        sections = tuple(self.section(name, lift=2 * i) for i, name in enumerate(names))
        lengths_s = [section.n_beats * 60 / self.bpm for section in sections]
        form = tuple(names.index(letter) for letter in letters)
        if sum(lengths_s[i] for i in form) < _SHORTEST_S:
            form = form * 2
        while len(form) > len(sections) and sum(lengths_s[i] for i in form) > _LONGEST_S:
            form = form[:-1]
        return Song(
            song_id=f"composed-{seed}",
            title=f"Composed {seed}",
            origin="composed",
            tonic=self.tonic,
            mode=self.mode,
            beats_per_bar=self.beats,
            bpm=float(self.bpm),
            sections=sections,
            form=form,
        )

    def section(self, name: str, lift: int) -> Section:
        """`lift` is how far the melody may rise in scale steps: choruses lie above verses."""
        n_bars = int(self.rng.choice(self.idiom.bars))
        if self.beats <= 3 and self.rng.random() < 0.5:
            n_bars *= 2
        chords = self.chords(self.progression(n_bars))
        home = int(self.rng.integers(-(lift // 2), lift + 1))
        return Section(name, float(n_bars * self.beats), self.melody(n_bars, chords, home), chords)

    # Harmony

    def progression(self, n_bars: int) -> list[int]:
        """A degree per slot; loops come back, periods end on a cadence."""
        rng = self.rng
        length = int(rng.choice([2, 4, 4, 4, 8]))
        loop = [int(rng.choice(_OPENINGS))]
        while len(loop) < length:
            loop.append(int(rng.choice(7, p=_PROGRESSIONS[loop[-1]] / _PROGRESSIONS[loop[-1]].sum())))
        degrees = (loop * (n_bars // length + 1))[:n_bars]
        if rng.random() < 0.65:
            degrees[-2:] = [4, 0] if rng.random() < 0.6 else _CADENCES[rng.integers(len(_CADENCES))]
            if n_bars >= 8 and rng.random() < 0.5:
                half = n_bars // 2
                degrees[half - 1] = int(rng.choice([4, 4, 3, 5]))
        return degrees

    def chords(self, degrees: list[int]) -> tuple[Chord, ...]:
        """A chord per bar, now and then two, coloured and altered the same way wherever the same degree returns."""
        rng = self.rng
        colours = {degree: self.triad(degree, rng.random() < self.colour) for degree in range(7)}
        two_per_bar = rng.random() < 0.25
        half = float(self.pulses[(len(self.pulses) + 1) // 2])
        chords: list[Chord] = []
        for bar, degree in enumerate(degrees):
            onset = float(bar * self.beats)
            root, quality = colours[degree]
            bass = None
            if rng.random() < 0.06:
                bass = (root + CHORD_QUALITIES[quality][1]) % 12
            if rng.random() < self.chromatic:
                root, quality, bass = *self.borrowed(), None
            following = colours[degrees[bar + 1]] if bar + 1 < len(degrees) else None
            if following and rng.random() < self.chromatic and following[1] != "dim":
                split: tuple[int, str] | None = ((following[0] + 7) % 12, "7")
            elif two_per_bar and bar + 1 < len(degrees) and rng.random() < 0.6:
                passing = int(rng.choice(7, p=_PROGRESSIONS[degree] / _PROGRESSIONS[degree].sum()))
                split = colours[passing]
            else:
                split = None
            if split:
                chords += [Chord(onset, half, root, quality, bass), Chord(onset + half, self.beats - half, *split)]
            else:
                chords.append(Chord(onset, float(self.beats), root, quality, bass))
        return tuple(chords)

    def triad(self, degree: int, coloured: bool) -> tuple[int, str]:
        """Root and quality on a degree of the mode."""
        root, third, fifth, seventh = (self.scale[(degree + i) % 7] + 12 * ((degree + i) // 7) for i in (0, 2, 4, 6))
        shape = (third - root, fifth - root)
        quality = {(4, 7): "maj", (3, 7): "min", (3, 6): "dim", (4, 8): "aug"}.get(shape, "maj")
        if self.mode == "minor" and degree == 4 and self.rng.random() < 0.6:
            quality = "maj"  # the leading tone
        if coloured:
            leading = seventh - root
            options = {
                "maj": ("7",) if leading == 10 or degree == 4 else ("maj7", "6", "maj7"),
                "min": ("min7", "min7", "min6") if leading == 10 else ("min7",),
                "dim": ("min7b5",),
                "aug": ("aug",),
            }[quality]
            quality = str(self.rng.choice(options))
        elif quality == "maj" and self.rng.random() < 0.06:
            quality = str(self.rng.choice(["sus4", "sus2"]))
        return (self.tonic + root) % 12, quality

    def borrowed(self) -> tuple[int, str]:
        """A chord of the parallel mode."""
        major = 4 in self.scale
        interval, quality = ((5, "min"), (10, "maj"), (8, "maj"))[self.rng.integers(3)] if major else (5, "maj")
        return (self.tonic + interval) % 12, quality

    # Melody

    def melody(self, n_bars: int, chords: tuple[Chord, ...], home: int) -> tuple[Note, ...]:
        """Phrases of two or four bars after a plan such as a a b a: motifs return, move and change their ends."""
        rng = self.rng
        bars = 4 if n_bars >= 8 and rng.random() < 0.5 else 2
        n_phrases = n_bars // bars
        plan = str(rng.choice(["aaba", "abab", "abac", "aabb", "aaab", "abcb"]))
        motifs = {letter: self.motif(bars) for letter in sorted(set(plan))}
        notes: list[Note] = []
        for i in range(n_phrases):
            motif = motifs[plan[i % 4]]
            if i and rng.random() < 0.35:  # a sequence: the same figure on another step
                motif = motif.moved(int(rng.choice([-2, -1, 1, 2])))
            if rng.random() < 0.3:
                motif = motif.with_other_end(rng)
            notes += self.phrase(motif.moved(home), float(i * bars * self.beats), chords, closes=i == n_phrases - 1)
        return tuple(notes)

    def motif(self, bars: int) -> _Motif:
        """A rhythm that may breathe at its end or lead into what follows, and a line with a shape."""
        rng = self.rng
        total, last_bar = float(bars * self.beats), float((bars - 1) * self.beats)
        cell = self.rhythm()
        onsets: list[float] = []
        for bar in range(bars):
            if bar and rng.random() < 0.45:
                cell = self.rhythm()
            onsets += [bar * self.beats + beat for beat in cell]
        if rng.random() < 0.75:  # breathe: the phrase ends on a longer note
            last = last_bar + float(rng.choice([0, self.pulses[len(self.pulses) // 2]]))
            onsets = [onset for onset in onsets if onset <= last]
        if rng.random() < 0.35:  # the upbeat to what follows
            upbeat = [total - i * self.step for i in range(1, int(rng.integers(2, 5)))]
            onsets = sorted({*onsets, *(onset for onset in upbeat if onset > last_bar)})
        onsets = onsets or [0.0]
        durations = []
        for onset, following in zip(onsets, [*onsets[1:], total], strict=True):
            durations.append(min(following - onset, float(self.beats)) * (0.95 if rng.random() < 0.8 else 0.6))
        return _Motif(tuple(onsets), tuple(durations), self.contour(len(onsets)))

    def contour(self, n_notes: int) -> tuple[int, ...]:
        """Scale steps around home: an arc with a walk of small steps and some leaps, which are soon made good."""
        rng = self.rng
        place = np.linspace(0, 1, n_notes)
        arcs = (
            3 * np.sin(np.pi * place) - 1,
            2 - 3 * place,
            3 * place - 1,
            2 * np.sin(2 * np.pi * (place + rng.random())),
            0 * place,
        )
        heights, walk = [], 0.0
        for height in arcs[rng.integers(len(arcs))]:
            moves = [-3, -2, 2, 3] if rng.random() < self.leaps else [-1, -1, 0, 1, 1]
            walk = 0.8 * walk + rng.choice(moves)
            heights.append(round((height + walk) * len(self.steps) / 7))
        return tuple(heights)

    def rhythm(self) -> list[float]:
        """Onsets in one bar; the stronger the place, the surer a note."""
        rng = self.rng
        onsets = []
        for i in range(round(self.beats / self.step)):
            beat = i * self.step
            on_half = abs(beat * 2 - round(beat * 2)) < 0.01
            pulse = self.on_pulse(beat, self.pulses)
            chance = 0.85 if beat == 0 else 0.3 + 0.6 * self.density if pulse else self.density
            if self.step == 0.25 and not on_half:
                chance *= 0.4
            if rng.random() < chance:
                onsets.append(beat)
        return onsets or [0.0]

    def phrase(self, motif: _Motif, start: float, chords: tuple[Chord, ...], closes: bool) -> list[Note]:
        """The motif at its place: chord tones where it is strong or long, scale tones between, the tonic at the end."""
        notes = []
        for i, (onset, duration, height) in enumerate(zip(*motif, strict=True)):
            chord = next(c for c in reversed(chords) if c.onset <= start + onset + 0.01)
            final = closes and i == len(motif.onsets) - 1
            strong = duration >= 1.5 or self.on_pulse(onset % self.beats, self.pulses[::2])
            pitch = self.pitch(height)
            if final and self.tonic in chord.pitch_classes and self.rng.random() < 0.8:
                pitch = _nearest((self.tonic,), pitch)
            elif strong or final or self.clashes(pitch, chord):
                pitch = _nearest(chord.pitch_classes, pitch)
            notes.append(Note(start + onset, duration, pitch))
        return notes

    def clashes(self, pitch: int, chord: Chord) -> bool:
        """Whether a scale tone rubs against a tone that the chord does not share with the scale."""
        foreign = [tone for tone in chord.pitch_classes if (tone - self.tonic) % 12 not in self.scale]
        return any((pitch - tone) % 12 in (1, 11) for tone in foreign)

    def on_pulse(self, beat: float, pulses: tuple[int, ...]) -> bool:
        return min(abs(beat - pulse) for pulse in pulses) < 0.01

    def pitch(self, height: int) -> int:
        """MIDI number of a step of the melody's scale, 0 being the tonic nearest the singer's centre."""
        octave, step = divmod(int(np.clip(height, -(len(self.steps) // 2), len(self.steps))), len(self.steps))
        return _nearest((self.tonic,), self.centre) + 12 * octave + self.steps[step]


def _nearest(pitch_classes: tuple[int, ...], pitch: float) -> int:
    """The MIDI number nearest to `pitch` among all octaves of some pitch classes."""
    return min((round(pitch + (pc - pitch + 6) % 12 - 6) for pc in pitch_classes), key=lambda p: abs(p - pitch))
