"""A band at work on a song: the chords as it knows them, and who plays what in which segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from .bands import Band
from .form import Segment
from .instruments import INSTRUMENTS
from .lead import SECOND_VOICES, Manner, deliver, fill_gaps, improvise, second_voice
from .patterns import Event, Metre, bass_bar, comping_bar, drum_bar, drum_fill, play_pattern
from .score import SCALES, Chord, Note, Song

HARMONIES = ("as written", "as written", "as written", "simplified", "coloured", "substituted")  # to draw from

_PLAIN = {"7": "maj", "maj7": "maj", "6": "maj", "min7": "min", "min6": "min", "sus2": "maj", "sus4": "maj"}
_COLOURED = {"maj": ("maj7", "6", "7", "sus2", "maj"), "min": ("min7", "min7", "min6"), "dim": ("min7b5", "dim7")}


class Harmony:
    """The chords as one band knows them: plain, coloured, or some of them replaced, the same at every return."""

    def __init__(self, song: Song, manner: str, transpose: int, rng: np.random.Generator) -> None:
        self.song, self.manner, self.transpose = song, manner, transpose
        self.known: dict[tuple[int, str], tuple[int, str]] = {}
        for section in song.sections:
            for chord in section.chords:
                if (chord.root, chord.quality) not in self.known:
                    self.known[chord.root, chord.quality] = self._heard(chord.root, chord.quality, rng)

    def _heard(self, root: int, quality: str, rng: np.random.Generator) -> tuple[int, str]:
        if self.manner == "simplified":
            return root, _PLAIN.get(quality, quality)
        if self.manner == "coloured":
            return root, str(rng.choice(_COLOURED.get(quality, (quality,))))
        if self.manner == "substituted" and rng.random() < 0.3:
            if quality in ("maj", "maj7", "6"):
                return (root + int(rng.choice([4, 9]))) % 12, "min7"  # mediant or relative minor
            if quality in ("min", "min7"):
                return (root + 3) % 12, "maj7"  # relative major
        return root, quality

    def chords(self, segment: Segment) -> list[Chord]:
        """The chords of a segment in beats and key of the arrangement; a drone on the tonic where the song has none."""
        shift = self.transpose + segment.key
        chords = []
        for chord in self.song.sections[segment.section].chords:
            onset, stop = max(chord.onset, segment.start), min(chord.onset + chord.duration, segment.stop)
            if stop > onset:
                root, quality = self.known[chord.root, chord.quality]
                bass = None if chord.bass is None or root != chord.root else (chord.bass + shift) % 12
                onset += segment.at - segment.start
                chords.append(
                    Chord(onset, stop + segment.at - segment.start - onset, (root + shift) % 12, quality, bass)
                )
        if not chords:
            return [Chord(segment.at, segment.n_beats, (self.song.tonic + shift) % 12, "5")]
        if segment.kind == "ending":
            return [replace(chords[-1], onset=segment.at, duration=segment.n_beats)]
        return chords

    def scale(self, segment: Segment) -> list[int]:
        """The pitch classes of the song's mode in the key of a segment."""
        tonic = self.song.tonic + self.transpose + segment.key
        return [(tonic + step) % 12 for step in SCALES[self.song.mode]]


@dataclass(frozen=True)
class Line:
    """What one player plays, in beats."""

    role: str  # "lead", "second voice", "solo", "fills", "comping" or "bass"
    instrument: str
    style: str  # of the pattern; empty for melodies
    events: list[Event]
    gain: float


