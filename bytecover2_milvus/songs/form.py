"""The form of an arrangement: which stretches of which sections follow each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import SongError
from .patterns import Metre
from .score import Song

SHORTEST_S = 64.0  # of the music, without the silence before and the reverberation after it
LONGEST_S = 180.0
_LONGEST_INTRO_S = 20.0

ENDINGS = ("cold", "held", "held", "ritard", "fade")  # a list to draw from: held is the usual one


@dataclass(frozen=True)
class Segment:
    """A stretch of a section at its place in the arrangement."""

    section: int  # index into the song's sections
    start: float  # beats within the section
    stop: float
    kind: str = "sung"  # or "intro", "solo", "instrumental", "ending"
    at: float = 0.0  # beats within the arrangement
    key: int = 0  # semitones above the arrangement's key

    @property
    def n_beats(self) -> float:
        return self.stop - self.start

    @property
    def end(self) -> float:
        """Where it ends, in beats of the arrangement."""
        return self.at + self.n_beats


def draw_form(
    song: Song, metre: Metre, bpm: float, ending: str, accompanied: bool, rng: np.random.Generator
) -> list[Segment]:
    """The song's form as a band plays it tonight: sections dropped, repeated, given to a soloist, framed, cut.

    A melody that is not `accompanied` has neither introduction nor instrumental sections: they would be silent.

    Raises
    ------
    SongError
        If the song's form has no beats.
    """
    beat_s = 60 / bpm
    body = [Segment(i, 0.0, song.sections[i].n_beats) for i in _order(song, beat_s, rng)]
    kinds = ["solo", "solo", "instrumental"] if accompanied else ["solo"]
    if len(body) > 2 and rng.random() < 0.4:
        which = int(rng.integers(1, len(body)))
        body[which] = replace(body[which], kind=str(rng.choice(kinds)))
    body = _shortened(body, metre, beat_s, rng)

    first, last = body[0], body[-1]
    intro = min(metre.beats * int(rng.choice([0, 0, 2, 4, 4, 8])), first.n_beats)
    intro = min(intro, _whole_bars(_LONGEST_INTRO_S / beat_s, metre))
    if accompanied and intro > 0:
        body.insert(0, replace(first, stop=first.start + intro, kind="intro"))
    if ending in ("held", "ritard"):
        body.append(replace(last, start=max(last.start, last.stop - metre.beats), kind="ending"))

    rises = len(body) > 4 and rng.random() < 0.15
    rise = int(rng.choice([1, 2]))
    placed: list[Segment] = []
    for i, segment in enumerate(body):
        at = placed[-1].end if placed else 0.0
        placed.append(replace(segment, at=at, key=rise if rises and i >= len(body) - 3 else 0))
    return placed


def _order(song: Song, beat_s: float, rng: np.random.Generator) -> list[int]:
    """Indices of the sections to play; a short tune comes round until it is long enough."""
    order = list(song.form)
    if len(order) > 2 and rng.random() < 0.3:
        del order[rng.integers(len(order))]
    if len(order) > 2 and rng.random() < 0.15:
        order = order[rng.integers(1, len(order)) :]
    if order and rng.random() < 0.25:
        order.append(order[-1])
    once_s = sum(song.sections[i].n_beats for i in order) * beat_s
    if once_s <= 0:
        raise SongError(f"{song.song_id}: a form without beats cannot be arranged; check its sections")
    return order * int(np.ceil(SHORTEST_S / once_s))


def _shortened(body: list[Segment], metre: Metre, beat_s: float, rng: np.random.Generator) -> list[Segment]:
    """What fits, cut at bar lines; usually from the beginning."""
    n_beats = sum(segment.n_beats for segment in body)
    longest = _whole_bars(rng.uniform(110, LONGEST_S - _LONGEST_INTRO_S) / beat_s, metre)
    if n_beats <= longest:
        return body
    first = _whole_bars(rng.uniform(0, n_beats - longest), metre) if rng.random() < 0.25 else 0.0
    kept, at = [], 0.0
    for segment in body:
        start, stop = max(first - at, 0.0), min(first + longest - at, segment.n_beats)
        if stop > start:
            kept.append(replace(segment, start=segment.start + start, stop=segment.start + stop))
        at += segment.n_beats
    return kept


def _whole_bars(n_beats: float, metre: Metre) -> float:
    return n_beats // metre.beats * metre.beats
