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
    contributions_in_words,
    explain_pair,
    in_words,
    judged,
    verdict_in_words,
)
from .alignment import data_of, drawings, facts_of, players
from .document import document, escape, template
from .drawing import bands_drawn
from .sound import compress

if TYPE_CHECKING:
    from ..embedding.embedder import Embedder
    from ..milvus.cohort import Cohort


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
    n_parts = 2 if query.name == track.name else 1  # with their folders where only these tell them apart
    (of_query, embedding, asking), (of_track, other, asked) = (
        _hear(path, "/".join(path.parts[-n_parts:]), embedder) for path in (query, track)
    )
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


def _hear(path: Path, name: str, embedder: Embedder) -> tuple[NDArray[np.float32], NDArray[np.float32], Recording]:
    """The waveform of a file, its embedding, and what the alignment needs; errors name the file."""
    from ..audio.load import load_audio

    waveform = load_audio(path)
    try:
        heard = embedder.hear(waveform)
    except AudioError as error:  # who hears a waveform does not know of its file
        raise type(error)(f"{path}: {error}") from error
    chroma = to_levels(np.asarray(heard.chroma), name)
    return waveform, heard.embedding, Recording(name, len(waveform) / embedder.contract.sample_rate, chroma)


def explain_page(explanation: Explanation, sounds: tuple[bytes | None, bytes | None] = (None, None)) -> str:
    """The HTML of the page.

    Parameters
    ----------
    explanation : Explanation
    sounds : pair of bytes or None
        MP3 of query and track, as `sound.compress` makes them. Where either is missing, the page has no players.
    """
    heard = all(sounds)
    data = data_of(explanation)
    body = Template(template("explain.html")).substitute(
        query=escape(explanation.query.name),
        track=escape(explanation.track.name),
        words=escape(in_words(explanation)),
        verdict=escape(verdict_in_words(explanation)),
        heard_hidden="" if explanation.contributions else "hidden",
        heard=escape(contributions_in_words(explanation.contributions)) if explanation.contributions else "",
        bands=bands_drawn(explanation.contributions) if explanation.contributions else "",
        facts="".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts_of(explanation)
        ),
        drawings=drawings(explanation),
        players=players(explanation),
        players_hidden="" if heard else "hidden",
        silent_hidden="hidden" if heard else "",
        nothing_hidden="hidden" if explanation.best is None else "",
        query_sound=_text(sounds[0]) if heard else "",
        track_sound=_text(sounds[1]) if heard else "",
        data=json.dumps(data).replace("<", "\\u003c"),
    )
    return document(
        f"{explanation.query.name} and {explanation.track.name}",
        body,
        styles=("page.css", "alignment.css", "explain.css"),
        scripts=("duet.mjs", "alignment.mjs", "explain.mjs"),
        rules=f":root {{ --aspect: {data['aspect']}; }}\n",
    )


def _text(sound: bytes | None) -> str:
    return base64.b64encode(sound or b"").decode("ascii")
