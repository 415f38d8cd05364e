"""Properties of a collection: the model of its embeddings, and the cut of its tracks.

A Milvus collection has it in its properties, a Parquet file in its metadata, a `Staging` in a table, under these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..audio.segments import Segments

MODEL_ID = "bytecover2.model_id"
CONTRACT_VERSION = "bytecover2.contract_version"
CHROMA_ID = "bytecover2.chroma_id"  # of the note map whose chroma it holds; absent where there is no second stage
CHROMA_CHANNELS = "bytecover2.chroma_channels"
FULL_COHORT = "bytecover2.full_cohort"  # version of the alignment by which all statistics are of a full cohort
SEGMENT_S = "bytecover2.segment_s"  # how `ingest` cuts tracks, in seconds
HOP_S = "bytecover2.hop_s"
LAST_INGEST = "bytecover2.last_ingest"  # when one ended that stored something, UTC
PREVIOUS = "bytecover2.previous"  # the collection that the alias stood for before


class SecondStage(Protocol):
    """Whose chroma it is."""

    @property
    def chroma_id(self) -> str: ...


class EmbeddingModel(SecondStage, Protocol):
    """The facts of an `Embedder` that a collection needs."""

    @property
    def model_id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def contract_version(self) -> int: ...

    @property
    def chroma_channels(self) -> int: ...


def model_properties(model: EmbeddingModel) -> dict[str, str]:
    """Whose embeddings these are, and whose chroma, if there is any."""
    chroma = {CHROMA_ID: model.chroma_id, CHROMA_CHANNELS: str(model.chroma_channels)} if model.chroma_id else {}
    return {MODEL_ID: model.model_id, CONTRACT_VERSION: str(model.contract_version)} | chroma


def segment_properties(segments: Segments) -> dict[str, str]:
    """The cut of tracks as properties; `read_segments` reads them."""
    return {SEGMENT_S: str(segments.length_s), HOP_S: str(segments.hop_s)}


def read_segments(properties: Mapping[str, str]) -> Segments:
    """The cut of tracks; none if the properties say nothing."""
    return Segments(float(properties.get(SEGMENT_S, 0)), float(properties.get(HOP_S, 0)))
