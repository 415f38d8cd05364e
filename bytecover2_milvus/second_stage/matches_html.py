"""Matches as a notebook shows them: HTML that needs no style, script or file of its own."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..alignment.verdict import probability
from .explain import clock, pitch_in_words, share_in_words, tempo_in_words

if TYPE_CHECKING:
    from ..milvus.search import Match

MOST_ROWS = 50
_LEFT = ' style="text-align: left; vertical-align: top"'
_QUIET = ' style="opacity: .7; font-size: smaller"'


def matches_html(
    matches: Sequence[Match], nearest: Match | None = None, note: str = "", players: Sequence[str] = ()
) -> str:
    """A table of matches, the best first, or a sentence where there are none.

    Parameters
    ----------
    matches : sequence of Match
    nearest : Match, optional
        What is named where nothing was probable enough to be a match.
    note : str
        Plain text that is set below.
    players : sequence of str
        HTML that is set below what is said of the first matches.
    """
    parts = []
    if matches:
        shown = matches[:MOST_ROWS]
        heads = "".join(f"<th{_LEFT}>{head}</th>" for head in ("", "track", "verdict", "evidence"))
        rows = "".join(_row(match, players[i] if i < len(players) else "") for i, match in enumerate(shown))
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
        if len(shown) < len(matches):
            parts.append(f"<p>and {len(matches) - len(shown):,} more</p>")
    elif nearest is not None:
        share = share_in_words(probability(nearest.score or 0.0))
        parts.append(f"<p>No cover found; the nearest is {_name(nearest)} ({share}).</p>")
    else:
        parts.append("<p>No track found.</p>")
    if note:
        parts.append(f"<p{_QUIET}>{_text(note)}</p>")
    return "".join(parts)


def _row(match: Match, player: str) -> str:
    about = " · ".join(filter(None, (match.artist, match.work_id and f"work {match.work_id}", clock(match.duration_s))))
    track = f"<b>{_name(match)}</b><br><span{_QUIET}>{_text(about)}<br>{_text(match.path)}</span>"
    numbers = [] if match.score is None else [f"score {match.score:+.1f}"]
    numbers.append(f"similarity {match.similarity:.2f}")
    share = "" if match.probability is None else share_in_words(match.probability).replace(" ", "&nbsp;")
    verdict = f"<b>{share}</b><br>" if share else ""
    cells = (str(match.rank), track, f"{verdict}<span{_QUIET}>{'<br>'.join(numbers)}</span>", _evidence(match) + player)
    return f"<tr>{''.join(f'<td{_LEFT}>{cell}</td>' for cell in cells)}</tr>"


def _evidence(match: Match) -> str:
    there = f"{clock(match.start_s)}–{clock(match.end_s)}"
    if match.query_start_s is None or match.query_end_s is None:
        return f"{there} of the track is the closest"
    here = f"{clock(match.query_start_s)}–{clock(match.query_end_s)}"
    if match.transposition is None or match.tempo_ratio is None:
        return f"{here} of the query is closest to {there} of the track"
    alike = f"{pitch_in_words(match.transposition)}, {tempo_in_words(match.tempo_ratio)}"
    return f"{here} of the query runs as {there} of the track, which is {alike}"


def _name(match: Match) -> str:
    return _text(match.title or Path(match.path).name or match.track_id)


def _text(text: str) -> str:
    """Escaped; of names that are no UTF-8, the odd bytes as escapes, as a notebook is UTF-8."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))
