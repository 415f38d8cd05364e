"""Rows and embeddings of invented tracks, and texts that break carelessly quoted filters."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.milvus.schema import Row

DIM = 128


def a_model(model_id: str, dim: int = DIM) -> SimpleNamespace:
    return SimpleNamespace(model_id=model_id, dim=dim, contract_version=1, chroma_id="", chroma_channels=0)


MODEL = a_model("a1b2")


NASTY = [
    "Don't stop",
    'say "when"',
    "C:\\music\\x.mp3",
    "ends in a backslash\\",
    "two\nlines\tand a tab",
    "Für Elise 🎹",
    "שיר השירים",
    "%_{x} or true",
    "'] or id != '",
    "\\u0041",
]


def unit_vectors(n: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((n, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def row(number: int, **values: object) -> Row:
    whole = {"duration_s": 200.0, "start_s": 0.0, "end_s": 200.0}
    content_hash = hashlib.sha256(str(number).encode()).hexdigest()
    return Row(**({"track_id": f"track-{number}", "content_hash": content_hash} | whole | values))


ROWS = [
    row(number, work_id=f"work-{number // 5}" if number < 250 else "", path=f"/music/{number}.flac", size=number)
    for number in range(300)
]  # 50 works of 5 tracks, 50 tracks without a work


EMBEDDINGS = unit_vectors(300, seed=0)


ESCAPES = [
    'size < 3) or (id != ""',
    "size < 3) or size >= 0 or (size < 3",
    'size < 3) or title == "(" or (size < 0',
    "title == '\\\\') or size >= 0 or (title == '",
    'title == "x" "',
    "((size < 3)",
    "title == 'two\nlines'",
    "size < 3 size < 300",
    "size < 3 # or",
]
