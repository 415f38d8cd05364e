"""The page of an `Explanation`: cross-similarity with the path, chromagrams, facts, and two players in step."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import to_levels
from ..atomic import atomic_write, check_writable
from ..errors import AudioError, BundleError
from ..second_stage.attribution import contributions
from ..second_stage.explain import (
    Explanation,
    Recording,
    clock,
    contributions_in_words,
    explain_pair,
    in_words,
    judged,
    pitch_in_words,
    share_in_words,
    tempo_in_words,
    verdict_in_words,
)
from .document import document, escape, template
from .drawing import bands_drawn, drawing, points
from .sound import compress

if TYPE_CHECKING:
    from ..embedding.embedder import Embedder
    from ..milvus.cohort import Cohort

GROUPS = {"notes": "All notes", "lead": "The tune"}  # others go by their own name
NARROWEST, WIDEST = 0.6, 1.9  # aspect ratios of the drawing: a short query beside a long track stays visible


@dataclass(frozen=True)
class Beside:
    """The tracks of a catalogue beside which a pair is judged, as `query` judges it there."""

    cohort: Cohort
    statistics: Mapping[str, Any]  # that are stored with the track


def write_page(
    query: Path, track: Path, embedder: Embedder, out: Path, *, sound: bool = True, beside: Beside | None = None
) -> Explanation:
    """The alignment of two audio files, its page written to `out`.

    Parameters
    ----------
    query, track : Path
    embedder : Embedder
        Of a bundle with a note map.
    out : Path
        Whole at the end, or as it was before.
    sound : bool
        Whether the recordings go into the page, small; those that `sound.MOST_BYTES` cannot hold are left out.
    beside : Beside, optional
        By default the pair is judged beside the typical tracks that the calibration of the bundle knows. A bundle
        without one gives no probability.

    Raises
    ------
    AudioError
        If a file gives no usable waveform, or both are the same file.
    BundleError
        If the bundle has no note map.
    ChromaError
        If a recording is too short to be aligned, or both are too long to be drawn.
    OutputError
        If `out` cannot be written.
    """
    hears = embedder.contract.chroma
    if hears is None:
        raise BundleError(
            f"{embedder.contract.name}: this bundle has no second stage, so there is nothing to draw;"
            " name one with a note map by --bundle"
        )
    check_writable(out)
    if query.exists() and track.exists() and query.samefile(track):
        raise AudioError(f"{track}: the same file as the query; name two recordings")
    (of_query, embedding, asking), (of_track, other, asked) = (_hear(path, embedder) for path in (query, track))
    frame_s = hears.frame_samples / embedder.contract.sample_rate
    similarity = float(embedding @ other)
    heard = contributions(of_query, embedding, other, embedder)
    explanation = explain_pair(asking, asked, hears.groups, frame_s, similarity=similarity, contributions=heard)
    if verdict := embedder.verdict:
        own = beside.cohort.statistics(embedding, explanation.query.chroma) if beside else {}
        known = beside.statistics if beside else {}
        statistics = verdict.statistics(own, query.name), verdict.statistics(known, track.name)
        explanation = judged(explanation, verdict, *statistics)
    sounds = (compress(of_query), compress(of_track)) if sound else (None, None)
    page = explain_page(explanation, sounds)
    with atomic_write(out) as part:
        part.write_text(page, encoding="utf-8")
    return explanation


def _hear(path: Path, embedder: Embedder) -> tuple[NDArray[np.float32], NDArray[np.float32], Recording]:
    """The waveform of a file, its embedding, and what the alignment needs; errors name the file."""
    from ..audio.load import load_audio

    waveform = load_audio(path)
    try:
        heard = embedder.hear(waveform)
    except AudioError as error:  # who hears a waveform does not know of its file
        raise type(error)(f"{path}: {error}") from error
    chroma = to_levels(np.asarray(heard.chroma), path.name)
    return waveform, heard.embedding, Recording(path.name, len(waveform) / embedder.contract.sample_rate, chroma)


def explain_page(explanation: Explanation, sounds: tuple[bytes | None, bytes | None] = (None, None)) -> str:
    """The HTML of the page.

    Parameters
    ----------
    explanation : Explanation
    sounds : pair of bytes or None
        MP3 of query and track, as `sound.compress` makes them. Where either is missing, the page has no players.
    """
    heard = all(sounds)
    frames = len(explanation.query.chroma), len(explanation.track.chroma)
    best = explanation.best
    groups = enumerate(explanation.evidence)
    views = "".join(drawing(explanation, group, number, group == best) for number, group in groups)
    facts = {
        "frame_s": explanation.frame_s,
        "frames": frames,
        "durations_s": [explanation.query.duration_s, explanation.track.duration_s],
        "views": [
            None if seen is None else {"path": points(seen).tolist(), "ratio": seen.tempo_ratio}
            for seen in explanation.evidence.values()
        ],
        "shown": list(explanation.evidence).index(best) if best else 0,
    }
    body = Template(template("explain.html")).substitute(
        query=escape(explanation.query.name),
        track=escape(explanation.track.name),
        words=escape(in_words(explanation)),
        verdict=escape(verdict_in_words(explanation)),
        heard_hidden="" if explanation.contributions else "hidden",
        heard=escape(contributions_in_words(explanation.contributions)) if explanation.contributions else "",
        bands=bands_drawn(explanation.contributions) if explanation.contributions else "",
        facts=_facts(explanation),
        choices=_choices(explanation, best),
        views=views,
        players_hidden="" if heard else "hidden",
        silent_hidden="hidden" if heard else "",
        nothing_hidden="hidden" if best is None else "",
        query_length=clock(explanation.query.duration_s),
        track_length=clock(explanation.track.duration_s),
        query_sound=_text(sounds[0]) if heard else "",
        track_sound=_text(sounds[1]) if heard else "",
        data=json.dumps(facts).replace("<", "\\u003c"),
    )
    aspect = np.clip(frames[1] / frames[0], NARROWEST, WIDEST)
    return document(
        f"{explanation.query.name} and {explanation.track.name}",
        body,
        styles=("page.css", "explain.css"),
        scripts=("duet.mjs", "explain.mjs"),
        rules=f":root {{ --aspect: {aspect:.3f}; }}\n",
    )


def _choices(explanation: Explanation, best: str | None) -> str:
    """A radio button for each group."""
    return "".join(
        f'<label><input type="radio" name="group" value="{number}" {"checked" if group == best else ""}>'
        f" {escape(GROUPS.get(group, group))} <small>{'–' if seen is None else f'{seen.score:.2f}'}</small></label>"
        for number, (group, seen) in enumerate(explanation.evidence.items())
    )


def _facts(explanation: Explanation) -> str:
    """Facts of the pair, as a description list."""
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
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)


def _text(sound: bytes | None) -> str:
    return base64.b64encode(sound or b"").decode("ascii")
