"""Two recordings, explained: where the same music runs in both, and what of it the embedding hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import PITCH_CLASSES, to_levels
from ..alignment.qmax import Qmax
from ..alignment.recording import same_recording
from ..alignment.verdict import SAME_RECORDING, Verdict, probability
from ..errors import ChromaError, ShortChroma

if TYPE_CHECKING:
    from ..alignment.evidence import Evidence
    from .attribution import Contributions, Part

SAME_TEMPO = 0.015  # by which a tempo ratio may differ from 1 and still be called the same


@dataclass(frozen=True)
class Recording:
    """One of the two."""

    name: str
    duration_s: float
    chroma: NDArray[np.uint8]  # (n_frames, 12 * groups): levels


@dataclass(frozen=True)
class Stretch:
    """A matched stretch, in seconds of both recordings."""

    query_start_s: float
    query_end_s: float
    start_s: float
    end_s: float
    transposition: int  # semitones that the track is above the query
    tempo_ratio: float  # 2 where the track is twice as fast


@dataclass(frozen=True)
class Explanation:
    """The alignment of two recordings, group by group."""

    query: Recording
    track: Recording
    frame_s: float
    evidence: dict[str, Evidence | None]  # by group of channels; None where nothing recurs
    similarity: float | None = None  # cosine of the embeddings
    score: float | None = None  # log odds that both are one work
    probability: float | None = None  # that both are one work
    contributions: Contributions | None = None  # of the query's parts to the similarity

    @property
    def best(self) -> str | None:
        """The group whose alignment scores highest; None if nothing recurs in any."""
        found = {group: seen.score for group, seen in self.evidence.items() if seen is not None}
        return max(found, key=lambda group: found[group], default=None)

    def stretch(self, group: str) -> Stretch | None:
        """The place of the match of a group in both recordings; None where there is none."""
        seen = self.evidence[group]
        if seen is None:
            return None
        ends_s = (seen.query_end * self.frame_s, seen.candidate_end * self.frame_s)
        return Stretch(
            seen.query_start * self.frame_s,
            min(ends_s[0], self.query.duration_s),
            seen.candidate_start * self.frame_s,
            min(ends_s[1], self.track.duration_s),
            seen.transposition,
            seen.tempo_ratio,
        )

    def agreement(self, group: str) -> float:
        """The share of the windows of a match, in the recording where it is shorter, that recur on the path.

        1 for a copy, 0 where nothing recurs. The rest is gaps; unrelated recordings have long paths, too, with more.
        """
        seen = self.evidence[group]
        if seen is None:
            return 0.0
        return float(len(seen.path) / (seen.path[-1] - seen.path[0] + 1).min())


def explain_pair(
    query: Recording,
    track: Recording,
    groups: Sequence[str],
    frame_s: float,
    *,
    similarity: float | None = None,
    score: float | None = None,
    probability: float | None = None,
    contributions: Contributions | None = None,
) -> Explanation:
    """The alignment of two recordings by each group of twelve chroma channels.

    Parameters
    ----------
    query, track : Recording
        Their chroma in [0, 1], or levels, (n_frames, 12 * len(groups)).
    groups : sequence of str
        Names of the groups, in the order of the channels.
    frame_s : float
        Seconds from one frame to the next.
    similarity, score, probability : float, optional
        What is known of the pair besides; it is handed on.
    contributions : Contributions, optional
        As `attribution.contributions` gives them; likewise.

    Raises
    ------
    ShortChroma
        If either is shorter than a window of the alignment.
    ChromaError
        If chroma holds NaN, does not have twelve channels for each group, or is too long to be drawn.
    """
    from ..alignment.evidence import evidence

    query, track = (Recording(r.name, r.duration_s, to_levels(r.chroma, r.name)) for r in (query, track))
    parameters = Qmax()
    for recording in (query, track):
        n_frames, channels = recording.chroma.shape
        if channels != PITCH_CLASSES * len(groups):
            raise ChromaError(f"{recording.name}: {channels} channels of chroma; {len(groups)} groups of 12 needed")
        if n_frames < parameters.embedding:
            raise ShortChroma(
                f"{recording.name}: {recording.duration_s:.1f} s are too short to be aligned;"
                f" {parameters.embedding * frame_s:.1f} s are needed"
            )
    found = {group: evidence(query.chroma, track.chroma, number, parameters) for number, group in enumerate(groups)}
    return Explanation(query, track, frame_s, found, similarity, score, probability, contributions)


def judged(
    explanation: Explanation, verdict: Verdict, query: NDArray[np.float64], track: NDArray[np.float64]
) -> Explanation:
    """The explanation with the score and the probability that `query` would give this pair.

    Parameters
    ----------
    explanation : Explanation
        With a similarity.
    verdict : Verdict
        Of the bundle, for the groups of the explanation.
    query, track : np.ndarray [shape=(kinds, 2)]
        Their statistics, as `Verdict.statistics` gives them.
    """
    assert explanation.similarity is not None
    first, second = explanation.query.chroma, explanation.track.chroma
    aligned = [seen.score if seen else 0.0 for seen in explanation.evidence.values()]
    frames = min(len(first), len(second))
    score = float(verdict.scores(verdict.features(explanation.similarity, aligned, query, track, frames)))
    if same_recording(explanation.similarity, first, second):
        score = max(score, SAME_RECORDING)
    return replace(explanation, score=score, probability=probability(score))


def in_words(explanation: Explanation, group: str | None = None) -> str:
    """A sentence that says where the recordings run alike; of the best group by default."""
    group = group or explanation.best
    stretch = explanation.stretch(group) if group else None
    if stretch is None:
        return "Nothing recurs: no stretch of the query runs as a stretch of the track does."
    return stretch_in_words(stretch)


def stretch_in_words(stretch: Stretch) -> str:
    """A sentence that says where the recordings run alike, how much higher the track is there, and how fast."""
    query, track = (
        f"{clock(start)} to {clock(end)}"
        for start, end in ((stretch.query_start_s, stretch.query_end_s), (stretch.start_s, stretch.end_s))
    )
    pitch, tempo = pitch_in_words(stretch.transposition), tempo_in_words(stretch.tempo_ratio)
    return f"From {query} the query runs as the track does from {track}; there the track is {pitch} and {tempo}."


def verdict_in_words(explanation: Explanation) -> str:
    """A sentence that says whether both are thought to be one work, or why nothing says so."""
    probability = explanation.probability
    if probability is None and explanation.best is None:
        return "They may still be of one work, if too little of it is in either, or it is treated too freely."
    if probability is None:
        return (
            "Any two recordings have a longest such stretch, and in unrelated ones it may last as long, with more gaps:"
            " judge by how much agrees, by the scores of other tracks, and by ear."
        )
    return probability_in_words(probability)


def probability_in_words(probability: float) -> str:
    """A sentence that says whether two recordings are thought to be one work."""
    share = share_in_words(probability)
    return f"Probably one work ({share})." if probability >= 0.5 else f"Probably two works ({share} that it is one)."


def contributions_in_words(known: Contributions) -> str:
    """A sentence that says which part of the query the similarity of the embeddings rests on most."""
    stretch, octave = (max(parts, key=lambda part: part.contribution) for parts in (known.times, known.bands))
    told = []
    if stretch.contribution > 0:
        told.append(f"{clock(stretch.start)} to {clock(stretch.end)} ({_without(known, stretch)})")
    if octave.contribution > 0:
        told.append(f"what sounds between {octave.start:.0f} and {octave.end:.0f} Hz ({_without(known, octave)})")
    if not told:
        return "No part of the query makes the embeddings alike: without any of them they are no further apart."
    return f"Of the query, the embeddings' similarity of {known.similarity:.2f} rests most on {' and on '.join(told)}."


def _without(known: Contributions, part: Part) -> str:
    return f"{known.similarity - part.contribution:.2f} without"


def share_in_words(probability: float) -> str:
    """A probability in percent that never claims to be certain."""
    percent = 100 * probability
    return "above 99 %" if percent > 99 else "below 1 %" if percent < 1 else f"{percent:.0f} %"


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 2:05; also 75:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def pitch_in_words(semitones: int) -> str:
    """Such as "3 semitones higher"."""
    if semitones == 0:
        return "in the same key"
    return f"{abs(semitones)} semitone{'s' * (abs(semitones) > 1)} {'higher' if semitones > 0 else 'lower'}"


def tempo_in_words(ratio: float) -> str:
    """Such as "1.07 times as fast"."""
    return "at the same tempo" if abs(ratio - 1) <= SAME_TEMPO else f"{ratio:.2f} times as fast"
