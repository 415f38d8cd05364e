"""Figures on probabilities: their reliability, and the share of right matches in catalogues of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.calibration_pairs import Pairs
from bytecover2_milvus.alignment.score import ReliabilityBin, expected_calibration_error, reliability
from bytecover2_milvus.atomic import atomic_write

DRAWS = 20  # catalogues of each size


def told_of(probabilities: NDArray[np.float64], same: NDArray[np.bool_]) -> dict[str, object]:
    """The calibration of the probabilities (queries, candidates), of all pairs and of each query's nearest."""
    nearest = probabilities.argmax(axis=1)
    rows = np.arange(len(nearest))
    top, right = probabilities[rows, nearest], same[rows, nearest]
    told: dict[str, object] = {"queries": len(rows), "with_cover": int(same.any(axis=1).sum())}
    for name, p, y in (("pairs", probabilities.ravel(), same.ravel()), ("nearest", top, right)):
        bins = [tuple(round(value, 4) for value in b) for b in reliability(p, y)]
        told[name] = {"count": p.size, "ece": round(expected_calibration_error(p, y), 5), "bins": bins}
    told["nearest_accepted_right"] = int((right & (top >= 0.5)).sum())
    told["nearest_accepted_wrong"] = int((~right & (top >= 0.5)).sum())
    return told


@dataclass(frozen=True, eq=False)
class Judged:
    """Pairs of queries with their candidates (queries, candidates), and their probabilities."""

    probabilities: NDArray[np.float64]
    pairs: Pairs

    def among(self, works: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Probabilities, -1 of candidates of other works, and which pairs of those left are of one work."""
        kept = np.isin(self.pairs.work_ids, works)
        return np.where(kept, self.probabilities, -1.0), self.pairs.same & kept


def by_size(there: Judged, absent: Judged, size: int, least: float) -> dict[str, float]:
    """Shares of right verdicts in a catalogue of `size` works, at a threshold: means over draws of the works.

    Parameters
    ----------
    there : Judged
        Queries whose works are in the catalogue that they are judged in.
    absent : Judged
        Queries whose works are not.
    size : int
    least : float
        Probability from which a match is shown.
    """
    works = np.unique(there.pairs.work_ids)
    drawn = []
    for draw in range(DRAWS):
        some = np.random.default_rng(draw).permutation(works)[:size]
        found, same = there.among(some)
        asking = same.any(axis=1)
        shown, nearest = found >= least, found.argmax(axis=1)
        top = np.arange(len(found)), nearest
        strangers, _ = absent.among(some)
        drawn.append(
            {
                "recall": (shown & same)[asking].sum() / same.sum(),
                "precision": (shown & same)[asking].sum() / max(1, shown[asking].sum()),
                "nearest_right": (shown[top] & same[top])[asking].mean(),
                "absent_shown": (strangers.max(axis=1) >= least).mean(),
            }
        )
    return {name: round(float(np.mean([one[name] for one in drawn])), 4) for name in drawn[0]}


def plot(path: Path, curves: dict[str, list[ReliabilityBin]]) -> None:
    """Share of one work over probability, beside what it should be."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for name, bins in curves.items():
        axes.plot([b.probability for b in bins], [b.share for b in bins], marker="o", label=name)
        for b in bins:
            axes.annotate(
                f"{b.pairs:.0f}", (b.probability, b.share), textcoords="offset points", xytext=(6, -10), size=7
            )
    axes.set(xlabel="probability that was told", ylabel="share of one work", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right")
    FigureCanvasAgg(figure)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=120)
