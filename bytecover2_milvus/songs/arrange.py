"""A cover of a song: another band, key, tempo and form, the same melody over (nearly) the same chords.

Everything is drawn from the song's id and a seed. What musicians change when they cover a song is drawn here; what a
recording changes (players' timbres, room, equaliser) is drawn by the renderer from the same seed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .bands import BAND_WEIGHTS, BANDS, Band
from .instruments import INSTRUMENTS
from .lead import SECOND_VOICES, LeadEvent, Manner, deliver, fill_gaps, improvise, second_voice
from .patterns import DRUM_SOUNDS, Event, Metre, bass_bar, comping_bar, drum_bar, drum_fill, play_pattern
from .score import SCALES, Chord, Note, Song

SHORTEST_S = 64.0  # of the music, without the silence before and the reverberation after it
LONGEST_S = 185.0
LOWEST_PITCH, HIGHEST_PITCH = 24, 108  # MIDI numbers

NOTE_DTYPE = np.dtype(
    [("onset_s", "f8"), ("duration_s", "f8"), ("pitch", "f4"), ("velocity", "f4"), ("glide", "f4")]
)  # pitch in MIDI numbers, glide in semitones from which the tone slides into its pitch
DRUM_DTYPE = np.dtype([("onset_s", "f8"), ("sound", "u1"), ("velocity", "f4")])  # sound: index into DRUM_SOUNDS


@dataclass(frozen=True, eq=False)
class Part:
    """What one player plays."""

    role: str  # "lead", "second voice", "solo", "fills", "comping" or "bass"
    instrument: str  # a key of INSTRUMENTS
    style: str  # of the pattern; empty for melodies
    notes: NDArray  # (n_notes,) of NOTE_DTYPE
    gain: float


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Notes in seconds and the facts they were made from."""

    song_id: str
    seed: int
    duration_s: float
    parts: tuple[Part, ...]
    drums: NDArray  # (n_hits,) of DRUM_DTYPE
    drum_gain: float
    transpose: int  # semitones
    tuning_cents: float  # off A = 440 Hz
    bpm: float
    style: str  # the kind of band
    drum_style: str  # empty for none
    swing: float  # where the off-beat falls: 0.5 is straight
    harmony: str  # what became of the chords
    form: tuple[str, ...]  # what is played, in order
    fade_out_s: float  # 0 for a real ending

    @property
    def instruments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.instrument for part in self.parts))

    def describe(self) -> str:
        """The facts in a line."""
        players = ", ".join(f"{part.instrument} ({part.style or part.role})" for part in self.parts)
        drums = f", {self.drum_style} drums" if self.drum_style else ""
        return (
            f"{self.song_id} #{self.seed}: {self.style}, {self.transpose:+d} semitones {self.tuning_cents:+.0f} cents, "
            f"{self.bpm:.0f} bpm, chords {self.harmony}; {players}{drums}; {' '.join(self.form)}; {self.duration_s:.0f} s"
        )


@dataclass(frozen=True)
class _Segment:
    """A stretch of a section at its place in the arrangement."""

    section: int
    start: float  # beats within the section
    stop: float
    kind: str = "sung"  # or "intro", "solo", "instrumental", "ending"
    at: float = 0.0  # beats within the arrangement
    key: int = 0  # semitones above the arrangement's key

    @property
    def n_beats(self) -> float:
        return self.stop - self.start