class Players:
    """The band: draws its instruments and habits once, then plays the segments."""

    def __init__(
        self,
        song: Song,
        band: Band,
        metre: Metre,
        segments: Sequence[Segment],
        harmony: Harmony,
        rng: np.random.Generator,
    ) -> None:
        self.song, self.band, self.metre, self.segments, self.rng = song, band, metre, segments, rng
        self.transpose = harmony.transpose
        self.chords = [harmony.chords(segment) for segment in segments]
        self.scales = [harmony.scale(segment) for segment in segments]
        self.lead = str(rng.choice(band.leads))
        self.comping = band.comping or (self.lead,)  # who has no accompanist accompanies himself
        sings = not INSTRUMENTS[self.lead].decays
        self.manner = Manner(
            freedom=band.freedom * rng.uniform(0.3, 1.7),
            ornaments=band.ornaments * rng.uniform(0.2, 2.0),
            glides=float(rng.choice([0.0, 0.1, 0.3])) * (1.0 if self.lead == "voice" else 0.5) * sings,
            legato=float(rng.uniform(0.7, 1.0)),
            back_phrasing=float(rng.choice([0.0, 0.0, 0.0, 0.08])),
        )

    def lines(self) -> list[Line]:
        """Everyone who plays notes."""
        rng, band = self.rng, self.band
        octave = self._octave(self.lead)
        sung = {i: self._melody(i, octave, self.manner) for i, s in enumerate(self.segments) if s.kind == "sung"}
        lines = [Line("lead", self.lead, "", [*chain.from_iterable(sung.values())], float(rng.uniform(0.9, 1.6)))]
        if rng.random() < 0.22:
            kind = str(rng.choice(SECOND_VOICES))
            player = self.lead if rng.random() < 0.6 else str(rng.choice(band.leads))
            events = [event for i in sung if i > 0 for event in second_voice(sung[i], kind, self.scales[i])]
            lines.append(Line("second voice", player, kind, events, float(rng.uniform(0.3, 0.8))))
        lines.append(self._solos())
        n_comping = int(rng.choice(band.n_comping))
        if n_comping and rng.random() < 0.3:
            centre = rng.uniform(64, 76)
            events = [e for i in sung for e in fill_gaps(sung[i], self.chords[i], centre, self.metre.step, rng)]
            lines.append(Line("fills", str(rng.choice(self.comping)), "", events, float(rng.uniform(0.3, 0.7))))
        for i in range(n_comping):
            lines.append(self._comping(always=i == 0, gain=float(rng.uniform(0.3, 1.0)) / n_comping**0.5))
        if band.basses and rng.random() < 0.93:
            lines.append(self._bass())
        return [line for line in lines if line.events]

    def _octave(self, instrument: str) -> int:
        """Semitones, a multiple of 12, that bring the melody where the instrument is at home."""
        pitches = [note.pitch for section in self.song.sections for note in section.melody] or [60]
        middle = self.transpose + (min(pitches) + max(pitches)) / 2
        plays = INSTRUMENTS[instrument]
        return 12 * round(((plays.lowest + plays.highest) / 2 + self.rng.uniform(-4, 4) - middle) / 12)

    def _melody(self, i: int, octave: int, manner: Manner) -> list[Event]:
        """The melody of segment `i`, delivered anew each time."""
        segment = self.segments[i]
        shift = self.transpose + segment.key + octave
        notes = [
            Note(
                note.onset - segment.start + segment.at,
                min(note.duration, segment.stop - note.onset),
                note.pitch + shift,
            )
            for note in self.song.sections[segment.section].melody
            if segment.start - 1e-6 <= note.onset < segment.stop - 1e-6
        ]
        return deliver(notes, manner, self.scales[i], self.rng)

    def _solos(self) -> Line:
        """What a soloist takes: the tune with more freedom, or an improvisation over its chords."""
        rng = self.rng
        instrument = str(rng.choice(self.band.leads))
        plays = INSTRUMENTS[instrument]
        octave, centre = self._octave(instrument), round((plays.lowest + plays.highest) / 2)
        loose = replace(self.manner, freedom=self.manner.freedom + 0.25, ornaments=self.manner.ornaments + 0.15)
        introduces = rng.random() < 0.25
        events: list[Event] = []
        for i, segment in enumerate(self.segments):
            if segment.kind == "solo" and rng.random() < 0.5:
                events += self._melody(i, octave, loose)
            elif segment.kind == "solo" or (segment.kind == "intro" and introduces):
                span = (segment.at, segment.end)
                events += improvise(self.chords[i], span, centre, self.metre.step, self.scales[i], rng)
        return Line("solo", instrument, "", events, float(rng.uniform(0.7, 1.3)))

    def _comping(self, always: bool, gain: float) -> Line:
        rng, metre = self.rng, self.metre
        instrument = str(rng.choice(self.comping))
        style, other_style = (str(rng.choice(self.band.comping_styles)) for _ in range(2))
        plays = INSTRUMENTS[instrument]
        centre = float(np.clip(rng.normal(57, 5), plays.lowest + 7, plays.highest - 12))
        figure = comping_bar(style, metre, rng)
        other = comping_bar(other_style, metre, rng) if rng.random() < 0.4 else figure  # for every second section
        last = comping_bar("roll" if plays.decays else "block", metre, rng)
        names = sorted({section.name for section in self.song.sections})
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if not always and rng.random() < (0.6 if segment.kind == "intro" else 0.2):
                continue
            odd = names.index(self.song.sections[segment.section].name) % 2
            pattern = last if segment.kind == "ending" else other if odd else figure
            events += play_pattern(pattern, chords, (segment.at, segment.end), metre, centre)
        return Line("comping", instrument, style, events, gain)

    def _bass(self) -> Line:
        rng, metre = self.rng, self.metre
        instrument, style = str(rng.choice(self.band.basses)), str(rng.choice(self.band.bass_styles))
        centre = float(rng.uniform(34, 42))
        figure, last = bass_bar(style, metre, rng), bass_bar("whole", metre, rng)
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if segment.kind != "intro" or rng.random() < 0.5:
                pattern = last if segment.kind == "ending" else figure
                events += play_pattern(pattern, chords, (segment.at, segment.end), metre, centre)
        return Line("bass", instrument, style, events, float(rng.uniform(0.4, 1.1)))

    def drums(self) -> tuple[str, list[tuple[float, str, float]]]:
        """The style, empty for none, and every hit as (beat, sound, velocity)."""
        rng, metre = self.rng, self.metre
        if not self.band.drums or rng.random() < 0.1:
            return "", []
        waltzes = len(metre.pulses) == 3 and rng.random() < 0.6
        style = "waltz" if waltzes else str(rng.choice(self.band.drums))
        bar, fills = drum_bar(style, metre, rng), rng.random() < 0.7
        enters = int(rng.choice([0, 0, 1, 2])) if len(self.segments) > 3 else 0
        hits: list[tuple[float, str, float]] = []
        for segment in self.segments[enters:]:
            if segment.kind == "ending":
                hits += [(segment.at, "kick", 0.9), (segment.at, "crash", 0.6)]
                continue
            if rng.random() < 0.06:  # they lay out
                continue
            if fills and rng.random() < 0.5:
                hits.append((segment.at, "crash", 0.6))
            n_bars = int(np.ceil(segment.n_beats / metre.beats - 1e-6))
            for k in range(n_bars):
                figure = bar
                if fills and k == n_bars - 1 > 0:
                    fill = drum_fill(metre, rng)
                    figure = (*(hit for hit in bar if hit[0] < fill[0][0]), *fill)
                start = segment.at + k * metre.beats
                hits += [(start + beat, sound, v) for beat, sound, v in figure if start + beat < segment.end - 1e-6]
        return style, hits
