"""A recording as a query: the embeddings of the whole and of its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio.segments import WHOLE, Segments, times_s
from .embedder import Heard


class BatchEmbedder(Protocol):
    """The part of an `Embedder` that queries need."""

    def hear_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Heard]: ...


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
