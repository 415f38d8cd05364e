"""A query, a cover of it and thirty strangers: tunes with chroma, embeddings and verdicts by hand."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from written_tune import Notes, chroma_of, slower, tune

from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.alignment.score import Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.milvus.cohort import BACKGROUNDS, Cohort, CohortTrack
from bytecover2_milvus.milvus.schema import Row

VERDICT = Verdict(BACKGROUNDS, Calibration((0.4, 0.9), -6.8), Calibration((0.8,), -6.9), "nothing: weights by hand")


N = 30  # strangers


QUERY = [*tune(2, 15), *tune(1, 50), *tune(3, 10)]


COVER = [*tune(4, 10), *slower(tune(1, 50, transposition=3), 0.8), *tune(5, 20)]


def row(name: str, duration_s: float) -> Row:
    return Row(name, hashlib.sha256(name.encode()).hexdigest(), duration_s, 0.0, duration_s, title=name.title())


def chroma(notes: Notes, seed: int) -> NDArray[np.float32]:
    """As it is stored: (n_frames, 24)."""
    return chroma_of(notes, seed)[:, :24]


def near_query(similarity: float, seed: int) -> NDArray[np.float32]:
    """A random unit vector with this similarity to the query, and of a standard deviation of 0.09 to others."""
    vector = np.random.default_rng(seed).standard_normal(128).astype(np.float32)
    vector[0] = 0
    vector *= np.sqrt(1 - similarity**2) / np.linalg.norm(vector)
    vector[0] = similarity
    return vector


# Strangers resemble the query a little more each.
STRANGERS = [(f"stranger {i:02}", near_query(0.01 * i, i), to_levels(chroma(tune(1000 + i, 70), i))) for i in range(N)]


COHORT = Cohort(
    (CohortTrack(row(name, 1.0).id, name, vector, levels) for name, vector, levels in STRANGERS[:20]), BACKGROUNDS
)
