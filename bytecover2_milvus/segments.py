"""Segments: parts of a recording that are embedded beside the whole, so that a short query finds its work.

Conventions
-----------
The segments of a recording have one length and start a hop apart; the last one ends where the recording ends. A
recording that is no longer than a segment has none. Spans are counted in samples, times in seconds from the beginning.
How tracks are cut is a property of the collection; which part a row stands for is in the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .audio import MINIMUM_S
from .config import SAMPLE_RATE
from .errors import ConfigError
from .mixdown import SILENCE

if TYPE_CHECKING:
    from .embedder import Heard

Span: TypeAlias = tuple[int, int]  # first sample, and the one behind the last
_NEARLY = SAMPLE_RATE // 500  # samples: segments that start as close together would have one row id


class BatchEmbedder(Protocol):
    """The part of an `Embedder` that queries need."""

    def hear_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Heard]: ...


@dataclass(frozen=True, slots=True)
class Segments:
    """The cut of recordings; by default there is none, and only the whole is embedded.

    Raises
    ------
    ConfigError
        If a segment is shorter than `MINIMUM_S`, or the hop leaves gaps or is shorter than that.
    """

    length_s: float = 0.0
    hop_s: float = 0.0  # from the start of a segment to that of the next

    def __post_init__(self) -> None:
        if self.length_s == self.hop_s == 0:
            return
        if not MINIMUM_S <= self.length_s < math.inf:  # NaN neither
            raise ConfigError(f"segments of {self.length_s:g} s: at least {MINIMUM_S:g} s, or 0 for whole tracks only")
        if not MINIMUM_S <= self.hop_s <= self.length_s:
            raise ConfigError(
                f"a hop of {self.hop_s:g} s: between {MINIMUM_S:g} s and the {self.length_s:g} s of a segment"
            )

    def __bool__(self) -> bool:
        """True if anything is cut at all."""
        return self.length_s > 0

    def spans(self, n_samples: int) -> list[Span]:
        """The whole of a recording, then its segments."""
        length, hop = round(self.length_s * SAMPLE_RATE), round(self.hop_s * SAMPLE_RATE)
        if not 0 < length < n_samples:
            return [(0, n_samples)]
        last = n_samples - length
        starts = [*range(0, last - _NEARLY, hop), last]
        return [(0, n_samples), *((start, start + length) for start in starts)]

    def audible_spans(self, waveform: NDArray[np.float32]) -> list[Span]:
        """Those of `spans` that can be embedded: the whole, then the segments that are not silent."""
        whole, *parts = self.spans(len(waveform))
        return [whole, *((a, b) for a, b in parts if max(waveform[a:b].max(), -waveform[a:b].min()) >= SILENCE)]


WHOLE = Segments()


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """A recording to look for: the embeddings of the whole and of its segments, and where these are."""

    embeddings: NDArray[np.float32]  # (n, D)
    times_s: Sequence[tuple[float, float]] = ()  # n starts and ends, or none where they are not known
    heard: Heard | None = None  # of the whole, for the second stage


def embed_query(waveform: NDArray[np.float32], embedder: BatchEmbedder, segments: Segments = WHOLE) -> Query:
    """A waveform as a query: the whole, and if it is longer than one of `segments`, those too.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)] of float32
        Mono, 22 050 Hz.
    embedder : Embedder
    segments : Segments
        By default none: a recording that is all of one work is found better by the whole, see ``docs/segments.md``.

    Raises
    ------
    AudioError
        As `Embedder.embed`.
    """
    spans = segments.audible_spans(waveform)
    heard = embedder.hear_batch([waveform[start:stop] for start, stop in spans])
    return Query(np.stack([part.embedding for part in heard]), [times_s(span) for span in spans], heard[0])


def times_s(span: Span) -> tuple[float, float]:
    """Start and end of a span, in seconds."""
    return span[0] / SAMPLE_RATE, span[1] / SAMPLE_RATE


def span_at(start_s: float, end_s: float) -> Span:
    """The span between two times."""
    return round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
