"""Repeat signs of a MusicXML score, followed: the bars are written out in the order in which they are played.

Repeats and endings are followed; da capo, dal segno and coda are not.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml.etree import _Element

MOST_TURNS = 12  # of one repeat: a ballad's verses
MOST_BARS = 5_000  # of a song, written out
_HELD = ("divisions", "time")  # attributes that hold until others are written


@dataclass(frozen=True)
class Bar:
    """The marks of a bar about the order of playing."""

    opens: bool = False  # a repeat sign before it
    turns: int = 1  # how often the repeat that its end closes is played; 1: it closes none
    endings: frozenset[int] = frozenset()  # turns in which it is played; empty: all


def write_out(score: _Element) -> None:
    """Write the bars of every part of a ``score-partwise`` in playing order, in place, and take the signs away.

    Raises
    ------
    ValueError
        If they would be more than those of any song.
    """
    parts = score.findall("{*}part")
    bars = _bars(parts[0].findall("{*}measure")) if parts else []
    order = playing_order(bars)
    if order == list(range(len(bars))):
        return
    for part in parts:
        _reorder(part, order)


def playing_order(bars: Sequence[Bar]) -> list[int]:
    """Indices of the bars as they are played.

    Where no sign opens a repeat, it begins after the one before it, or at the start.

    Raises
    ------
    ValueError
        If they are more than MOST_BARS.
    """
    order: list[int] = []
    at, start, turn, before = 0, 0, 1, -1
    while at < len(bars):
        bar = bars[at]
        past_endings = before == at - 1 >= 0 and bars[before].endings and not bar.endings
        if (bar.opens and at != start) or past_endings:
            start, turn = at, 1
        before = at
        if bar.endings and turn not in bar.endings:
            at += 1
            continue
        order.append(at)
        if len(order) > MOST_BARS:
            raise ValueError(f"more than {MOST_BARS} bars when its repeats are played")
        at += 1
        if bar.turns > 1:
            group = takewhile(lambda other: other.endings, bars[at - 1 :])
            turns = max([bar.turns, *(number for other in group for number in other.endings)])
            if turn < turns:
                at, turn = start, turn + 1
            elif not bar.endings:
                start, turn = at, 1
    return order


def _bars(measures: Sequence[_Element]) -> list[Bar]:
    bars, endings = [], frozenset[int]()
    for measure in measures:
        starts = [ending for ending in measure.iterfind(".//{*}ending") if ending.get("type") == "start"]
        if starts:
            named = starts[0].get("number", "").replace(",", " ").split()
            endings = frozenset(int(name) for name in named if name.isdecimal() and 0 < int(name) <= MOST_TURNS)
        repeats = {repeat.get("direction"): repeat for repeat in measure.iterfind(".//{*}repeat")}
        times = repeats["backward"].get("times", "2") if "backward" in repeats else "1"
        turns = min(int(times), MOST_TURNS) if times.isdecimal() else 2
        bars.append(Bar("forward" in repeats, turns, endings))
        if any(ending.get("type") in ("stop", "discontinue") for ending in measure.iterfind(".//{*}ending")):
            endings = frozenset()
    return bars


def _reorder(part: _Element, order: Sequence[int]) -> None:
    measures = part.findall("{*}measure")
    held: list[dict[str, _Element]] = []
    state: dict[str, _Element] = {}
    for measure in measures:
        held.append(dict(state))
        for name in _HELD:
            for element in measure.iterfind(f"{{*}}attributes/{{*}}{name}"):
                state[name] = element
    for measure in measures:
        part.remove(measure)
    before = -1
    for number, at in enumerate((at for at in order if at < len(measures)), start=1):
        measure = deepcopy(measures[at])
        measure.set("number", str(number))
        for sign in [*measure.iterfind(".//{*}repeat"), *measure.iterfind(".//{*}ending")]:
            sign.getparent().remove(sign)
        if at != before + 1 and held[at]:
            attributes = measure.makeelement(measure.tag.replace("measure", "attributes"))
            attributes.extend([deepcopy(held[at][name]) for name in _HELD if name in held[at]])
            measure.insert(0, attributes)
        part.append(measure)
        before = at
