"""Songs out of nothing but a seed: functional harmony, motifs that return and vary, phrases that close.

Variety decides what a network can learn from them, so every choice a writer makes is drawn: mode, metre, tempo, scale of
the melody, length of phrases, harmonic rhythm, colour of the chords, what repeats and what answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
_PENTATONIC = {"major": (0, 2, 4, 7, 9), "minor": (0, 3, 5, 7, 10)}


@dataclass(frozen=True)
class _Idiom:
    """What a family of songs has in common."""

    metres: tuple[tuple[int, float], ...]  # beats per bar, and the value the melody moves in (beats)
    bpm: tuple[float, float]
    modes: tuple[str, ...]
    bars: tuple[int, ...]  # per section
    forms: tuple[str, ...]  # a letter per section
    density: tuple[float, float]  # chance of a note on an off-beat
    colour: tuple[float, float]  # chance of sevenths, suspensions and sixths


_IDIOMS: dict[str, _Idiom] = {
    "pop": _Idiom(
        ((4, 0.5), (4, 0.5), (4, 0.25), (6, 1.0)),
        (75, 140),
        ("major", "major", "minor", "minor", "mixolydian", "dorian"),
        (8, 8, 16),
        ("ABABCB", "ABABB", "AABAB", "ABCABC", "AABABCB"),
        (0.35, 0.7),
        (0.05, 0.35),
    ),
    "folk": _Idiom(
        ((4, 0.5), (3, 0.5), (2, 1 / 3), (6, 1.0), (2, 0.25)),
        (70, 140),
        ("major", "major", "minor", "dorian", "mixolydian"),
        (8, 16),
        ("AABB", "AABA", "ABAB", "AAAA", "ABABAB"),
        (0.3, 0.7),
        (0.0, 0.1),
    ),
    "dance": _Idiom(
        ((4, 0.5), (4, 0.25)),
        (100, 160),
        ("minor", "minor", "major", "phrygian", "dorian", "lydian"),
        (8, 8, 16),
        ("ABAB", "AABB", "ABCAB", "AABCB"),
        (0.45, 0.85),
        (0.0, 0.3),
    ),
    "ballad": _Idiom(
        ((4, 0.5), (4, 0.25), (3, 0.5), (6, 1.0)),
        (60, 90),
        ("major", "major", "minor", "lydian", "dorian"),
        (8, 8, 16),
        ("AABA", "ABAB", "ABABCB", "AABAB"),
        (0.2, 0.55),
        (0.1, 0.6),
    ),
    "standard": _Idiom(
        ((4, 0.5), (4, 1 / 3), (3, 0.5)),
        (70, 160),
        ("major", "major", "minor", "dorian"),
        (8,),
        ("AABAAABA", "ABACABAC", "AABAA"),
        (0.3, 0.6),
        (0.6, 0.95),
    ),
}


def compose(seed: int) -> Song:
    """A song that nobody wrote, the same for the same seed.

    Returns
    -------
    song : Song
        Two to four sections in a form of 1 to 4 minutes, ``song_id`` "composed-<seed>".
    """
    rng = np.random.default_rng([0xC0DE, seed])
    return _Composer(rng).song(seed)


class _Composer:
    """The choices that hold for a whole song, and the rules that fill its sections."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        idiom = _IDIOMS[str(rng.choice(list(_IDIOMS)))]
        self.idiom = idiom
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
        if len(names) == 1:
            names, letters = ["A", "B"], "ABAB"
        n_bars = [
            int(rng.choice(self.idiom.bars)) * (2 if self.beats <= 3 and rng.random() < 0.5 else 1) for _ in names
        ]
        sections = tuple(
            self.section(name, bars, lift=2 * i) for i, (name, bars) in enumerate(zip(names, n_bars, strict=True))
        )
        form = tuple(names.index(letter) for letter in letters)
        one_pass_s = sum(sections[i].n_beats for i in form) * 60 / self.bpm
        if one_pass_s < 75:
            form = form * 2
        while len(form) > len(sections) and sum(sections[i].n_beats for i in form) * 60 / self.bpm > 240:
            form = form[:-1]
        return Song(
            f"composed-{seed}", f"Composed {seed}", "composed", self.tonic, self.mode, self.beats, float(self.bpm), sections, form
        )  # fmt: skip

    def section(self, name: str, n_bars: int, lift: int) -> Section:
        """`lift` raises the melody by scale steps: choruses lie above verses."""
        degrees = self.progression(n_bars)
        chords = self.chords(degrees)
        lift = int(self.rng.integers(-lift // 2, lift + 1)) if lift else 0
        return Section(name, float(n_bars * self.beats), self.melody(n_bars, chords, lift), chords)

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

    def melody(self, n_bars: int, chords: tuple[Chord, ...], lift: int) -> tuple[Note, ...]:
        """Phrases of two or four bars after a plan such as a a' b a: motifs return, move and change their ends."""
        rng = self.rng
        bars = 4 if n_bars >= 8 and rng.random() < 0.5 else 2
        plan = str(rng.choice(["aaba", "abab", "abac", "aabb", "aaab", "abcb"]))
        motifs = {letter: self.motif(bars) for letter in sorted(set(plan))}
        home = lift * (len(self.steps) / 7)
        notes: list[Note] = []
        for phrase in range(n_bars // bars):
            rhythm, contour = motifs[plan[phrase % 4]]
            shift = 0
            if phrase and rng.random() < 0.35:
                shift = int(rng.choice([-2, -1, 1, 2]))  # a sequence: the same figure on another step
                contour = [move + shift for move in contour]
            if rng.random() < 0.3:
                keep = max(1, len(contour) - int(rng.integers(1, 4)))
                contour = contour[:keep] + [c + int(rng.integers(-2, 3)) for c in contour[keep:]]
            closes = phrase + 1 == n_bars // bars
            onset = float(phrase * bars * self.beats)
            notes += self.phrase(onset, bars, rhythm, contour, home, chords, closes)
        return tuple(notes)

    def motif(self, bars: int) -> tuple[list[tuple[float, float]], list[int]]:
        """A rhythm, as (onset, duration) in beats, and its contour in scale steps around the phrase's home."""
        rng = self.rng
        total = bars * self.beats
        cell = self.rhythm()
        onsets: list[float] = []
        for bar in range(bars):
            if bar and rng.random() < 0.45:
                cell = self.rhythm()
            onsets += [bar * self.beats + beat for beat in cell]
        last_bar = (bars - 1) * self.beats
        if rng.random() < 0.75:  # breathe: the phrase ends on a longer note
            onsets = [
                onset for onset in onsets if onset <= last_bar + rng.choice([0, self.pulses[len(self.pulses) // 2]])
            ]
        if rng.random() < 0.35:  # the upbeat to what follows
            onsets += [
                total - i * self.step for i in range(int(rng.integers(1, 4)), 0, -1) if total - i * self.step > last_bar
            ]
        onsets = sorted(set(onsets)) or [0.0]
        ends = [*onsets[1:], float(total)]
        longest = self.beats * 1.0
        rhythm = [
            (on, min(end - on, longest) * (0.95 if rng.random() < 0.8 else 0.6))
            for on, end in zip(onsets, ends, strict=True)
        ]
        shape = rng.choice(["arch", "down", "up", "wave", "level"])
        position = np.linspace(0, 1, len(onsets))
        arc = {
            "arch": np.sin(np.pi * position) * 3 - 1,
            "down": 2 - 3 * position,
            "up": 3 * position - 1,
            "wave": 2 * np.sin(2 * np.pi * position + rng.uniform(0, 6)),
            "level": 0 * position,
        }[str(shape)]
        contour, walk = [], 0.0
        for height in arc:
            walk = 0.8 * walk + (
                rng.choice([-3, -2, 2, 3]) if rng.random() < self.leaps else rng.choice([-1, -1, 0, 1, 1])
            )
            contour.append(round((height + walk) * len(self.steps) / 7))
        return rhythm, contour

    def rhythm(self) -> list[float]:
        """Onsets in one bar; the stronger the place, the surer a note."""
        rng = self.rng
        onsets = []
        for i in range(round(self.beats / self.step)):
            beat = i * self.step
            on_pulse = min(abs(beat - pulse) for pulse in self.pulses) < 0.01
            on_half = abs(beat * 2 - round(beat * 2)) < 0.01
            chance = 0.85 if beat == 0 else 0.3 + 0.6 * self.density if on_pulse else self.density
            if self.step == 0.25 and not on_half:
                chance *= 0.4
            if rng.random() < chance:
                onsets.append(beat)
        return onsets or [0.0]

    def phrase(
        self,
        start: float,
        bars: int,
        rhythm: list[tuple[float, float]],
        contour: list[int],
        home: float,
        chords: tuple[Chord, ...],
        closes: bool,
    ) -> list[Note]:
        """The motif at its place: chord tones where it is strong or long, scale tones between."""
        notes = []
        for i, ((onset, duration), height) in enumerate(zip(rhythm, contour, strict=True)):
            beat = start + onset
            chord = next(c for c in reversed(chords) if c.onset <= beat + 0.01)
            pitch = self.pitch(int(np.clip(round(home) + height, -5, 8)))
            strong = min(abs(onset % self.beats - pulse) for pulse in self.pulses[::2]) < 0.01 or duration >= 1.5
            final = closes and i == len(rhythm) - 1
            if final and self.tonic in chord.pitch_classes and self.rng.random() < 0.8:
                pitch = _nearest((self.tonic,), pitch)
            elif strong or final:
                pitch = _nearest(chord.pitch_classes, pitch)
            elif pitch % 12 not in chord.pitch_classes:
                clash = [pc for pc in chord.pitch_classes if (pc - self.tonic) % 12 not in self.scale]
                if any((pitch - pc) % 12 in (1, 11) for pc in clash):
                    pitch = _nearest(chord.pitch_classes, pitch)
            notes.append(Note(beat, duration, int(np.clip(pitch, 48, 86))))
        return notes

    def pitch(self, height: int) -> int:
        """MIDI number of a step of the melody's scale, 0 being the tonic nearest the singer's centre."""
        octave, step = divmod(height, len(self.steps))
        return _nearest((self.tonic,), self.centre) + 12 * octave + self.steps[step]


def _nearest(pitch_classes: tuple[int, ...], pitch: float) -> int:
    """The MIDI number nearest to `pitch` among all octaves of some pitch classes."""
    return min((round(pitch + (pc - pitch + 6) % 12 - 6) for pc in pitch_classes), key=lambda p: abs(p - pitch))
