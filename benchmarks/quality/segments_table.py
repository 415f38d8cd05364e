"""The results of the benchmark of segments: a score of each way to store tracks, and all of them as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Length: TypeAlias = float | None  # of a query in seconds; None is the whole track


@dataclass(frozen=True)
class Score:
    """A way to store tracks, on queries of one length."""

    set: str
    segment_s: float  # 0: whole tracks only
    hop_s: float
    query_s: Length
    query_cut: bool  # the query asks with its segments too
    map: float
    map_low: float
    map_high: float
    mr1: float
    gain: float  # of MAP over whole-track rows
    gain_low: float
    gain_high: float
    own_first: float
    queries: int
    candidates: int
    rows_per_track: float
    query_rows: float  # embeddings that a query is asked with
    embed_track_cpu_ms: float
    embed_query_cpu_ms: float
    catalogue_rows: int
    search_ms: float
    search_cpu_ms: float


def markdown(scores: Sequence[Score]) -> str:
    """Two tables for people: what is found, and what it costs."""

    def rows(score: Score) -> str:
        cut = f"{score.segment_s:g} s every {score.hop_s:g} s" if score.segment_s else "whole"
        return f"{cut}, query too" if score.query_cut else cut

    def query(score: Score) -> str:
        return "whole" if score.query_s is None else f"{score.query_s:g} s"

    lines = []
    for name in dict.fromkeys(score.set for score in scores):
        those = [score for score in scores if score.set == name]
        queries = list(dict.fromkeys(map(query, those)))
        lines += [
            f"{name}: {those[0].queries} queries, {those[0].candidates} candidates each",
            "",
            "| query | rows | MAP | gain | MR1 | own first |",
            "|---|---|---|---|---|---|",
        ]
        for row in sorted(those, key=lambda score: (queries.index(query(score)), score.query_cut)):
            score = f"{row.map:.3f} [{row.map_low:.3f}, {row.map_high:.3f}]"
            gain = f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]" if row.segment_s else ""
            lines.append(
                f"| {query(row) if not row.segment_s else ''} | {rows(row)} "
                f"| {score} | {gain} | {row.mr1:.1f} | {row.own_first:.2f} |"
            )
        lines += [
            "",
            f"| rows | of a track | in all | embed a track, ms | {' | '.join(f'search {q}, ms' for q in queries)} |",
            f"|---|---|---|---|{'---|' * len(queries)}",
        ]
        for kind in dict.fromkeys(map(rows, those)):
            its = {query(score): score for score in those if rows(score) == kind}
            row = next(iter(its.values()))
            times = [f"{its[q].search_ms:.1f} ({its[q].search_cpu_ms:.1f})" if q in its else "" for q in queries]
            lines.append(
                f"| {kind} | {row.rows_per_track:.1f} | {row.catalogue_rows} | {row.embed_track_cpu_ms:.0f} "
                f"| {' | '.join(times)} |"
            )
        lines.append("")
    return "\n".join(lines)
