"""The form of an arrangement: which stretches of which sections follow each other, and how many play in each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..score import Song
from .patterns import Metre

SHORTEST_S = 64.0  # of the music, without the silence before and the reverberation after it
LONGEST_S = 180.0
_LONGEST_INTRO_S = 40.0

ENDINGS = ("cold", "held", "held", "ritard", "fade")  # a list to draw from: held is the usual one
TEXTURES = ("all", "all", "grows", "contrast", "waves")  # who plays when: to draw from
SOLO, TUTTI = 0.0, 1.0  # fullness: the lead unaccompanied, the whole band


@dataclass(frozen=True)
class Passage:
    """A stretch of a section at its place in the arrangement."""

    section: int  # index into the song's sections
    start: float  # beats within the section
    stop: float
    kind: str = "sung"  # or "intro", "solo", "instrumental", "ending"
    at: float = 0.0  # beats within the arrangement
    key: int = 0  # semitones above the arrangement's key
    fullness: float = TUTTI  # share of the band that plays

    @property
    def n_beats(self) -> float:
        return self.stop - self.start

    @property
    def end(self) -> float:
        """Its end, in beats of the arrangement."""
        return self.at + self.n_beats


def draw_form(
    song: Song,
    vamp: int,
    metre: Metre,
    bpm: float,
    ending: str,
    accompanied: bool,
    liberty: float,
    rng: np.random.Generator,
) -> list[Passage]:
    """The song's form as a band plays it tonight: sections dropped, repeated, given to a soloist, framed, cut.

    Parameters
    ----------
    vamp : int
        Index of a section that is not in the song's form, for introductions and solos of the band's own.
    accompanied : bool
        A melody that is not has neither introduction nor instrumental sections: they would be silent.
    liberty : float
        Between 0, the song's own form and at most an introduction, and 1.
    """
    beat_s = 60 / bpm
    order = _order(song, beat_s, liberty, rng)
    hook = max(set(order), key=lambda i: (order.count(i), i))
    body = [Passage(i, 0.0, song.sections[i].n_beats) for i in order]
    kinds = ["solo", "solo", "instrumental"] if accompanied else ["solo"]
    if len(body) > 2 and rng.random() < 0.8 * liberty:
        which = int(rng.integers(1, len(body)))
        body[which] = replace(body[which], kind=str(rng.choice(kinds)))
    body = _shortened(body, metre, beat_s, liberty, rng)

    def room(least_s: float, most_s: float) -> float:
        """Beats of whole bars between two lengths, as far as the track may still grow."""
        spare_s = LONGEST_S - beat_s * sum(segment.n_beats for segment in body)
        longest = min(spare_s / beat_s, rng.uniform(least_s, most_s) / beat_s, song.sections[vamp].n_beats)
        return _whole_bars(max(0.0, longest), metre)

    first, last = body[0], body[-1]
    if accompanied and len(body) > 2 and rng.random() < 0.3 * liberty and (n_beats := room(8, 30)):
        body.insert(int(rng.integers(2, len(body))), Passage(vamp, 0.0, n_beats, kind=str(rng.choice(kinds))))
    if rng.random() < 0.3 * liberty:  # the hook again and again
        refrain = replace(last, start=max(last.start, last.stop - metre.beats * int(rng.choice([2, 4, 4, 8]))))
        for _ in range(rng.integers(1, 6)):
            if refrain.n_beats <= room(LONGEST_S, LONGEST_S):
                body.append(refrain)
    if accompanied and rng.random() < 0.65:
        own = rng.random() < 0.7 * liberty  # unrelated to the song
        n_beats = room(12, _LONGEST_INTRO_S) if rng.random() < 0.15 else room(4, 16)
        start = 0.0 if own else first.start
        n_beats = min(n_beats, song.sections[vamp if own else first.section].n_beats - start)
        if n_beats > 0:
            body.insert(0, Passage(vamp if own else first.section, start, start + n_beats, kind="intro"))
    if ending in ("held", "ritard"):
        body.append(replace(last, start=max(last.start, last.stop - metre.beats), kind="ending"))

    rises = int(rng.integers(2, len(body))) if len(body) > 4 and rng.random() < 0.4 * liberty else len(body)
    rise = int(rng.choice([1, 1, 2, 2, 3, 5, -1, -2]))
    fullness = _fullness(body, hook, liberty, rng) if accompanied else [TUTTI] * len(body)
    placed: list[Passage] = []
    for i, segment in enumerate(body):
        at = placed[-1].end if placed else 0.0
        placed.append(replace(segment, at=at, key=rise if i >= rises else 0, fullness=fullness[i]))
    return placed


def _order(song: Song, beat_s: float, liberty: float, rng: np.random.Generator) -> list[int]:
    """Indices of the sections to play; the section heard most is always there, a short tune comes round."""
    order = [i for i in song.form if song.sections[i].n_beats > 0]
    hook = max(set(order), key=lambda i: (order.count(i), i))
    if len(order) > 2 and rng.random() < 0.6 * liberty:
        del order[rng.integers(len(order))]
    if len(order) > 2 and rng.random() < 0.2 * liberty:
        order = order[rng.integers(1, len(order)) :]
    if len(order) > 2 and rng.random() < 0.24 * liberty:  # only the hook and one more section
        other = int(rng.choice(order))
        order = [i for i in order if i in (hook, other)]
    if rng.random() < 0.24 * liberty:  # the hook first
        order.insert(0, hook)
    if rng.random() < 0.5 * liberty:
        order.append(order[-1])
    if hook not in order:
        order.append(hook)
    once_s = sum(song.sections[i].n_beats for i in order) * beat_s
    return order * int(np.ceil(SHORTEST_S / once_s))


def _shortened(
    body: list[Passage], metre: Metre, beat_s: float, liberty: float, rng: np.random.Generator
) -> list[Passage]:
    """The segments that fit, cut at bar lines; usually from the beginning."""
    n_beats = sum(segment.n_beats for segment in body)
    longest = _whole_bars(rng.uniform(90, LONGEST_S - 15) / beat_s, metre)
    if n_beats <= longest:
        return body
    first = _whole_bars(rng.uniform(0, n_beats - longest), metre) if rng.random() < 0.5 * liberty else 0.0
    kept, at = [], 0.0
    for segment in body:
        start, stop = max(first - at, 0.0), min(first + longest - at, segment.n_beats)
        if stop > start:
            kept.append(replace(segment, start=segment.start + start, stop=segment.start + stop))
        at += segment.n_beats
    return kept


def _fullness(body: list[Passage], hook: int, liberty: float, rng: np.random.Generator) -> list[float]:
    """The share of the band that plays in each segment: all, more and more, most in the hook, or now and then fewer."""
    n_segments = len(body)
    match str(rng.choice(TEXTURES)):
        case "grows":
            grown = int(rng.integers(2, 5))
            fullness = [min(TUTTI, 0.2 + 0.8 * i / grown) for i in range(n_segments)]
        case "contrast":
            sparse = rng.uniform(0.2, 0.7)
            fullness = [TUTTI if segment.section == hook else sparse for segment in body]
        case "waves":
            fullness = rng.uniform(0.2, TUTTI, n_segments).tolist()
        case _:
            fullness = [TUTTI] * n_segments
    sung = [i for i, segment in enumerate(body) if segment.kind == "sung"]
    if len(sung) > 1 and rng.random() < 0.24 * liberty:
        fullness[int(rng.choice(sung))] = SOLO
    return fullness


def _whole_bars(n_beats: float, metre: Metre) -> float:
    return n_beats // metre.beats * metre.beats
