"""The cost of the second stage: milliseconds per pair and per query, beside other ways; memory; bytes per track.

pair
    Two tracks of four minutes (520 frames) of twelve channels, in both transpositions: `qmax_scores`, the same in
    NumPy, and librosa's `sequence.rqa` on the recurrence that NumPy found (the dynamic programme compiled by Numba).
    All give one score, or the benchmark stops.
query
    A query and its candidates in one call, with 12 and with 24 channels.
evidence
    The path of the pair, with its recurrence matrix.
memory
    How much the process grows by aligning two tracks of an hour (Linux).
bytes
    Of a track of four minutes in the collection, 12 and 24 channels: packed into four bits, and what eight would take.

Ways take turns, and each figure is the least of all turns in processor time, so that a busy machine changes it little.
Prints JSON lines. Run from the repository, on one core::

    taskset --cpu-list 0 python -m benchmarks.speed.rerank
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import click
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.machine import processor
from benchmarks.speed.inference import take_turns
from bytecover2_milvus.alignment.chroma import pack, to_levels
from bytecover2_milvus.alignment.evidence import evidence
from bytecover2_milvus.alignment.qmax import Qmax, qmax_scores

FRAMES = 520  # four minutes of frames of 0.464 s
HOUR = 7_759  # frames


def track(n_frames: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Levels as of music: notes of a key that last some frames, and a tune of 300 frames that all tracks share."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(0)
    chroma = rng.random((n_frames, channels)) * 0.5
    pitches = np.array([0, 0, 0, 2, 4, 4, 5, 7, 7, 7, 9, 11])
    for group in range(0, channels, 12):
        notes = np.repeat(rng.choice(pitches, n_frames), rng.integers(1, 5, n_frames))[:n_frames]
        tune = np.repeat(shared.choice(pitches, 100), 3)[: n_frames // 2]
        notes[n_frames // 4 : n_frames // 4 + len(tune)] = tune
        chroma[np.arange(n_frames), group + (notes + seed) % 12] = 1
    return to_levels(chroma)


def numpy_recurrences(
    query: NDArray[np.uint8], candidate: NDArray[np.uint8], parameters: Qmax
) -> list[NDArray[np.bool_]]:
    """The recurrence matrices of both transpositions, thresholds by partial sorting."""
    profiles = [levels.sum(axis=0, dtype=np.int64) for levels in (query, candidate)]
    products = [np.roll(profiles[0], semitones) @ profiles[1] for semitones in range(12)]
    y = _windows(candidate, parameters.embedding)
    found = []
    for semitones in np.argsort(products)[-2:]:
        x = _windows(np.roll(query, semitones, axis=1), parameters.embedding)
        squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * (x @ y.T)  # float32 holds these exactly
        rows, columns = (max(1, int(parameters.kappa * side)) for side in squared.shape[::-1])
        # Fewer than k + 1 are nearer than the next one: those that tie with it are none of the k.
        near = squared < np.partition(squared, rows, axis=1)[:, rows, None]
        found.append(near & (squared < np.partition(squared, columns, axis=0)[columns]))
    return found


def _windows(levels: NDArray[np.uint8], embedding: int) -> NDArray[np.float32]:
    windows = sliding_window_view(levels.astype(np.float32), embedding, axis=0)
    return windows.reshape(len(windows), -1)


def numpy_maximum(recurrence: NDArray[np.bool_], parameters: Qmax) -> float:
    """The maximum of Q, a row at a time."""
    n, m = recurrence.shape
    q = np.zeros((n + 2, m + 2))
    p = np.zeros((n + 2, m + 2))
    for i, near in enumerate(recurrence, start=2):
        gain = np.maximum(np.maximum(q[i - 1, 1:-1], q[i - 1, :-2]), q[i - 2, 1:-1]) + 1
        loss = np.maximum(np.maximum(p[i - 1, 1:-1], p[i - 1, :-2]), p[i - 2, 1:-1])
        q[i, 2:] = np.where(near, gain, np.maximum(loss, 0))
        p[i, 2:] = q[i, 2:] - np.where(near, parameters.onset, parameters.extension)
    return float(q.max())


def librosa_maximum(recurrence: NDArray[np.bool_], parameters: Qmax) -> float:
    from librosa.sequence import rqa

    penalties = {"gap_onset": parameters.onset, "gap_extend": parameters.extension}
    return float(rqa(recurrence.astype(np.float32), **penalties, backtrack=False).max())


def score_by(
    maximum: Callable[[NDArray[np.bool_], Qmax], float],
    query: NDArray[np.uint8],
    candidate: NDArray[np.uint8],
    parameters: Qmax,
) -> float:
    """The score of a pair by one of the other ways."""
    longest = max(maximum(recurrence, parameters) for recurrence in numpy_recurrences(query, candidate, parameters))
    return longest / (len(query) * len(candidate)) ** 0.25


MEMORY = """
import sys
from pathlib import Path
from benchmarks.speed.rerank import track
from bytecover2_milvus.alignment.qmax import qmax_scores

def peak_kib():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

query, candidate = track(int(sys.argv[1]), 12, 1), track(int(sys.argv[1]), 12, 2)
qmax_scores(query[:60], [candidate[:60]])
Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
before = peak_kib()
qmax_scores(query, [candidate])
print((peak_kib() - before) / 1024)
"""


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="Length of each comparison.")
@click.option("--candidates", default=100, show_default=True, type=click.IntRange(1))
@click.option("--frames", default=FRAMES, show_default=True, type=click.IntRange(30), help="Of each track.")
def main(seconds: float, candidates: int, frames: int) -> None:
    """Measure the alignment beside a plain implementation and librosa's."""
    parameters = Qmax()
    query, candidate = track(frames, 12, 1), track(frames, 12, 2)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: qmax_scores(query, [candidate]),
        "numpy": partial(score_by, numpy_maximum, query, candidate, parameters),
        "librosa": partial(score_by, librosa_maximum, query, candidate, parameters),
    }
    scores = {name: float(np.squeeze(way())) for name, way in ways.items()}
    if not np.allclose(list(scores.values()), scores["ours"]):
        raise click.ClickException(f"the ways differ in their score: {scores}")
    ms = {name: 1e3 * spent["cpu_s"] for name, spent in take_turns(ways, seconds).items()}
    ratios = {name: spent / ms["ours"] for name, spent in ms.items()}
    _print("pair", frames=frames, score=scores["ours"], ms=ms, times_ours=ratios, processor=processor())

    queries = {}
    for channels in (12, 24):
        asked, others = track(frames, channels, 1), [track(frames, channels, 2 + i) for i in range(candidates)]
        queries[str(channels)] = partial(qmax_scores, asked, others)
    per_query = {name: 1e3 * spent["cpu_s"] for name, spent in take_turns(queries, seconds).items()}
    _print("query", candidates=candidates, ms_by_channels=per_query)

    least = take_turns({"evidence": lambda: evidence(query, candidate)}, seconds / 4)
    _print("evidence", ms=1e3 * least["evidence"]["cpu_s"])

    grown = subprocess.run([sys.executable, "-c", MEMORY, str(HOUR)], capture_output=True, text=True, check=True).stdout
    _print("memory", frames=HOUR, grown_mib=float(grown))

    stored = {str(channels): len(pack(track(frames, channels, 1))) for channels in (12, 24)}
    _print("bytes", four_bits=stored, eight_bits={channels: 2 * size for channels, size in stored.items()})


def _print(what: str, **figures: object) -> None:
    click.echo(json.dumps({"what": what, **figures}))


if __name__ == "__main__":
    main()
