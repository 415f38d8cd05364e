"""Songs out of nothing but a seed: functional harmony, motifs that return and vary, phrases that close.

Variety decides what a network can learn from them, so every choice a writer makes is drawn: mode, metre, tempo, scale
of the melody, length of phrases, harmonic rhythm, colour of the chords, what repeats and what answers.
"""

from __future__ import annotations

import numpy as np

from ..score import CHORD_QUALITIES, SCALES, Chord, Note, Section, Song
from .idioms import IDIOMS
from .motifs import Melodist, Motif

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
_PLANS = ("aaba", "abab", "abac", "aabb", "aaab", "abcb", "aaaa", "aabc")  # of phrases
_SHORTEST_S, _LONGEST_S = 75.0, 240.0  # of a song played once at its own tempo
_PENTATONIC = {"major": (0, 2, 4, 7, 9), "minor": (0, 3, 5, 7, 10)}


def compose(seed: int) -> Song:
    """A song that nobody wrote, the same for the same seed.

    Returns
    -------
    song : Song
        One to three sections in a form of 1 to 4 minutes, ``song_id`` "composed-<seed>".
    """
    rng = np.random.default_rng([0xC0DE, seed])
    return Composer(rng).song(seed)


class Composer:
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
        self.colour = rng.uniform(*idiom.colour)
        self.chromatic = rng.choice([0.0, 0.03, 0.1])  # chance of a borrowed chord or a secondary dominant
        third = "minor" if idiom.blue or 4 not in self.scale else "major"
        pentatonic = rng.random() < idiom.pentatonic and set(_PENTATONIC[third]) <= set(self.scale)
        self.steps = _PENTATONIC[third] if pentatonic or idiom.blue else self.scale
        self.centre = int(rng.integers(60, 70))
        self.pulses = tuple(range(0, self.beats, 3)) if self.beats == 6 else tuple(range(self.beats))
        self.melodist = self.draw_melodist()

    def draw_melodist(self) -> Melodist:
        """Habits of a melody in the idiom, for the metre and the scale as they are set."""
        rng, idiom = self.rng, self.idiom
        return Melodist(
            self.beats,
            self.step,
            self.pulses,
            len(self.steps),
            density=rng.uniform(*idiom.density),
            leaps=rng.uniform(0.03, 0.3),
            repeats=rng.uniform(*idiom.repeats),
            push=rng.uniform(*idiom.push),
            rests=rng.uniform(*idiom.rests),
        )

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
        """`lift` is how far the melody may rise in scale steps: choruses lie above verses and reach further."""
        rng, tonic = self.rng, self.tonic
        n_bars = int(rng.choice(self.idiom.bars))
        if self.beats <= 3 and rng.random() < 0.5:
            n_bars *= 2
        if rng.random() < 0.08:
            n_bars += int(rng.choice([-1, 1, 2]))
        if name == "C" and rng.random() < 0.25:  # a bridge in another key
            self.tonic = (tonic + int(rng.choice([3, 5, 7, 8, 9, 2]))) % 12
        chords = self.chords(self.progression(n_bars))
        home = int(rng.integers(-(lift // 2), lift + 1))
        reach = rng.uniform(0.4, 1.1) if lift == 0 else rng.uniform(0.7, 1.3)
        melody = self.melody(n_bars, chords, home, reach)
        self.tonic = tonic
        return Section(name, float(n_bars * self.beats), melody, chords)

    # Harmony

    def progression(self, n_bars: int) -> list[int]:
        """A degree per slot; loops come back, periods end on a cadence."""
        rng = self.rng
        if rng.random() < self.idiom.stock:
            loop = list(self.idiom.changes[rng.integers(len(self.idiom.changes))])
            closes = rng.random() < 0.2
        else:
            length = int(rng.choice([2, 4, 4, 4, 8]))
            loop = [int(rng.choice(_OPENINGS))]
            while len(loop) < length:
                loop.append(int(rng.choice(7, p=_PROGRESSIONS[loop[-1]] / _PROGRESSIONS[loop[-1]].sum())))
            closes = rng.random() < 0.65
        degrees = (loop * (n_bars // len(loop) + 1))[:n_bars]
        if closes:
            degrees[-2:] = [4, 0] if rng.random() < 0.6 else _CADENCES[rng.integers(len(_CADENCES))]
            if n_bars >= 8 and rng.random() < 0.5:
                half = n_bars // 2
                degrees[half - 1] = int(rng.choice([4, 4, 3, 5]))
        return degrees

    def chords(self, degrees: list[int]) -> tuple[Chord, ...]:
        """A chord per bar, now and then two, coloured and altered the same way wherever the same degree returns."""
        rng = self.rng
        colours = {degree: self.triad(degree, rng.random() < self.colour) for degree in range(7)}
        two_per_bar = rng.random() < self.idiom.two_per_bar
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
                "maj": ("7",) if leading == 10 or degree == 4 or self.idiom.blue else ("maj7", "6", "maj7"),
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

    def melody(self, n_bars: int, chords: tuple[Chord, ...], home: int, reach: float) -> tuple[Note, ...]:
        """Phrases of two or four bars after a plan such as a a b a: motifs return, move and change their ends."""
        rng = self.rng
        bars = 4 if n_bars >= 8 and rng.random() < 0.5 else 2
        n_phrases = n_bars // bars
        plan = str(rng.choice(_PLANS)) if n_phrases % 3 else str(rng.choice(["aab", "aab", "abc", "abb"]))
        motifs = {letter: self.melodist.motif(bars, reach, rng) for letter in sorted(set(plan))}
        notes: list[Note] = []
        for i in range(n_phrases):
            motif = motifs[plan[i % len(plan)]]
            if i and rng.random() < 0.35:  # a sequence: the same figure on another step
                motif = motif.moved(int(rng.choice([-2, -1, 1, 2])))
            if rng.random() < 0.3:
                motif = motif.with_other_end(rng)
            notes += self.phrase(motif.moved(home), float(i * bars * self.beats), chords, closes=i == n_phrases - 1)
        return tuple(notes)

    def phrase(self, motif: Motif, start: float, chords: tuple[Chord, ...], closes: bool) -> list[Note]:
        """The motif at its place: chord tones where it is strong or long, scale tones between, the tonic at the end."""
        notes = []
        for i, (onset, duration, height) in enumerate(zip(*motif, strict=True)):
            chord = next(c for c in reversed(chords) if c.onset <= start + onset + 0.01)
            final = closes and i == len(motif.onsets) - 1
            strong = duration >= 1.5 or self.melodist.on_pulse(onset % self.beats, every=2)
            pitch = self.pitch(height)
            if final and self.tonic in chord.pitch_classes and self.rng.random() < 0.8:
                pitch = _nearest((self.tonic,), pitch)
            elif strong or final or self.clashes(pitch, chord):
                pitch = _nearest(chord.pitch_classes, pitch)
            notes.append(Note(start + onset, duration, pitch))
        return notes

    def clashes(self, pitch: int, chord: Chord) -> bool:
        """True if a scale tone rubs against a tone that the chord does not share with the scale."""
        foreign = [tone for tone in chord.pitch_classes if (tone - self.tonic) % 12 not in self.scale]
        return any((pitch - tone) % 12 in (1, 11) for tone in foreign)

    def pitch(self, height: int) -> int:
        """MIDI number of a step of the melody's scale, 0 being the tonic nearest the singer's centre."""
        octave, step = divmod(int(np.clip(height, -(len(self.steps) // 2), len(self.steps))), len(self.steps))
        pitch = _nearest((self.tonic,), self.centre) + 12 * octave + self.steps[step]
        return pitch - 12 * (pitch > self.centre + 14) + 12 * (pitch < self.centre - 10)


def _nearest(pitch_classes: tuple[int, ...], pitch: float) -> int:
    """The MIDI number nearest to `pitch` among all octaves of some pitch classes."""
    return min((round(pitch + (pc - pitch + 6) % 12 - 6) for pc in pitch_classes), key=lambda p: abs(p - pitch))
