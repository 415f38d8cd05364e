"""The alignment of two recordings as pages show it: facts, drawings, and data for ``alignment.mjs``."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ..second_stage.explain import Explanation, clock, pitch_in_words, share_in_words, tempo_in_words
from .document import escape, template
from .drawing import drawing, points

if TYPE_CHECKING:
    from ..alignment.evidence import Evidence

GROUPS = {"notes": "All notes", "lead": "The tune"}  # others go by their own name
NARROWEST, WIDEST = 0.6, 1.9  # aspect ratios of the drawing: a short query beside a long track stays visible


def players(explanation: Explanation | None = None) -> str:
    """HTML of two players, of no recordings yet where there is no explanation."""
    pair = (explanation.query, explanation.track) if explanation else (None, None)
    names, lengths = zip(*((escape(one.name), clock(one.duration_s)) if one else ("", "") for one in pair), strict=True)
    return Template(template("players.html")).substitute(
        query=names[0],
        track=names[1],
        query_length=lengths[0],
        track_length=lengths[1],
        nothing_hidden="hidden" if explanation and explanation.best is None else "",
    )


def drawings(explanation: Explanation) -> str:
    """HTML of the drawings and of the choice among them, for ``alignment.mjs``. No name of a recording is in it."""
    best = explanation.best
    choices = "".join(
        f'<label><input type="radio" name="group" value="{number}" {"checked" if group == best else ""}>'
        f" {escape(GROUPS.get(group, group))} <small>{_score(seen)}</small></label>"
        for number, (group, seen) in enumerate(explanation.evidence.items())
    )
    views = (drawing(explanation, group, number, group == best) for number, group in enumerate(explanation.evidence))
    legend = "<legend>Compared by, with the score of the alignment:</legend>"
    return f'<fieldset class="choices">{legend}{choices}</fieldset>{"".join(views)}'


def data_of(explanation: Explanation) -> dict[str, Any]:
    """The facts that ``alignment.mjs`` needs of these drawings, for JSON."""
    best = explanation.best
    frames = len(explanation.query.chroma), len(explanation.track.chroma)
    return {
        "frame_s": explanation.frame_s,
        "frames": frames,
        "aspect": round(float(np.clip(frames[1] / frames[0], NARROWEST, WIDEST)), 3),
        "views": [
            None if seen is None else {"path": points(seen).tolist(), "ratio": seen.tempo_ratio}
            for seen in explanation.evidence.values()
        ],
        "shown": list(explanation.evidence).index(best) if best else 0,
    }


def facts_of(explanation: Explanation) -> list[tuple[str, str]]:
    """Facts of the pair, each with its name."""
    facts = []
    best = explanation.best
    stretch = explanation.stretch(best) if best else None
    if explanation.probability is not None:
        facts.append(("Probability of one work", share_in_words(explanation.probability)))
    if explanation.score is not None:
        facts.append(("Score, log odds", f"{explanation.score:+.2f}"))
    if best and stretch is not None:
        facts.append(("In the query", f"{clock(stretch.query_start_s)} – {clock(stretch.query_end_s)}"))
        facts.append(("In the track", f"{clock(stretch.start_s)} – {clock(stretch.end_s)}"))
        facts.append(("Key of the track", pitch_in_words(stretch.transposition).removeprefix("in the ")))
        facts.append(("Tempo of the track", tempo_in_words(stretch.tempo_ratio).removeprefix("at the ")))
        facts.append(("Agreeing windows", f"{100 * explanation.agreement(best):.0f} %"))
    if explanation.similarity is not None:
        facts.append(("Similarity of the embeddings", f"{explanation.similarity:.3f}"))
    return facts


def _score(seen: Evidence | None) -> str:
    return "–" if seen is None else f"{seen.score:.2f}"
