"""Segments: parts of a recording that are embedded beside the whole, so that a short query finds its work.

Conventions
-----------
The segments of a recording have one length and start a hop apart; the last one ends where the recording ends. A
recording that is no longer than a segment has none. Spans are counted in samples, times in seconds from the beginning.
How tracks are cut is a property of the collection; which part a row stands for is in the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..errors import ConfigError
from .load import MINIMUM_S
from .mixdown import SILENCE

Span: TypeAlias = tuple[int, int]  # first sample, and the one behind the last
_NEARLY = SAMPLE_RATE // 500  # samples: segments that start as close together would have one row id


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


def times_s(span: Span) -> tuple[float, float]:
    """Start and end of a span, in seconds."""
    return span[0] / SAMPLE_RATE, span[1] / SAMPLE_RATE


def span_at(start_s: float, end_s: float) -> Span:
    """The span between two times."""
    return round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
