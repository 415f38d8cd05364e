"""The drawing of an alignment: cross-similarity and path, chromagrams, and the match of both one above the other."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import PITCH_CLASSES
from ..second_stage.explain import Explanation, clock, contributions_in_words, in_words
from .document import data_uri, escape, template
from .image import of_chroma, of_recurrence

if TYPE_CHECKING:
    from ..alignment.evidence import Evidence
    from ..second_stage.attribution import Contributions, Part

TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
MOST_TICKS = 6
MOST_POINTS = 4000  # of a path that is drawn


def drawing(explanation: Explanation, group: str, number: int, shown: bool) -> str:
    """The drawing of one group of channels."""
    seen = explanation.evidence[group]
    if seen is None:
        hidden = "" if shown else "hidden"
        return f'<section class="view" data-view="{number}" {hidden}><p>Nothing recurs here.</p></section>'
    channels = slice(number * PITCH_CLASSES, (number + 1) * PITCH_CLASSES)
    query, track = (recording.chroma[:, channels] for recording in (explanation.query, explanation.track))
    stretch = explanation.stretch(group)
    assert stretch is not None
    path = points(seen)
    return Template(template("explain_view.html")).substitute(
        number=number,
        hidden="" if shown else "hidden",
        n=len(query),
        m=len(track),
        windows_n=seen.recurrence.shape[0],
        windows_m=seen.recurrence.shape[1],
        recurrence=data_uri("image/png", of_recurrence(seen.recurrence)),
        query_chroma=data_uri("image/png", of_chroma(query)),
        track_chroma=data_uri("image/png", of_chroma(track)),
        query_ticks=_ticks(explanation.query.duration_s, len(query) * explanation.frame_s, "y"),
        track_ticks=_ticks(explanation.track.duration_s, len(track) * explanation.frame_s, "x"),
        points=" ".join(f"{x},{y}" for y, x in path.tolist()),
        query_start=seen.query_start,
        query_frames=seen.query_end - seen.query_start,
        track_start=seen.candidate_start,
        track_frames=seen.candidate_end - seen.candidate_start,
        warped=data_uri("image/png", of_chroma(_in_time_of_track(query, seen))),
        matched=data_uri("image/png", of_chroma(track[seen.candidate_start : seen.candidate_end])),
        times=_times_drawn(explanation),
        moved=escape(_moved(stretch.transposition)),
        words=escape(in_words(explanation, group)),
    )


def _times_drawn(explanation: Explanation) -> str:
    """A bar for each stretch of the query, beside it; nothing where contributions are not known."""
    known = explanation.contributions
    if known is None:
        return ""
    largest = max(abs(part.contribution) for part in known.times) or 1.0
    bars = "".join(
        f'<rect class="{_side(part)}" y="{part.start / explanation.frame_s:.2f}"'
        f' height="{(part.end - part.start) / explanation.frame_s:.2f}"'
        f' width="{100 * abs(part.contribution) / largest:.1f}">'
        f"<title>{clock(part.start)} to {clock(part.end)}: {part.contribution:+.3f}</title></rect>"
        for part in known.times
    )
    label = escape(contributions_in_words(known))
    return (
        f'<svg class="times" viewBox="0 0 100 {len(explanation.query.chroma)}" preserveAspectRatio="none" role="img"'
        f' aria-label="{label}">{bars}</svg>'
    )


def bands_drawn(known: Contributions) -> str:
    """A line for each octave, the highest first: its limits, a bar, and what it contributes."""
    largest = max(abs(part.contribution) for part in known.bands) or 1.0
    return "".join(
        f'<div role="listitem"><span>{part.start:.0f} – {part.end:.0f} Hz</span>'
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{_side(part)}" height="10" width="{100 * abs(part.contribution) / largest:.1f}"/></svg>'
        f"<span>{part.contribution:+.3f}</span></div>"
        for part in reversed(known.bands)
    )


def _side(part: Part) -> str:
    return "for" if part.contribution >= 0 else "against"


def points(seen: Evidence) -> NDArray[np.int32]:
    """The path (n_points, 2) in frames of query and track, thinned if it is long, up to the end of its last window."""
    kept = np.unique(np.linspace(0, len(seen.path) - 1, min(len(seen.path), MOST_POINTS)).round().astype(int))
    end = np.array([[seen.query_end, seen.candidate_end]], dtype=np.int32)
    return np.concatenate([seen.path[kept], end])


def _in_time_of_track(query: NDArray[np.uint8], seen: Evidence) -> NDArray[np.uint8]:
    """The query's chroma at the times of the track's matched stretch, transposed to it."""
    path = points(seen)
    times = np.interp(np.arange(seen.candidate_start, seen.candidate_end), path[:, 1], path[:, 0])
    frames = np.minimum(times.round().astype(int), len(query) - 1)
    return np.roll(query[frames], seen.transposition, axis=1)


def _moved(semitones: int) -> str:
    return f", moved {'up' if semitones > 0 else 'down'} by {abs(semitones)}" if semitones else ""


def _ticks(duration_s: float, drawn_s: float, axis: str) -> str:
    """Labels of an axis of `drawn_s` seconds, at round times up to the end of the recording."""
    step = next((step for step in TICKS_S if duration_s / step <= MOST_TICKS), TICKS_S[-1])
    other = 'y="75%"' if axis == "x" else 'x="88%"'
    return "".join(
        f'<text {axis}="{100 * at / drawn_s:.2f}%" {other} class="{"first" if at == 0 else ""}">{clock(at)}</text>'
        for at in range(0, int(duration_s) + 1, step)
    )
