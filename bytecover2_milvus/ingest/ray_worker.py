"""The part of an ingest on a Ray cluster that runs on its machines: a worker that decodes and embeds files."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..audio.decode_pool import Decoded, decode
from ..audio.limits import Limits
from ..audio.segments import Segments, Span
from ..embedding.embedder import Embedder
from ..errors import AudioError, BytecoverError, ChromaError, ClusterError, DeviceError
from ..milvus.properties import EmbeddingModel
from ..milvus.schema import Features
from .reader import hear


@dataclass(frozen=True)
class Embedded(Decoded):
    """A file as a worker sends it back: without its waveform, with the features that were computed from it."""

    features: Mapping[Span, Features] | BytecoverError = field(default_factory=dict)  # of spans that are not stored


class Worker:
    """An actor on one machine of the cluster, with a session of its own."""

    def start(self, bundle: Path | None, device: str, model: str, folder: str) -> None:
        """Open the session; relative paths are relative to `folder`.

        Raises
        ------
        BytecoverError
            If this machine lacks the bundle or the device, or has another model.
        """
        with suppress(OSError):  # then relative paths fail, each with its name
            os.chdir(folder)
        try:
            self._embedder = Embedder(bundle, device, threads=1)
        except BytecoverError as error:
            raise type(error)(f"on {platform.node()}: {error}") from error
        if (own := describe_model(self._embedder)) != model:
            raise ClusterError(
                f"on {platform.node()}: model {own}, not {model}; install the same"
                " bytecover2-milvus on every machine, or name a --bundle that all can read"
            )

    def read(
        self,
        path: Path,
        known: Sequence[str],
        stored: Mapping[str, Sequence[Span]],
        segments: Segments,
        limits: Limits | None,
    ) -> Embedded | AudioError:
        """Decode a file, unless its content is `known`, and embed what is not `stored` of it."""
        try:
            decoded = decode(path, known, limits=limits)
        except AudioError as error:
            return error
        facts = {entry.name: getattr(decoded, entry.name) for entry in fields(decoded)} | {"waveform": None}
        if decoded.waveform is None:
            return Embedded(**facts)
        spans = segments.audible_spans(decoded.waveform)
        missing = [span for span in spans if span not in set(stored.get(decoded.content_hash, ()))]
        features: Mapping[Span, Features] | BytecoverError
        try:
            features = dict(zip(missing, hear(self._embedder, decoded.waveform, missing), strict=True))
        except (AudioError, ChromaError, DeviceError) as error:
            features = error
        return Embedded(**(facts | {"spans": spans}), features=features)


def describe_model(model: EmbeddingModel) -> str:
    """The ids of a model and its note map, in words."""
    return f"{model.model_id} with note map {model.chroma_id}" if model.chroma_id else model.model_id
