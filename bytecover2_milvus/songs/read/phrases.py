"""From a transcript to a song: phrases become sections, repeated phrases become the form.

A section starts on a downbeat and holds a whole number of bars. It ends with the pickup of what follows; the pickup
before the first bar is left out. Four or more bars without melody (introductions, interludes) are left out too:
arrangements bring their own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import ceil, inf
from operator import attrgetter

from ...errors import SongError
from ..score import Chord, Note, Section, Song
from .harmony import estimate_key, harmonise
from .transcript import GRID, Transcript

PHRASE_BARS = 8  # the usual length; 4 to 16 where the music says so
SHORTEST, LONGEST = 4, 16  # bars
SILENT_BARS = 4  # this many bars without melody end a block
SAME = 0.9  # share of common notes from which two sections are one
LENGTH_COST = 0.5  # of 4 or 12 bars instead of 8
HELD_COST = 1.0  # of cutting through a sounding note
UNEVEN_COST = 0.5  # of an irregular bar in mid-section, after which the beats count wrongly


def song_from_transcript(transcript: Transcript, song_id: str) -> Song:
    """The song of a transcript: key and chords estimated where not given, cut into sections.

    Raises
    ------
    SongError
        If no melody note lies in a bar.
    """
    blocks = _blocks(transcript)
    if not blocks:
        raise SongError(f"{song_id}: no melody in its bars")
    tonic, mode = estimate_key(transcript.notes, transcript.melody[-1].pitch)
    chords = transcript.chords or harmonise(transcript.notes, transcript.downbeats, tonic, mode)
    sections: list[Section] = []
    form: list[int] = []
    for first_bar, last_bar in (phrase for block in blocks for phrase in _phrases(transcript, *block)):
        section = _section(transcript, chords, first_bar, last_bar, name=_name(len(sections)))
        twin = next((index for index, known in enumerate(sections) if _same(known, section)), len(sections))
        if twin == len(sections):
            sections.append(section)
        form.append(twin)
    return Song(
        song_id=song_id,
        title=transcript.title,
        origin=transcript.origin,
        tonic=tonic,
        mode=mode,
        beats_per_bar=transcript.beats_per_bar,
        bpm=transcript.bpm,
        sections=tuple(sections),
        form=tuple(form),
    )


def _name(index: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index % 26] + str(index // 26 or "")


_ONSET = attrgetter("onset")


def _between(notes: Sequence[Note], start: float, end: float) -> Sequence[Note]:
    """Those of `notes`, in the order of their onsets, that start from `start` on and before `end`."""
    return notes[bisect_left(notes, start, key=_ONSET) : bisect_left(notes, end, key=_ONSET)]


def _blocks(transcript: Transcript) -> list[tuple[int, int]]:
    """Stretches of bars with melody, as (first bar, bar after the last)."""
    blocks: list[tuple[int, int]] = []
    for bar, (start, end) in enumerate(pairwise(transcript.downbeats)):
        if _between(transcript.melody, start, end):
            if blocks and bar - blocks[-1][1] < SILENT_BARS:
                blocks[-1] = (blocks[-1][0], bar + 1)
            else:
                blocks.append((bar, bar + 1))
    return blocks


def _phrases(transcript: Transcript, first_bar: int, last_bar: int) -> list[tuple[int, int]]:
    """The cheapest division of a block: near eight bars each, cut where the melody breathes."""
    best = {first_bar: 0.0}  # cost of the best division up to a bar
    came_from: dict[int, int] = {}
    shortest = min(SHORTEST, last_bar - first_bar)
    uneven = [round(end - start) % transcript.beats_per_bar != 0 for start, end in pairwise(transcript.downbeats)]
    for end in range(first_bar + shortest, last_bar + 1):
        cut = 0.0 if end == last_bar else _cut_cost(transcript, end)
        for start in range(max(first_bar, end - LONGEST), end - shortest + 1):
            length = LENGTH_COST * ((end - start - PHRASE_BARS) / 4) ** 2
            cost = best.get(start, inf) + length + cut + UNEVEN_COST * sum(uneven[start : end - 1])
            if cost < best.get(end, inf):
                best[end], came_from[end] = cost, start
    phrases = []
    end = last_bar
    while end > first_bar:
        phrases.append((came_from[end], end))
        end = came_from[end]
    return phrases[::-1]


def _cut_cost(transcript: Transcript, bar: int) -> float:
    """Negative where the melody rests around the downbeat of `bar`, positive where a note is held across it."""
    downbeat, reach = transcript.downbeats[bar], transcript.beats_per_bar
    around = _between(transcript.melody, downbeat - 2 * reach - 1, downbeat + 2 * reach + 1)
    near = [note for note in around if abs(note.onset - downbeat) <= 2 * reach]
    held = any(note.onset < downbeat < note.onset + note.duration - 1 / GRID for note in near)
    rests = [
        min(after.onset, downbeat + reach) - max(before.onset + before.duration, downbeat - reach)
        for before, after in pairwise(near)
    ]
    return HELD_COST * held - max(0.0, *rests, 0.0) / reach


def _section(transcript: Transcript, chords: Sequence[Chord], first_bar: int, last_bar: int, name: str) -> Section:
    start, end = transcript.downbeats[first_bar], transcript.downbeats[last_bar]
    n_beats = float(max(1, ceil((end - start) / transcript.beats_per_bar)) * transcript.beats_per_bar)
    return Section(
        name=name,
        n_beats=n_beats,
        melody=tuple(
            Note(note.onset - start, min(note.duration, end - note.onset), note.pitch)
            for note in _between(transcript.melody, start, end)
        ),
        chords=_chords_between(chords, start, end, n_beats),
    )


def _chords_between(chords: Sequence[Chord], start: float, end: float, n_beats: float) -> tuple[Chord, ...]:
    """The chords of a section; each lasts until the next, the first from the start, the last to the end."""
    inside = [chord for chord in chords if chord.onset < end and chord.onset + chord.duration > start]
    if not inside:  # a chord is annotated somewhere, if not here: the nearest goes on
        inside = [min(chords, key=lambda chord: abs(chord.onset - start))]
    changes = inside[:1] + [chord for before, chord in pairwise(inside) if _sound(chord) != _sound(before)]
    onsets = [0.0, *(chord.onset - start for chord in changes[1:]), n_beats]
    return tuple(
        Chord(onset, until - onset, *_sound(chord))
        for chord, (onset, until) in zip(changes, pairwise(onsets), strict=True)
    )


def _sound(chord: Chord) -> tuple[int, str, int | None]:
    return chord.root, chord.quality, chord.bass


def _same(one: Section, other: Section) -> bool:
    notes, others = ({(note.onset, note.pitch) for note in section.melody} for section in (one, other))
    return one.n_beats == other.n_beats and len(notes & others) >= SAME * len(notes | others)
