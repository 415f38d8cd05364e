"""Functions that Numba compiles at their first use, compiled by one process before several need them.

Numba mixes up the files of two processes that compile at the same time. Those of librosa, which are compiled when its
modules are imported, then end every process that calls them; ours are locked, and compiled four times where four
processes begin with them. Run from the repository, after an installation::

    python -m benchmarks.compiled
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bytecover2_milvus.alignment.evidence import evidence
from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.config import SAMPLE_RATE


@cache
def compile_librosa() -> None:
    """Let librosa compile what the benchmarks use of it, or load what is compiled."""
    import librosa

    beats = np.tile(np.r_[1.0, np.zeros(21)], 20).astype(np.float32)
    librosa.beat.beat_track(onset_envelope=beats, sr=SAMPLE_RATE)
    librosa.effects.time_stretch(beats, rate=1.1, n_fft=64)


def compile_alignment() -> None:
    """Compile the alignment for chroma of two groups, or load it."""
    levels = np.random.default_rng(0).integers(0, 16, (60, 24)).astype(np.uint8)
    qmax_scores(levels, [levels])
    evidence(levels, levels, 0)


if __name__ == "__main__":
    compile_librosa()
    compile_alignment()
