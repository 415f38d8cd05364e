"""Cover-song identification: ByteCover2 embeddings in ONNX Runtime, searched in Milvus.

``import bytecover2_milvus`` is light; onnxruntime and pymilvus are imported when a name that needs them is first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio import load_audio
    from .collection import Match, TrackCollection
    from .embedder import Embedder
    from .embedding_function import ByteCover2EmbeddingFunction
    from .errors import BytecoverError
    from .manifest import Track, read_manifest
    from .mapped import FieldMap, MappedCollection
    from .milvus import connected
    from .segments import Query, Segments, embed_query

__version__ = "0.1.0"

# ONNX Runtime reads it once, when it is imported: it would keep an identifier of the machine and send what it notes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "ByteCover2EmbeddingFunction": "embedding_function",
    "BytecoverError": "errors",
    "Embedder": "embedder",
    "FieldMap": "mapped",
    "MappedCollection": "mapped",
    "Match": "collection",
    "Query": "segments",
    "Segments": "segments",
    "Track": "manifest",
    "TrackCollection": "collection",
    "connected": "milvus",
    "embed_query": "segments",
    "load_audio": "audio",
    "read_manifest": "manifest",
}
__all__ = [
    "ByteCover2EmbeddingFunction",
    "BytecoverError",
    "Embedder",
    "FieldMap",
    "MappedCollection",
    "Match",
    "Query",
    "Segments",
    "Track",
    "TrackCollection",
    "__version__",
    "connected",
    "embed_query",
    "load_audio",
    "read_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
