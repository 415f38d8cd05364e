"""Readers of an ingest: files in, embeddings of their parts out.

`LocalReader` decodes and embeds on this machine; `bytecover2_milvus.ingest.ray.Cluster` has it done by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import encode, to_levels
from ..alignment.verdict import Verdict
from ..audio.decode_pool import Decoded, Decoder
from ..audio.segments import Segments, Span
from ..embedding.embedder import Embedder
from ..errors import AudioError
from ..milvus.schema import Features
from .listing import ListedTrack


@runtime_checkable
class Reader(Protocol):
    """Reads files and embeds them; leave its ``with`` block to end what it started."""

    @property
    def model_id(self) -> str: ...

    @property
    def chroma_id(self) -> str: ...

    @property
    def verdict(self) -> Verdict | None: ...

    def __enter__(self) -> Reader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(
        self, tracks: Iterable[ListedTrack], segments: Segments
    ) -> Iterator[tuple[ListedTrack, Decoded | AudioError]]:
        """Each file decoded, with its spans, or the error that it gave; a `LocalReader` keeps their order."""
        ...

    def hear(self, decoded: Decoded, spans: Sequence[Span]) -> list[Features]:
        """Features of some spans of a file that `read` gave, of those that were not among `ListedTrack.stored`.

        Raises
        ------
        AudioError, ChromaError, DeviceError
        """
        ...


class LocalReader:
    """Processes that decode, and one session that embeds what is asked for.

    Parameters
    ----------
    embedder : Embedder
    workers : int, optional
        Processes; see `Decoder`.
    """

    def __init__(self, embedder: Embedder, workers: int | None = None) -> None:
        self._embedder = embedder
        self._decoder = Decoder(workers)

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def chroma_id(self) -> str:
        return self._embedder.chroma_id

    @property
    def verdict(self) -> Verdict | None:
        return self._embedder.verdict

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.__exit__(kind, error, trace)

    def read(
        self, tracks: Iterable[ListedTrack], segments: Segments
    ) -> Iterator[tuple[ListedTrack, Decoded | AudioError]]:
        for listed, decoded in self._decoder.read(tracks):
            if isinstance(decoded, Decoded) and decoded.waveform is not None:
                decoded = replace(decoded, spans=segments.audible_spans(decoded.waveform))
            yield listed, decoded

    def hear(self, decoded: Decoded, spans: Sequence[Span]) -> list[Features]:
        assert decoded.waveform is not None  # content that is known has no spans
        return hear(self._embedder, decoded.waveform, spans)


def hear(embedder: Embedder, waveform: NDArray[np.float32], spans: Sequence[Span]) -> list[Features]:
    """Features of parts of a waveform; of the whole also its chroma, as parts are not aligned.

    Raises
    ------
    AudioError, DeviceError
        As `Embedder.hear`.
    ChromaError
        If chroma is not finite.
    """
    whole = (0, len(waveform))
    features = []
    for span, heard in zip(spans, embedder.hear_batch([waveform[start:stop] for start, stop in spans]), strict=True):
        chroma = heard.chroma if span == whole else None
        features.append(Features(heard.embedding, "" if chroma is None else encode(to_levels(chroma))))
    return features