def seeded(song_id: str, seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for every song, seed and purpose, the same on every machine."""
    return np.random.default_rng([zlib.crc32(song_id.encode()), seed, zlib.crc32(purpose.encode())])


def arrange(song: Song, seed: int) -> Arrangement:
    """A cover of the song, the same for the same song id and seed.

    Parameters
    ----------
    song : Song
        Short tunes are repeated, long ones cut at a bar line.
    seed : int
        Not negative.

    Returns
    -------
    arrangement : Arrangement
        Of 60 to 200 seconds.
    """
    rng = seeded(song.song_id, seed, "arrange")
    weights = np.array(BAND_WEIGHTS)
    band = BANDS[rng.choice(len(BANDS), p=weights / weights.sum())]
    metre = Metre.of(song)
    bpm = song.bpm * float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    transpose = int(rng.integers(-6, 7))
    tuning_cents = float(np.clip(rng.normal(0, 15), -40, 40))
    swing = float(rng.uniform(0.55, 0.68)) if metre.step == 0.5 and rng.random() < band.swing else 0.5
    ending = str(rng.choice(["cold", "held", "held", "ritard", "fade"]))
    segments = _form(song, metre, bpm, ending, rng)
    clock = _Clock(segments, metre, bpm, swing, band.rubato, ending, rng)
    harmony = _Harmony(song, transpose, rng)
    players = _Players(song, band, metre, segments, harmony, rng)

    parts = []
    for role, instrument, style, events, gain in players.parts(transpose):
        if events:
            notes = _to_notes(events, clock, instrument, band.jitter_s, rng)
            parts.append(Part(role, instrument, style, notes, gain))
    drum_style, hits = players.drums()
    drums = np.zeros(len(hits), dtype=DRUM_DTYPE)
    if hits:
        beats, sounds, velocities = zip(*sorted(hits), strict=True)
        onsets = clock(np.array(beats)) + rng.normal(0, 0.4 * band.jitter_s, len(hits))
        drums["onset_s"] = np.maximum(0, onsets)
        drums["sound"] = [DRUM_SOUNDS.index(sound) for sound in sounds]
        drums["velocity"] = np.array(velocities) * rng.uniform(0.85, 1.1, len(hits))
    return Arrangement(
        song.song_id,
        seed,
        duration_s=clock.end_s + float(rng.uniform(1.0, 3.0)),
        parts=tuple(parts),
        drums=drums,
        drum_gain=float(rng.uniform(0.2, 0.9)),
        transpose=transpose,
        tuning_cents=tuning_cents,
        bpm=bpm,
        style=band.name,
        drum_style=drum_style,
        swing=swing,
        harmony=harmony.manner,
        form=tuple(_label(song, segment) for segment in segments),
        fade_out_s=float(rng.uniform(4, 10)) if ending == "fade" else 0.0,
    )


def _label(song: Song, segment: _Segment) -> str:
    if segment.kind in ("intro", "ending"):
        return segment.kind
    name = song.sections[segment.section].name
    return name if segment.kind == "sung" else f"{name}({segment.kind})"


def _form(song: Song, metre: Metre, bpm: float, ending: str, rng: np.random.Generator) -> list[_Segment]:
    """The song's form as a band plays it tonight: parts dropped, repeated, given to a soloist, framed, cut to length."""
    beat_s = 60 / bpm
    order = list(song.form)
    if len(order) > 2 and rng.random() < 0.3:
        del order[rng.integers(len(order))]
    if len(order) > 2 and rng.random() < 0.15:
        order = order[rng.integers(1, len(order)) :]
    if rng.random() < 0.25:
        order.append(order[-1])
    tune = list(order)
    length = sum(song.sections[i].n_beats for i in order) * beat_s
    while length < SHORTEST_S:
        order += tune
        length += sum(song.sections[i].n_beats for i in tune) * beat_s
    body = [_Segment(i, 0.0, song.sections[i].n_beats) for i in order]
    if len(body) > 2 and rng.random() < 0.4:
        which = int(rng.integers(1, len(body)))
        body[which] = replace(body[which], kind=str(rng.choice(["solo", "solo", "instrumental"])))

    longest = max(SHORTEST_S + 4 * metre.beats * beat_s, float(rng.uniform(110, LONGEST_S - 12)))
    surplus = length - longest
    if surplus > 0:
        skipped = float(rng.uniform(0, surplus)) if rng.random() < 0.25 else 0.0
        skipped = skipped / beat_s // metre.beats * metre.beats
        body = _cut(body, skipped, skipped + longest / beat_s // metre.beats * metre.beats)

    first = body[0]
    intro_beats = metre.beats * int(rng.choice([0, 0, 2, 4, 4, 8]))
    intro_beats = min(intro_beats, first.n_beats, 20 / beat_s // metre.beats * metre.beats)
    if intro_beats > 0:
        body.insert(0, _Segment(first.section, first.start, first.start + intro_beats, "intro"))
    if ending in ("held", "ritard"):
        last = body[-1]
        body.append(_Segment(last.section, max(0.0, last.stop - metre.beats), last.stop, "ending"))
    rises = len(body) > 4 and rng.random() < 0.15
    key, at, placed = int(rng.choice([1, 2])), 0.0, []
    for i, segment in enumerate(body):
        lifted = rises and i >= len(body) - 2
        placed.append(replace(segment, at=at, key=key if lifted else 0))
        at += segment.n_beats
    return placed


def _cut(segments: Sequence[_Segment], first: float, last: float) -> list[_Segment]:
    """What lies between two beats of a sequence of segments."""
    kept, at = [], 0.0
    for segment in segments:
        start, stop = max(first - at, 0.0), min(last - at, segment.n_beats)
        if stop > start:
            kept.append(replace(segment, start=segment.start + start, stop=segment.start + stop))
        at += segment.n_beats
    return kept


class _Clock:
    """From beats to seconds: swing, breathing tempo, a slower end."""

    def __init__(
        self,
        segments: Sequence[_Segment],
        metre: Metre,
        bpm: float,
        swing: float,
        rubato: float,
        ending: str,
        rng: np.random.Generator,
    ) -> None:
        n_beats = segments[-1].at + segments[-1].n_beats
        self.swing = swing
        self.beats = np.arange(0, n_beats + 2 * metre.beats, 0.5)
        phrase = 2 * np.pi * self.beats / (4 * metre.beats)
        knots = np.arange(0, self.beats[-1] + 8, 8)
        drift = np.interp(self.beats, knots, rng.normal(0, 1, len(knots)))
        pace = 1 + rubato * (drift + 0.7 * np.sin(phrase + rng.uniform(0, 6)))
        if ending == "ritard":
            pace *= np.interp(self.beats, [n_beats - 2 * metre.beats, n_beats], [1, rng.uniform(0.55, 0.8)])
        lengths = 0.5 * 60 / bpm / np.clip(pace, 0.4, 2)
        self.seconds = float(rng.exponential(0.5).__round__(2)) + np.concatenate([[0], np.cumsum(lengths[:-1])])
        self.end_s = float(np.interp(n_beats, self.beats, self.seconds))

    def __call__(self, beats: NDArray) -> NDArray:
        whole = np.floor(beats)
        within = np.interp(beats - whole, [0, 0.5, 1], [0, self.swing, 1])
        return np.interp(whole + within, self.beats, self.seconds)


class _Harmony:
    """The chords as this band knows them: plain, coloured, or some of them replaced, the same at every return."""

    def __init__(self, song: Song, transpose: int, rng: np.random.Generator) -> None:
        self.manner = str(
            rng.choice(["as written", "as written", "as written", "simplified", "coloured", "substituted"])
        )
        self.transpose = transpose
        self.known: dict[tuple[int, str], tuple[int, str]] = {}
        for section in song.sections:
            for chord in section.chords:
                self.known.setdefault((chord.root, chord.quality), self._read(chord, rng))

    def _read(self, chord: Chord, rng: np.random.Generator) -> tuple[int, str]:
        root, quality = chord.root, chord.quality
        if self.manner == "simplified":
            plain = {"7": "maj", "maj7": "maj", "6": "maj", "min7": "min", "min6": "min", "sus2": "maj", "sus4": "maj"}
            return root, plain.get(quality, quality)
        if self.manner == "coloured":
            colours = {
                "maj": ("maj7", "6", "7", "sus2", "maj"),
                "min": ("min7", "min7", "min6"),
                "dim": ("min7b5", "dim7"),
            }
            return root, str(rng.choice(colours.get(quality, (quality,))))
        if self.manner == "substituted" and rng.random() < 0.3:
            if quality in ("maj", "maj7", "6"):
                return (root + int(rng.choice([4, 9]))) % 12, "min7"  # mediant or relative minor
            if quality in ("min", "min7"):
                return (root + 3) % 12, "maj7"  # relative major
        return root, quality

    def __call__(self, song: Song, segment: _Segment) -> list[Chord]:
        """The chords of a segment, in beats and in the key of the arrangement; a drone where the song has none."""
        section = song.sections[segment.section]
        shift = self.transpose + segment.key
        written = section.chords or (Chord(0.0, section.n_beats, song.tonic, "5"),)
        chords = []
        for chord in written:
            onset, stop = max(chord.onset, segment.start), min(chord.onset + chord.duration, segment.stop)
            if stop <= onset:
                continue
            root, quality = self.known.get((chord.root, chord.quality), (chord.root, chord.quality))
            bass = chord.bass if root == chord.root else None
            chords.append(
                Chord(
                    onset - segment.start + segment.at,
                    stop - onset,
                    (root + shift) % 12,
                    quality,
                    None if bass is None else (bass + shift) % 12,
                )
            )
        if segment.kind == "ending" and chords:
            last = chords[-1]
            return [replace(last, onset=segment.at, duration=segment.n_beats)]
        return chords


class _Players:
    """The band: who plays what, and when."""

    def __init__(
        self,
        song: Song,
        band: Band,
        metre: Metre,
        segments: Sequence[_Segment],
        harmony: _Harmony,
        rng: np.random.Generator,
    ) -> None:
        self.song, self.band, self.metre, self.segments, self.rng = song, band, metre, segments, rng
        self.chords = [harmony(song, segment) for segment in segments]
        self.scale = {
            segment.key: {(song.tonic + harmony.transpose + segment.key + step) % 12 for step in SCALES[song.mode]}
            for segment in segments
        }

    def parts(self, transpose: int) -> list[tuple[str, str, str, list[LeadEvent], float]]:
        """(role, instrument, style, events in beats, gain) of everyone who plays notes."""
        rng, band = self.rng, self.band
        lead = str(rng.choice(band.leads))
        fits = INSTRUMENTS[lead]
        pitches = [note.pitch + transpose for section in self.song.sections for note in section.melody] or [60]
        middle = (np.percentile(pitches, 5) + np.percentile(pitches, 95)) / 2
        octave = 12 * round(((fits.lowest + fits.highest) / 2 + rng.uniform(-4, 4) - middle) / 12)
        parts: list[tuple[str, str, str, list[LeadEvent], float]] = []
        manner = Manner(
            freedom=band.freedom * rng.uniform(0.3, 1.7),
            ornaments=band.ornaments * rng.uniform(0.2, 2.0),
            glides=0.0 if fits.decays else float(rng.choice([0.0, 0.1, 0.3])) * (1 if lead == "voice" else 0.5),
            legato=float(rng.uniform(0.7, 1.0)),
            back_phrasing=float(rng.choice([0.0, 0.0, 0.0, 0.08])),
        )
        sung = {
            i: self._melody(segment, transpose + octave, manner)
            for i, segment in enumerate(self.segments)
            if segment.kind == "sung"
        }
        melody = [event for events in sung.values() for event in events]
        parts.append(("lead", lead, "", melody, float(rng.uniform(0.8, 1.5))))
        if rng.random() < 0.22:
            later = [i for i in sung if i >= 1]
            kind = str(rng.choice(SECOND_VOICES))
            events = [e for i in later for e in second_voice(sung[i], kind, list(self.scale[self.segments[i].key]))]
            singer = lead if rng.random() < 0.6 else str(rng.choice(band.leads))
            parts.append(("second voice", singer, "", events, float(rng.uniform(0.3, 0.8))))
        comping = band.comping or ((lead,) if max(band.n_comping) else ())
        parts += self._solos(str(rng.choice(band.leads)), transpose, manner)
        if comping and rng.random() < 0.3:
            events = [
                e for i in sung for e in fill_gaps(sung[i], self.chords[i], rng.uniform(64, 76), self.metre.step, rng)
            ]
            parts.append(("fills", str(rng.choice(comping)), "", events, float(rng.uniform(0.3, 0.7))))
        n_comping = min(int(rng.choice(band.n_comping)), 3) if comping else 0
        for i in range(n_comping):
            parts.append(self._comping(str(rng.choice(comping)), always=i == 0))
        if band.basses and rng.random() < 0.93:
            parts.append(self._bass())
        return parts

    def _melody(self, segment: _Segment, shift: int, manner: Manner) -> list[LeadEvent]:
        section = self.song.sections[segment.section]
        notes = [
            Note(
                note.onset - segment.start + segment.at,
                min(note.duration, segment.stop - note.onset),
                note.pitch + shift + segment.key,
            )
            for note in section.melody
            if segment.start - 1e-6 <= note.onset < segment.stop - 1e-6
        ]
        return deliver(notes, manner, list(self.scale[segment.key]), self.rng)

    def _solos(
        self, instrument: str, transpose: int, manner: Manner
    ) -> list[tuple[str, str, str, list[LeadEvent], float]]:
        """The sections that a soloist takes: the tune with more freedom, or an improvisation over its chords."""
        rng, events = self.rng, []
        plays = INSTRUMENTS[instrument]
        centre = (plays.lowest + plays.highest) / 2
        for i, segment in enumerate(self.segments):
            if segment.kind == "solo" and rng.random() < 0.5:
                loose = replace(manner, freedom=min(0.6, manner.freedom + 0.25), ornaments=manner.ornaments + 0.15)
                events += self._melody(segment, transpose + 12 * round((centre - 66) / 12), loose)
            elif segment.kind == "solo" or (segment.kind == "intro" and rng.random() < 0.25):
                scale = list(self.scale[segment.key])
                events += improvise(
                    self.chords[i], segment.at, segment.at + segment.n_beats, round(centre), self.metre.step, scale, rng
                )
        return [("solo", instrument, "", events, float(rng.uniform(0.7, 1.3)))] if events else []

    def _comping(self, instrument: str, always: bool) -> tuple[str, str, str, list[LeadEvent], float]:
        rng = self.rng
        style = str(rng.choice(self.band.comping_styles))
        plays = INSTRUMENTS[instrument]
        centre = float(np.clip(rng.normal(57, 5), plays.lowest + 7, plays.highest - 12))
        other = comping_bar(str(rng.choice(self.band.comping_styles)), self.metre, rng)
        pattern = comping_bar(style, self.metre, rng)
        two_figures = rng.random() < 0.4
        names = sorted({section.name for section in self.song.sections})
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if not always and rng.random() < (0.6 if segment.kind == "intro" else 0.2):
                continue
            figure = pattern
            if two_figures and names.index(self.song.sections[segment.section].name) % 2:
                figure = other
            if segment.kind == "ending":
                figure = comping_bar("roll" if plays.decays else "block", self.metre, rng)
            events += play_pattern(figure, chords, segment.at, segment.at + segment.n_beats, self.metre, centre)
        return "comping", instrument, style, [(*event, 0.0) for event in events], float(rng.uniform(0.25, 0.9))

    def _bass(self) -> tuple[str, str, str, list[LeadEvent], float]:
        rng = self.rng
        instrument, style = str(rng.choice(self.band.basses)), str(rng.choice(self.band.bass_styles))
        centre = float(rng.uniform(34, 42))
        pattern = bass_bar(style, self.metre, rng)
        events: list[Event] = []
        for segment, chords in zip(self.segments, self.chords, strict=True):
            if segment.kind == "intro" and rng.random() < 0.5:
                continue
            figure = bass_bar("whole", self.metre, rng) if segment.kind == "ending" else pattern
            events += play_pattern(figure, chords, segment.at, segment.at + segment.n_beats, self.metre, centre)
        return "bass", instrument, style, [(*event, 0.0) for event in events], float(rng.uniform(0.4, 1.0))

    def drums(self) -> tuple[str, list[tuple[float, str, float]]]:
        """The style, and every hit as (beat, sound, velocity)."""
        rng, metre = self.rng, self.metre
        if not self.band.drums or rng.random() < 0.1:
            return "", []
        style = str(rng.choice(self.band.drums))
        if len(metre.pulses) == 3 and rng.random() < 0.6:
            style = "waltz"
        bar, fills = drum_bar(style, metre, rng), rng.random() < 0.7
        hits: list[tuple[float, str, float]] = []
        enters = int(rng.choice([0, 0, 1, 2])) if len(self.segments) > 3 else 0
        for i, segment in enumerate(self.segments):
            if i < enters or rng.random() < 0.06:
                continue
            if segment.kind == "ending":
                hits += [(segment.at, "kick", 0.9), (segment.at, "crash", 0.6)]
                continue
            if i > enters and fills and rng.random() < 0.5:
                hits.append((segment.at, "crash", 0.6))
            n_bars = int(np.ceil(segment.n_beats / metre.beats - 1e-6))
            for k in range(n_bars):
                figure = bar
                if k == n_bars - 1 and fills and n_bars > 1:
                    fill = drum_fill(metre, rng)
                    figure = tuple(hit for hit in bar if hit[0] < fill[0][0]) + fill
                start = segment.at + k * metre.beats
                hits += [
                    (start + beat, sound, v) for beat, sound, v in figure if k * metre.beats + beat < segment.n_beats
                ]
        return style, hits


def _to_notes(
    events: Sequence[LeadEvent], clock: _Clock, instrument: str, jitter_s: float, rng: np.random.Generator
) -> NDArray:
    """Events in beats as notes in seconds, within the instrument's range."""
    onset, duration, pitch, velocity, glide = np.array(events, dtype=np.float64).T
    notes = np.zeros(len(events), dtype=NOTE_DTYPE)
    start = clock(onset) + rng.normal(0, jitter_s, len(events)) + rng.normal(0, jitter_s)
    notes["onset_s"] = np.maximum(0, start)
    notes["duration_s"] = np.maximum(0.04, clock(onset + duration) - clock(onset))
    lowest = max(LOWEST_PITCH, INSTRUMENTS[instrument].lowest)
    highest = min(HIGHEST_PITCH, INSTRUMENTS[instrument].highest)
    pitch += 12 * np.ceil(np.maximum(0, lowest - pitch) / 12)
    pitch -= 12 * np.ceil(np.maximum(0, pitch - highest) / 12)
    notes["pitch"] = pitch
    notes["velocity"] = velocity * rng.uniform(0.85, 1.1, len(events))
    notes["glide"] = glide
    return notes
