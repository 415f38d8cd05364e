"""The results of the ablation: the paper's table, the differences query by query, and MAP over D as table and plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.metrics import mean_difference

TABLE_DIMS = (128, 1536)  # of the paper's table
REDUCTIONS = {  # the name of the system to D dimensions; the first three are the paper's
    "FC": "ByteCoverFC-{}",
    "PCA": "ByteCoverPCA-{}",
    "PCA-FC": "ByteCover2-{}",
    "PCA-FC's start": "ByteCover2-{}, untrained",
    "whitened PCA": "ByteCoverPCA-{}, whitened",
    "whitened PCA-FC": "ByteCover2-{}, whitened",
}
TRAINED = ("FC", "PCA-FC", "whitened PCA-FC")
TRAINED_ON = None  # stands for ByteCover trained on
COMPARED = (
    *(("PCA-FC", "PCA"), ("PCA", "FC"), ("PCA-FC", TRAINED_ON)),  # the paper's order
    *(("PCA-FC", "PCA-FC's start"), ("whitened PCA-FC", "whitened PCA")),  # what training alone does
    *(("whitened PCA", "PCA"), ("whitened PCA-FC", TRAINED_ON)),
)


@dataclass(frozen=True)
class Score:
    system: str
    reduction: str | None
    dim: int
    further_steps: int  # that everything was trained for after the checkpoint
    map: float
    map_low: float  # 95 % bootstrap interval by work
    map_high: float
    mr1: float
    precision_at_10: float
    queries: int
    works: int
    average_precisions: list[float] = field(repr=False)  # (queries,), for comparisons query by query
    query_work_ids: list[str] = field(repr=False)

    def summary(self) -> dict[str, object]:
        """All but the values of every query."""
        return {
            name: value for name, value in asdict(self).items() if name not in ("average_precisions", "query_work_ids")
        }


@dataclass(frozen=True)
class Comparison:
    """By how much the MAP of one system is above another's, on the same queries."""

    system: str
    against: str
    difference: float
    low: float  # 95 % bootstrap interval by work
    high: float


def comparisons(scores: Sequence[Score]) -> list[Comparison]:
    """The pairs of `COMPARED` at every dimension."""
    by_system = {(score.reduction, score.dim): score for score in scores if score.reduction}
    trained_on = next(score for score in scores if score.reduction is None and score.further_steps)
    found = []
    for dim in sorted({dim for _, dim in by_system}):
        for compared in COMPARED:
            one, other = (trained_on if name is TRAINED_ON else by_system[name, dim] for name in compared)
            difference = mean_difference(one.average_precisions, other.average_precisions, one.query_work_ids, seed=0)
            found.append(Comparison(one.system, other.system, *difference))
    return found


def table_markdown(scores: Sequence[Score], found: Sequence[Comparison]) -> str:
    """The paper's table, the order query by query, and MAP over D."""
    steps = max(score.further_steps for score in scores)
    lines = [
        f"{scores[0].works} works, {scores[0].queries} queries. What is trained had {steps} joint steps after the "
        "frozen phase. Intervals are 95 %, bootstrapped by work.",
        "",
        "| system | MAP | 95 % | MR1 | P@10 |",
        "|---|---|---|---|---|",
    ]
    paper = [score for score in scores if score.reduction is None or score.dim in TABLE_DIMS]
    lines += [
        f"| {score.system} | {score.map:.3f} | {score.map_low:.3f}-{score.map_high:.3f} | {score.mr1:.1f} "
        f"| {score.precision_at_10:.3f} |"
        for score in paper
    ]
    named = {score.system for score in paper}
    lines += ["", "| difference in MAP, query by query | | 95 % |", "|---|---|---|"]
    lines += [
        f"| {line.system} minus {line.against} | {line.difference:+.3f} | {line.low:+.3f} to {line.high:+.3f} |"
        for line in found
        if {line.system, line.against} <= named
    ]
    lines += ["", f"| MAP by D | {' | '.join(REDUCTIONS)} |", f"|---|{'---|' * len(REDUCTIONS)}"]
    reduced = {(score.reduction, score.dim): score for score in scores if score.reduction}
    for dim in sorted({dim for _, dim in reduced}):
        lines.append(f"| {dim} | {' | '.join(f'{reduced[name, dim].map:.3f}' for name in REDUCTIONS)} |")
    return "\n".join(lines) + "\n"


def plot(scores: Sequence[Score], path: Path) -> None:
    """MAP over D: a curve with its interval for every reduction, a line for ByteCover."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, reduction in enumerate(REDUCTIONS):
        curve = sorted((score for score in scores if score.reduction == reduction), key=lambda score: score.dim)
        dims = [score.dim for score in curve]
        axes.plot(dims, [score.map for score in curve], marker="o", color=f"C{index}", label=reduction)
        low, high = ([getattr(score, end) for score in curve] for end in ("map_low", "map_high"))
        axes.fill_between(dims, low, high, color=f"C{index}", alpha=0.1, linewidth=0)
    for score, style in zip([score for score in scores if score.reduction is None], (":", "--"), strict=True):
        axes.axhline(score.map, color="black", linestyle=style, label=score.system)
    axes.set_xscale("log", base=2)
    dims = sorted({score.dim for score in scores})
    axes.set_xticks(dims, [str(dim) for dim in dims], minor=False)
    axes.set_xlabel("dimensions of the embedding")
    axes.set_ylabel("MAP")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=150)
