"""The results of the validation: a score of each system on each set and condition, and all of them as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quality.score import Score

SHIPPED = "bundle that ships"
RANDOM, FLOOR = "random", "2-D Fourier of chroma"  # systems that are always there, or need no training


@dataclass(frozen=True, kw_only=True)
class ConditionScore(Score):
    """On queries under one condition; gains are those over the first system."""

    condition: str
    precision_at_10: float
    candidates: int


def markdown(scores: Sequence[ConditionScore]) -> str:
    """A table for people: a row per set and condition, of each system MAP and MR1 with their intervals.

    Gains are those over the first system, of all but the floor; P@10 is the last one's.
    """
    of = {(row.set, row.condition, row.system): row for row in scores}
    systems = [system for system in dict.fromkeys(row.system for row in scores) if system != RANDOM]
    *others, last = [system for system in systems if system != FLOOR] or systems
    gaining = [*others, last][1:]
    columns = ["set", "query", *systems, *(f"gain of {system}" for system in gaining), "P@10"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    previous = ""
    for name, condition in dict.fromkeys((row.set, row.condition) for row in scores):
        row, random = of[name, condition, last], of[name, "whole", RANDOM]
        candidates = (
            f"{name}: {row.queries} queries, {row.candidates} candidates; random {random.map:.3f} / {random.mr1:.1f}"
        )
        cells = [candidates if name != previous else "", condition]
        for found in (of[name, condition, system] for system in systems):
            cells.append(
                f"{found.map:.3f} [{found.map_low:.3f}, {found.map_high:.3f}] / "
                f"{found.mr1:.1f} [{found.mr1_low:.1f}, {found.mr1_high:.1f}]"
            )
        for found in (of[name, condition, system] for system in gaining):
            cells.append(f"{found.gain:+.3f} [{found.gain_low:+.3f}, {found.gain_high:+.3f}]")
        lines.append(f"| {' | '.join(cells)} | {row.precision_at_10:.3f} |")
        previous = name
    return "\n".join(lines) + "\n"
