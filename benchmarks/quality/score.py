"""The score of a system on a set of works: MAP and MR1 with intervals by work, and the gain over another system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bytecover2_milvus.metrics import Evaluation, bootstrap_interval, mean_difference


@dataclass(frozen=True, kw_only=True)
class Score:
    set: str
    system: str
    map: float
    map_low: float  # 95 % bootstrap interval by work
    map_high: float
    mr1: float
    mr1_low: float
    mr1_high: float
    queries: int
    gain: float | None = None  # in MAP over another system, query by query
    gain_low: float | None = None  # its 95 % bootstrap interval by work
    gain_high: float | None = None


def figures(result: Evaluation, other: Evaluation | None = None) -> dict[str, Any]:
    """The fields of a `Score` that an evaluation decides, with the gain over that of another system if there is one."""
    works = result.query_work_ids
    found: dict[str, Any] = {"map": result.map, "mr1": result.mr1, "queries": result.queries}
    intervals = {
        "map": bootstrap_interval(result.average_precisions, works, seed=0),
        "mr1": bootstrap_interval(result.first_ranks, works, seed=0),
    }
    if other is not None:  # queries are in the order of track_id
        gain, *intervals["gain"] = mean_difference(result.average_precisions, other.average_precisions, works, seed=0)
        found["gain"] = gain
    for name, (low, high) in intervals.items():
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found
