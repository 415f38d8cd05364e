"""A band at work on a song: who plays what in which segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..instruments import INSTRUMENTS
from ..score import Note, Song
from .bands import Band
from .comping import comping_bar
from .drums import drum_bar, drum_fill
from .form import SOLO, Passage
from .lead import SECOND_VOICES, Manner, deliver, echo, fill_gaps, improvise, second_voice
from .patterns import Event, Metre, bass_bar, play_pattern
from .reharmonise import Harmony
from .voicings import VOICINGS

_FEELS = (0.5, 1, 1, 1, 1, 1, 1, 2)  # the accompaniment's bars for one of the melody: to draw from
_BACKING = ("choir", "choir", "voice", "strings", "synth pad", "organ", "brass")
_DOUBLES = ("driven guitar", "electric guitar", "steel guitar", "piano", "organ", "strings", "synth pad")


@dataclass(frozen=True)
class Line:
    """The notes of one player, in beats."""

    role: str  # "lead", "second voice", "solo", "fills", "backing", "comping" or "bass"
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
        segments: Sequence[Passage],
        harmony: Harmony,
        liberty: float,
        rng: np.random.Generator,
    ) -> None:
        self.song, self.band, self.metre, self.segments, self.rng = song, band, metre, segments, rng
        self.felt = metre.felt(float(rng.choice(_FEELS)))
        self.transpose = harmony.transpose
        self.chords = [harmony.chords(segment) for segment in segments]
        self.scales = [harmony.scale(segment) for segment in segments]
        self.lead = str(rng.choice(band.leads))
        self.comping = band.comping or (self.lead,)  # who has no accompanist accompanies himself
        sings = not INSTRUMENTS[self.lead].decays
        self.manner = Manner(
            freedom=band.freedom * liberty * rng.uniform(0.6, 3.4),
            ornaments=min(0.3, band.ornaments * liberty * rng.uniform(0.4, 4.0)),
            glides=float(rng.choice([0.0, 0.1, 0.3])) * (1.0 if self.lead == "voice" else 0.5) * sings,
            legato=float(rng.uniform(0.7, 1.0)),
            back_phrasing=float(rng.choice([0.0, 0.0, 0.0, 0.08])),
            rephrasing=liberty * float(rng.choice([0.0, 0.2, 0.6, 1.0])),
            omissions=liberty * float(rng.choice([0.0, 0.0, 0.0, 0.24])),
            displacement=liberty * float(rng.choice([0.0, 0.0, 0.0, 0.3])),
            blue=liberty * float(rng.choice([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])),
        )
        sung = sorted({segment.section for segment in segments if segment.kind == "sung"})
        self.spoken = int(rng.choice(sung)) if len(sung) > 1 and rng.random() < 0.06 * liberty else -1  # a section

    def lines(self) -> list[Line]:
        """Everyone who plays notes."""
        rng, band = self.rng, self.band
        sung, lines = self._leads()
        tutti = {i: events for i, events in sung.items() if i > 0 and self.segments[i].fullness > 0.5}
        if rng.random() < 0.25:
            kind = str(rng.choice(SECOND_VOICES))
            player = self.lead if rng.random() < 0.6 else str(rng.choice(band.leads))
            events = [event for i in tutti for event in second_voice(sung[i], kind, self.scales[i])]
            lines.append(Line("second voice", player, kind, events, _gain(0.3, 1.0, rng)))
        lines.append(self._solos())
        n_comping = int(rng.choice(band.n_comping))
        if n_comping and rng.random() < 0.35:
            lines.append(self._fills(sung))
        for i in range(n_comping):
            lines.append(self._comping(threshold=0.9 * i / n_comping, gain=_gain(0.25, 1.2, rng) / n_comping**0.5))
        if n_comping and rng.random() < 0.1:  # the same again by another player
            lines.append(replace(lines[-1], instrument=str(rng.choice(_DOUBLES)), gain=_gain(0.2, 0.8, rng)))
        if n_comping and rng.random() < (0.25 if n_comping > 1 else 0.08):
            lines.append(self._backing())
        if band.basses and rng.random() < 0.88:
            lines.append(self._bass())
        return [line for line in lines if line.events]

    def _leads(self) -> tuple[dict[int, list[Event]], list[Line]]:
        """The melody by segment, and who brings it: one lead, or two who take turns with the sections."""
        rng, loudness = self.rng, _gain(0.45, 2.0, self.rng)
        leads = [self.lead, str(rng.choice(self.band.leads))] if rng.random() < 0.12 else [self.lead]
        octaves = [self._octave(lead) for lead in leads]
        high = int(rng.integers(len(self.song.sections))) if rng.random() < 0.12 else -1  # a section an octave higher
        sung: dict[int, list[Event]] = {}
        turns: list[list[Event]] = [[] for _ in leads]
        for i, segment in enumerate(self.segments):
            if segment.kind == "sung":
                turn = segment.section % len(leads)
                sung[i] = self._melody(i, octaves[turn] + 12 * (segment.section == high), self.manner)
                turns[turn] += sung[i]
        return sung, [Line("lead", *each, loudness) for each in zip(leads, ["", ""], turns, strict=False) if each[2]]

    def _octave(self, instrument: str) -> int:
        """Semitones, a multiple of 12, that bring the melody where the instrument is at home."""
        pitches = [note.pitch for section in self.song.sections for note in section.melody] or [60]
        middle = self.transpose + (min(pitches) + max(pitches)) / 2
        plays = INSTRUMENTS[instrument]
        return 12 * round(((plays.lowest + plays.highest) / 2 + self.rng.uniform(-8, 8) - middle) / 12)

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
        if segment.section == self.spoken:
            manner = replace(manner, speech=0.3)
        return deliver(notes, manner, self.scales[i], self.rng)

    def _solos(self) -> Line:
        """A solo: the tune with more freedom, a riff, or an improvisation over the chords."""
        rng = self.rng
        instrument = str(rng.choice(self.band.leads))
        plays = INSTRUMENTS[instrument]
        octave, centre = self._octave(instrument), round((plays.lowest + plays.highest) / 2)
        loose = replace(self.manner, freedom=self.manner.freedom + 0.25, ornaments=self.manner.ornaments + 0.15)
        vamp = len(self.song.sections) - 1
        introduces = rng.random() < 0.25
        events: list[Event] = []
        for i, segment in enumerate(self.segments):
            plays_on = segment.kind == "solo" or (segment.kind == "intro" and (introduces or segment.section == vamp))
            if plays_on and rng.random() < 0.5:
                events += self._melody(i, octave, self.manner if segment.section == vamp else loose)
            elif segment.kind == "solo" or (segment.kind == "intro" and introduces):
                span = (segment.at, segment.end)
                events += improvise(self.chords[i], span, centre, self.metre.step, self.scales[i], rng)
        return Line("solo", instrument, "", events, _gain(0.5, 1.5, rng))

    def _fills(self, sung: dict[int, list[Event]]) -> Line:
        """Answers in the singer's rests: a few chord tones, or the end of the phrase again."""
        rng, centre = self.rng, self.rng.uniform(64, 76)
        if rng.random() < 0.3:
            events = [event for i in sung for event in echo(sung[i], rng)]
            return Line("fills", str(rng.choice(self.band.leads)), "echo", events, _gain(0.3, 0.8, rng))
        events = [e for i in sung for e in fill_gaps(sung[i], self.chords[i], centre, self.metre.step, rng)]
        return Line("fills", str(rng.choice(self.comping)), "", events, _gain(0.3, 0.8, rng))

    def _comping(self, threshold: float, gain: float) -> Line:
        """An accompanist, who plays where the fullness is above his threshold."""
        rng, metre = self.rng, self.felt
        instrument = str(rng.choice(self.comping))
        style, other_style = (str(rng.choice(self.band.comping_styles)) for _ in range(2))
        plays = INSTRUMENTS[instrument]
        centre = float(np.clip(rng.normal(57, 5), plays.lowest + 7, plays.highest - 12))
        voicing = str(rng.choice(VOICINGS))
        figure = comping_bar(style, metre, rng)
        other = comping_bar(other_style, metre, rng) if rng.random() < 0.4 else figure  # for every second section
        last = comping_bar("roll" if plays.decays else "block", metre, rng)
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            lays_out = threshold > 0 and rng.random() < (0.6 if segment.kind == "intro" else 0.1)
            if segment.fullness <= threshold or lays_out:
                continue
            pattern = last if segment.kind == "ending" else other if segment.section % 2 else figure
            events += play_pattern(pattern, chords, (segment.at, segment.end), metre, centre, voicing)
        return Line("comping", instrument, style, events, gain)

    def _backing(self) -> Line:
        """Held chords where the band is at its fullest, by singers or strings."""
        rng, figure = self.rng, comping_bar("pad", self.metre, self.rng)
        centre = float(rng.uniform(60, 72))
        fullest = max(segment.fullness for segment in self.segments)
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if segment.kind != "ending" and segment.fullness == fullest and rng.random() < 0.7:
                events += play_pattern(figure, chords, (segment.at, segment.end), self.metre, centre)
        return Line("backing", str(rng.choice(_BACKING)), "pad", events, _gain(0.2, 0.8, rng))

    def _bass(self) -> Line:
        rng, metre = self.rng, self.felt
        instrument, style = str(rng.choice(self.band.basses)), str(rng.choice(self.band.bass_styles))
        centre = float(rng.uniform(34, 42))
        figure, last = bass_bar(style, metre, rng), bass_bar("whole", metre, rng)
        other = bass_bar(str(rng.choice(self.band.bass_styles)), metre, rng) if rng.random() < 0.3 else figure
        enters = rng.uniform(SOLO, 0.4)
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if segment.fullness > enters and (segment.kind != "intro" or rng.random() < 0.5):
                pattern = last if segment.kind == "ending" else other if segment.section % 2 else figure
                events += play_pattern(pattern, chords, (segment.at, segment.end), metre, centre)
        return Line("bass", instrument, style, events, _gain(0.25, 1.8, rng))

    def drums(self) -> tuple[str, list[tuple[float, str, float]]]:
        """The style, empty for none, and every hit as (beat, sound, velocity)."""
        rng, metre = self.rng, self.felt
        if not self.band.drums or rng.random() < 0.1:
            return "", []
        waltzes = len(metre.pulses) == 3 and rng.random() < 0.6
        style = "waltz" if waltzes else str(rng.choice(self.band.drums))
        bar, fills = drum_bar(style, metre, rng), rng.random() < 0.7
        if rng.random() < 0.12:
            bar = (*bar, *drum_bar("percussion", metre, rng))
        other = drum_bar(str(rng.choice(self.band.drums)), metre, rng) if rng.random() < 0.4 and not waltzes else bar
        enters = int(rng.choice([0, 0, 1, 2])) if len(self.segments) > 3 else 0
        threshold = rng.uniform(SOLO, 0.6)
        hits: list[tuple[float, str, float]] = []
        for segment in self.segments[enters:]:
            if segment.kind == "ending":
                hits += [(segment.at, "kick", 0.9), (segment.at, "crash", 0.6)]
                continue
            if segment.fullness <= threshold or rng.random() < 0.04:  # they lay out
                continue
            if fills and rng.random() < 0.5:
                hits.append((segment.at, "crash", 0.6))
            groove = other if segment.section % 2 else bar
            n_bars = int(np.ceil(segment.n_beats / metre.beats - 1e-6))
            for k in range(n_bars):
                figure = groove
                if fills and k == n_bars - 1 > 0:
                    fill = drum_fill(metre, rng)
                    figure = (*(hit for hit in groove if hit[0] < fill[0][0]), *fill)
                start = segment.at + k * metre.beats
                hits += [(start + beat, sound, v) for beat, sound, v in figure if start + beat < segment.end - 1e-6]
        return style, hits


def _gain(lowest: float, highest: float, rng: np.random.Generator) -> float:
    """Any loudness between two, in decibels alike."""
    return float(np.exp(rng.uniform(np.log(lowest), np.log(highest))))
