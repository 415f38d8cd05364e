"""Charts as SVG that fits any width: lines are stretched, texts are not; colours are those of ``charts.css``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .document import escape

Tick = tuple[float, str]  # the place from 0 to 1, and its label


def chart(
    label: str, marks: Iterable[str], x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_name: str, points: str = ""
) -> str:
    """The HTML of a chart.

    Parameters
    ----------
    label : str
        For those who do not see it, plain text.
    marks : iterable of str
        SVG in a square of 100 by 100, y downwards, from `area` and `line`.
    x_ticks, y_ticks : sequences of Tick
    x_name : str
        Of the axis, plain text.
    points : str
        SVG that is not stretched, from `dots`.
    """
    texts = [
        f'<text x="{100 * at:.2f}%" y="100%" dy="1.3em" class="{_edge(at)}">{escape(word)}</text>'
        for at, word in x_ticks
    ]
    texts += [
        f'<text x="-6" y="{100 - 100 * at:.2f}%" dy=".35em" class="up">{escape(word)}</text>' for at, word in y_ticks
    ]
    grid = "".join(f'<path class="grid" d="M0 {100 - 100 * at:.2f}H100"/>' for at, _ in y_ticks)
    return (
        f'<figure class="chart"><svg role="img" aria-label="{escape(label)}">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{grid}{"".join(marks)}</svg>'
        f"{points}{''.join(texts)}</svg><figcaption>{escape(x_name)}</figcaption></figure>"
    )


def area(heights: NDArray[np.floating], kind: str) -> str:
    """A filled outline of bars of equal width, side by side; heights (n,) from 0 to 1."""
    steps = "".join(
        f"V{100 - 100 * height:.2f}H{100 * (i + 1) / len(heights):.3f}" for i, height in enumerate(heights.tolist())
    )
    return f'<path class="area {kind}" d="M0 100{steps}V100Z"/>'


def line(x: NDArray[np.floating], y: NDArray[np.floating], kind: str) -> str:
    """A line through points (n,) from 0 to 1; those whose y is NaN are left out."""
    there = ~np.isnan(y)
    if not there.any():
        return ""
    points = " ".join(f"{100 * a:.2f},{100 - 100 * b:.2f}" for a, b in zip(x[there], y[there], strict=True))
    return f'<polyline class="line {kind}" points="{points}"/>'


def dots(points: Iterable[tuple[float, float, str]], kind: str) -> str:
    """Round marks at x and y from 0 to 1, each with a plain text that appears over it."""
    return "".join(
        f'<circle class="{kind}" cx="{100 * x:.2f}%" cy="{100 - 100 * y:.2f}%" r="5">'
        f"<title>{escape(text)}</title></circle>"
        for x, y, text in points
    )


def key(*entries: tuple[str, str]) -> str:
    """The key of a chart: kinds and their names."""
    return (
        '<p class="key">'
        + " ".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in entries)
        + "</p>"
    )


def _edge(at: float) -> str:
    return "first" if at < 0.03 else "last" if at > 0.97 else ""
