"""The page of an evaluation: how well works are told apart, how far verdicts can be trusted, and the worst queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..alignment.score import expected_calibration_error, reliability
from ..second_stage.survey import BINS, Survey, precision_and_recall, works_found
from .cards import cards_page
from .charts import Tick, area, chart, dots, key, line
from .document import escape
from .mistakes import Shown, mistake_card

if TYPE_CHECKING:
    from ..metrics import Evaluation
    from ..second_stage.judgements import Thresholds

MOST_QUERIES = 50  # on the page: the worst
MOST_WORKS = 200
LOG_ODDS = 10.0  # at both ends of the charts: 1 in 20 000
SCORE_BINS = 200
ODDS_TICKS = (0.0001, 0.01, 0.5, 0.99, 0.9999)
BARS = 40  # of a distribution at most; each has several bins


@dataclass(frozen=True)
class Report:
    """An evaluation with what was seen on the way."""

    first: Evaluation  # of the vector alone
    both: Evaluation | None  # of both stages
    survey: Survey  # of `both`, or else of `first`
    thresholds: Thresholds | None = None
    worst: Sequence[Shown] = ()

    @property
    def result(self) -> Evaluation:
        """The evaluation that the report is of."""
        return self.both or self.first


def evaluation_page(report: Report, name: str, folder: Path) -> str:
    """The HTML of the page.

    Parameters
    ----------
    report : Report
    name : str
        Of the collection.
    folder : Path
        Where the page is to lie: files are named from there, so that both can be moved together.
    """
    result = report.result
    stages = "both stages" if report.both else "the vector alone"
    n_perfect = int(np.count_nonzero(result.average_precisions == 1))
    worst = f"The worst stand{'s' * (len(report.worst) == 1)} below." if report.worst else ""
    return cards_page(
        "Evaluation",
        name,
        (mistake_card(one, number, folder) for number, one in enumerate(report.worst, 1)),
        title=f"{name}: evaluation",
        summary=f"MAP {result.map:.3f} by {stages}: {result.queries:,} queries of {_number(_n_works(result), 'work')}"
        f" among {result.tracks:,} tracks",
        remark=f"{n_perfect:,} queries found all tracks of their work before any other. {worst}",
        placeholder="Title, artist, path or work_id",
        unsettled="queries that found another work first",
        searchable=bool(report.worst),
        overview="".join(_overview(report)),
        styles=("charts.css",),
    )


def _overview(report: Report) -> list[str]:
    parts = [_facts(report), _similarities(report.survey)]
    if report.survey.judge:
        scores, same = report.survey.judge.judged()
        if len(scores):
            parts.append(_verdicts(report, scores, same))
            parts.append(_calibration(scores, same))
    parts.append(_works(report.result))
    if report.worst:
        parts.append('<h2 class="part">The worst queries</h2>')
    return parts


def _facts(report: Report) -> str:
    told = []
    for name, field, form in (("MAP", "map", ".3f"), ("MR1", "mr1", ".2f"), ("P@10", "precision_at_10", ".3f")):
        alone = f" <small>vector alone {getattr(report.first, field):{form}}</small>" if report.both else ""
        told.append((name, f"{getattr(report.result, field):{form}}{alone}"))
    if report.thresholds:
        told.append(("Equal error rate", f"{100 * report.thresholds.equal_error_rate:.1f} %"))
    told.append(("Queries", f"{report.result.queries:,}"))
    return f'<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told)}</dl>'


def _similarities(survey: Survey) -> str:
    """Distributions of the cosine similarity, and what thresholds on it would give."""
    filled = np.flatnonzero(survey.same + survey.other)
    low, high = (filled[0], filled[-1] + 1) if filled.size else (0, BINS)
    same, other = survey.same[low:high], survey.other[low:high]
    ticks = _even_ticks(2 * low / BINS - 1, 2 * high / BINS - 1)
    precision, recall = precision_and_recall(same, other)
    x = np.arange(len(same)) / len(same)
    return _section(
        "Similarity of the embeddings",
        f"All pairs of a query and a track of known work: {survey.same.sum():,} of one work, {survey.other.sum():,} of"
        " different works. Each distribution has the shares of its own kind.",
        (
            _distributions("Distribution of similarities", same, other, ticks, "Cosine similarity"),
            _curves(
                "Precision and recall by similarity", x, precision, recall, ticks, "Least similarity that is accepted"
            ),
        ),
    )


def _verdicts(report: Report, scores: NDArray[np.float64], same: NDArray[np.bool_]) -> str:
    """Distributions of the probability, what thresholds on it give, and those that are worth knowing."""
    judge = report.survey.judge
    assert judge is not None
    clipped = scores.clip(-LOG_ODDS, LOG_ODDS - 1e-9)
    of_one, of_others = (
        np.histogram(clipped[kind], bins=SCORE_BINS, range=(-LOG_ODDS, LOG_ODDS))[0] for kind in (same, ~same)
    )
    ticks = [((np.log(p / (1 - p)) + LOG_ODDS) / (2 * LOG_ODDS), _percent(p)) for p in ODDS_TICKS]
    precision, recall = precision_and_recall(of_one, of_others)
    x = np.arange(SCORE_BINS) / SCORE_BINS
    recall = recall * float(same.sum()) / max(1, judge.n_same)
    table = _thresholds(report.thresholds) if report.thresholds else ""
    return _section(
        "Verdicts",
        f"The second stage judged {len(scores):,} pairs, {same.sum():,} of the {judge.n_same:,} of one work among them;"
        " the others were not found by the first stage, and no threshold accepts them.",
        (
            _distributions("Distribution of probabilities", of_one, of_others, ticks, "Probability of one work"),
            _curves("Precision and recall by probability", x, precision, recall, ticks, "Least probability accepted"),
        ),
        table,
    )


def _thresholds(verdicts: Thresholds) -> str:
    rows = [(_percent(point.probability), point.precision, point.recall) for point in verdicts.points]
    rows += [
        (f"{_percent(point.probability)}, for a precision of {precision}", point.precision, point.recall)
        for precision, point in verdicts.for_precision.items()
        if point
    ]
    cells = [[threshold, _share(precision), _share(recall)] for threshold, precision, recall in rows]
    return _table(("Least probability", "Precision", "Recall"), cells)


def _calibration(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> str:
    given = 1 / (1 + np.exp(-scores.clip(-700, 700)))
    bins = reliability(given, same)
    error = expected_calibration_error(given, same)
    points = [
        (one.probability, one.share, f"{one.pairs:,.0f} pairs were given {_percent(one.probability)} on average,"
         f" {_percent(one.share)} are of one work")
        for one in bins
    ]  # fmt: skip
    ticks = [(at, _percent(at)) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    diagonal = np.array([0.0, 1.0])
    said, shares = (np.array([getattr(one, name) for one in bins]) for name in ("probability", "share"))
    drawn = chart(
        "Share of pairs of one work by probability",
        (line(diagonal, diagonal, "even"), line(said, shares, "one")),
        ticks,
        ticks,
        "Probability that was given",
        dots(points, "one"),
    )
    cells = [
        [f"{100 * one.lower:.0f} to {_percent(one.upper)}", f"{one.pairs:,.0f}", _percent(one.probability),
         _percent(one.share)]
        for one in bins
    ]  # fmt: skip
    table = _table(("Probability", "Pairs", "Mean", "Of one work"), cells)
    return _section(
        "Calibration",
        "Of the pairs to which a probability was given, this share is of one work. Points on the dashed line are right;"
        " those above it are likelier of one work than was said. The mean difference over all pairs, most of which are"
        f" obvious, is {error:.4f}.",
        (drawn, table),
    )


def _works(result: Evaluation) -> str:
    works = works_found(result)
    counts = np.histogram([work.map for work in works], bins=10, range=(0, 1))[0]
    ticks = [(at, f"{at:g}") for at in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    top = int(counts.max())
    drawn = chart(
        "Number of works by MAP",
        (area(counts / top, "works"),),
        ticks,
        [(0.0, "0"), (1.0, f"{top:,}")],
        "MAP of the queries of a work",
    )
    n_perfect = sum(work.map == 1 for work in works)
    listed = works[:MOST_WORKS]
    cells = [[escape(work.work_id), f"{work.queries:,}", f"{work.map:.3f}", f"{work.mr1:.1f}"] for work in listed]
    which = (
        f"The {len(listed)} works that are found worst" if len(listed) < len(works) else "All works, the worst first"
    )
    table = _table(("work_id", "Queries", "MAP", "MR1"), cells)
    return _section(
        "Works",
        f"{n_perfect:,} of {_number(len(works), 'work')} have tracks that all find each other before any other track.",
        (drawn,),
        f"<details><summary>{which}</summary>{table}</details>",
    )


def _section(title: str, words: str, columns: Sequence[str], after: str = "") -> str:
    inside = "".join(f"<div>{column}</div>" for column in columns)
    return f'<section class="card"><h2>{title}</h2><p>{words}</p><div class="charts">{inside}</div>{after}</section>'


def _distributions(
    label: str, same: NDArray[np.int64], other: NDArray[np.int64], ticks: Sequence[Tick], x_name: str
) -> str:
    wide = -(-len(same) // BARS)
    same, other = (np.add.reduceat(counts, np.arange(0, len(counts), wide)) for counts in (same, other))
    one, others = (counts / max(1, counts.sum()) for counts in (same, other))
    top = max(float(one.max()), float(others.max())) or 1.0
    marks = (area(others / top, "other"), area(one / top, "one"))
    drawn = chart(label, marks, ticks, [(0.0, "0"), (1.0, _percent(top))], x_name)
    return key(("one", "of one work"), ("other", "of different works")) + drawn


def _curves(
    label: str,
    x: NDArray[np.float64],
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    ticks: Sequence[Tick],
    x_name: str,
) -> str:
    shares = [(at, _percent(at)) for at in (0.0, 0.5, 1.0)]
    marks = (line(x, precision, "one"), line(x, recall, "other"))
    return key(("one", "precision"), ("other", "recall")) + chart(label, marks, ticks, shares, x_name)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _even_ticks(low: float, high: float) -> list[Tick]:
    step = next(step for step in (0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 6 or step == 0.5)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [((i * step - low) / (high - low), f"{i * step:.2g}") for i in range(first, last + 1)]


def _n_works(result: Evaluation) -> int:
    return len(np.unique(result.query_work_ids))


def _number(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.{2 if percent < 1 else 6 if percent > 99.9 else 3}g} %"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
