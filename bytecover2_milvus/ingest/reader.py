"""Recordings in, embeddings of their parts out: what an ingest needs of whoever reads the files.

`LocalReader` decodes and embeds on this machine; `bytecover2_milvus.ingest.ray.Cluster` has it done by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..alignment.chroma import encode, to_levels
from ..alignment.verdict import Verdict
from ..audio.decode_pool import Decoded, Decoder, Job
from ..audio.segments import Segments, Span
from ..embedding.embedder import Embedder
from ..errors import AudioError
from ..milvus.schema import Features

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class ReadFile:
    """A file that was read, and how its parts sound."""

    decoded: Decoded  # its waveform may be elsewhere
    spans: Sequence[Span]  # the whole, then the segments that are not silent; none where the content was known
    hear: Callable[[Sequence[Span]], list[Features]]  # some of `spans`; raises AudioError, ChromaError, DeviceError


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

    def read(self, jobs: Iterable[Job[_Key]], segments: Segments) -> Iterator[tuple[_Key, ReadFile | AudioError]]:
        """Each file read, or the error that it gave, in the order of the jobs.

        `ReadFile.hear` gives any span that is not among `Job.stored` of the content.
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

    def read(self, jobs: Iterable[Job[_Key]], segments: Segments) -> Iterator[tuple[_Key, ReadFile | AudioError]]:
        for key, decoded in self._decoder.decode(jobs):
            yield key, decoded if isinstance(decoded, AudioError) else self._read_file(decoded, segments)

    def _read_file(self, decoded: Decoded, segments: Segments) -> ReadFile:
        waveform = decoded.waveform
        if waveform is None:
            return ReadFile(decoded, [], lambda some: [])
        spans = segments.audible_spans(waveform)
        return ReadFile(decoded, spans, lambda some: hear(self._embedder, waveform, some))


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
