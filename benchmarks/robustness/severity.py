"""MAP against the severity of distortions, by the vector alone and by both stages.

One command, JSON lines on stdout, a table on stderr, and a plot::

    python -m benchmarks.robustness.severity --scores SCORES --cache CACHE --plot docs/img/robustness.png

Protocol
--------
Sets and clean tracks are those of `benchmarks.quality.validation`; candidates are all clean tracks of a set. The
first track of a work (of all works, or of some by `--asking`) is a query, clean and once for every distortion and
severity of `benchmarks.robustness.distortions`, made from its samples, or played anew without its tune. The query's
own track is not among its candidates: other arrangements and performances are to be found, by what the distortion
left of this one.

The second stage is that of the validation (`benchmarks.quality.second_stage`): all candidates are aligned, both
similarities are normalised by a cohort of clean tracks of the set and combined by the verdict of the bundle.

The *loss* is relative: one minus MAP over MAP of the same queries when they are clean. Sets are weighed by their
queries. Its interval is 95 %, by bootstrap over works. What is drawn is drawn from the track_id and the name of the
distortion: a second run gives the same figures.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import (
    SONGS,
    HeldOut,
    Waveform,
    Work,
    cached,
    clean_tracks,
    held_out_options,
    in_processes,
)
from benchmarks.quality.second_stage import EQUAL_WEIGHTS, judged, similarities, verdict_of
from benchmarks.quality.validation import embedder_of, publish
from benchmarks.robustness.distortions import DISTORTIONS, MODERATE, SEVERITIES, without_middle
from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.metrics import average_precision

VECTOR, BOTH = "vector", "both stages"
CLEAN = "clean"
STORED = ("stored", "")
GOAL = 0.05  # relative loss at moderate severity, at most
RESAMPLES = 1000

What: TypeAlias = tuple[str, str]  # distortion and severity; `CLEAN` and "" for none
Sound: TypeAlias = tuple[NDArray[np.float32], NDArray[np.uint8] | None]  # embedding (D,), levels where there are any


@dataclass(frozen=True, eq=False)
class Heard:
    """The embeddings of a track: as it is stored and, of a query, clean and under every distortion."""

    set: str
    work_id: str
    track_id: str
    sounds: dict[What, Sound]


@dataclass(frozen=True)
class Score:
    """MAP of a system under one distortion, and the relative loss against clean queries."""

    distortion: str
    severity: str  # "" for clean
    value: float | None  # of the severity
    unit: str
    system: str
    map: float
    clean_map: float  # of the same queries
    loss: float
    loss_low: float
    loss_high: float
    queries: int
    sets: dict[str, float]  # MAP by set


def hear(
    job: tuple[Work, bool], kinds: Sequence[str], seconds: float | None, bundle: str, soundfont: Path, folder: Path
) -> list[Heard]:
    """Every track of a work clean, and if it asks, the first one also distorted; none of an unreadable score."""
    work, asks = job
    heard = []
    for track_id, waveform in clean_tracks(work, soundfont, folder):
        sounds = {STORED: _sound(waveform, bundle)}
        if asks and not heard:
            clean = _beginning(waveform, seconds)
            sounds[CLEAN, ""] = _sound(clean, bundle)
            for kind, severity in product(kinds, SEVERITIES):
                changed = distorted(work, track_id, clean, kind, severity, soundfont, folder)
                if changed is not None:
                    sounds[kind, severity] = _sound(changed, bundle)
        heard.append(Heard(work.set, work.work_id, track_id, sounds))
    return heard


def _beginning(waveform: Waveform, seconds: float | None) -> Waveform:
    return waveform if seconds is None else waveform[: round(seconds * SAMPLE_RATE)]


def distorted(
    work: Work, track_id: str, clean: Waveform, kind: str, severity: str, soundfont: Path, folder: Path
) -> Waveform | None:
    """The first track of a work under a distortion; None where it cannot be had of this one."""
    distortion = DISTORTIONS[kind]
    value = distortion.steps[SEVERITIES.index(severity)]
    if distortion.change:
        return distortion.change(clean, value, np.random.default_rng(zlib.crc32(f"{track_id} {kind}".encode())))
    if isinstance(work.source, tuple):
        return None
    longest_s = len(clean) / SAMPLE_RATE
    make = partial(without_middle, work, 0, value, soundfont, longest_s)
    return cached(folder / track_id / f"{kind} {value:g}, {longest_s:.3f} s.flac", make)


def _sound(waveform: Waveform, bundle: str) -> Sound:
    embedding, chroma = embedder_of(bundle)(waveform)
    return embedding, None if chroma is None else to_levels(chroma)


def precisions(
    heard: Sequence[Heard], verdict: Verdict = EQUAL_WEIGHTS
) -> dict[tuple[What, str], dict[tuple[str, str], float]]:
    """The average precisions of one set, by distortion and system, then by work_id and track_id of the query."""
    vectors = np.stack([track.sounds[STORED][0] for track in heard])
    levels = [track.sounds[STORED][1] for track in heard]
    staged = all(one is not None for one in levels)
    if not staged:
        levels = [np.zeros((0, 0), np.uint8) for _ in levels]
    track_ids = [track.track_id for track in heard]
    among = similarities(vectors, levels, vectors, levels) if staged else None
    found: dict[tuple[What, str], dict[tuple[str, str], float]] = {}
    for what in dict.fromkeys(what for track in heard for what in track.sounds if what != STORED):
        asking = [i for i, track in enumerate(heard) if what in track.sounds]
        sounds = [heard[i].sounds[what] for i in asking]
        queries = np.stack([embedding for embedding, _ in sounds])
        scores = {VECTOR: queries @ vectors.T}
        if among is not None:
            known = [one for _, one in sounds if one is not None]
            asked = similarities(queries, known, vectors, levels)
            frames = np.minimum.outer([len(one) for one in known], [len(one) for one in levels])
            scores[BOTH] = judged(asked, among, frames, track_ids, verdict, asking)[1]
        for system, of_queries in scores.items():
            found[what, system] = {
                (heard[i].work_id, heard[i].track_id): _precision(row, i, heard)
                for i, row in zip(asking, of_queries, strict=True)
                if sum(track.work_id == heard[i].work_id for track in heard) > 1
            }
    return found


def _precision(scores: NDArray[np.floating], query: int, heard: Sequence[Heard]) -> float:
    others = [i for i in range(len(heard)) if i != query]
    relevant = np.array([heard[i].work_id == heard[query].work_id for i in others])
    return average_precision(scores[others], relevant)


def scores_of(heard: Sequence[Heard], verdict: Verdict = EQUAL_WEIGHTS) -> Iterator[Score]:
    """All scores over all sets, clean first."""
    by_set = {
        name: precisions([track for track in heard if track.set == name], verdict)
        for name in dict.fromkeys(track.set for track in heard)
    }
    for what, system in dict.fromkeys(key for found in by_set.values() for key in found):
        names = [name for name, found in by_set.items() if (what, system) in found]
        own = {name: by_set[name][what, system] for name in names}
        clean = {name: by_set[name][(CLEAN, ""), system] for name in names}
        pairs = {
            name: np.array([[own[name][query], clean[name][query]] for query in own[name]]) for name in names
        }  # (n_queries, 2): average precisions, distorted and clean
        both = np.concatenate(list(pairs.values()))
        works = [f"{name}/{work_id}" for name in names for work_id, _ in own[name]]
        kind, severity = what
        distortion = DISTORTIONS.get(kind)
        yield Score(
            distortion=kind,
            severity=severity,
            value=distortion.steps[SEVERITIES.index(severity)] if distortion else None,
            unit=distortion.unit if distortion else "",
            system=system,
            map=float(both[:, 0].mean()),
            clean_map=float(both[:, 1].mean()),
            loss=_loss(both),
            **dict(zip(("loss_low", "loss_high"), loss_interval(both, works, seed=0), strict=True)),
            queries=len(both),
            sets={name: round(float(values[:, 0].mean()), 4) for name, values in pairs.items()},
        )


def _loss(pairs: NDArray[np.float64]) -> float:
    return float(1 - pairs[:, 0].sum() / pairs[:, 1].sum())


def loss_interval(pairs: NDArray[np.float64], works: Sequence[str], seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the relative loss when works are drawn with replacement.

    Parameters
    ----------
    pairs : np.ndarray [shape=(n_queries, 2)]
        Average precisions of each query, distorted and clean.
    works : sequence of str, length n_queries
    seed : int
    """
    _, work = np.unique(np.asarray(works), return_inverse=True)
    sums = np.stack([np.bincount(work, weights=column) for column in pairs.T], axis=1)  # (n_works, 2)
    rng = np.random.default_rng(seed)
    drawn = np.array([sums[rng.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(RESAMPLES)])
    low, high = np.percentile(1 - drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def measure(
    held_out: HeldOut, kinds: Sequence[str], asking: int | None, seconds: float | None, bundle: str, workers: int
) -> list[Score]:
    """The scores of a bundle over all works, by set; of each set, `asking` works ask, or all."""
    audio = {"soundfont": held_out.soundfont, "folder": held_out.folder}
    job = partial(hear, kinds=kinds, seconds=seconds, bundle=bundle, **audio)
    jobs: list[tuple[Work, bool]] = []
    for some in map(held_out.works_of, held_out.names):
        asks = set(np.linspace(0, len(some) - 1, min(asking or len(some), len(some))).round().astype(int).tolist())
        jobs += [(work, i in asks) for i, work in enumerate(some)]
    return list(
        scores_of([track for tracks in in_processes(job, jobs, workers) for track in tracks], verdict_of(bundle))
    )


def markdown(scores: Sequence[Score]) -> str:
    """A table for people: a row per distortion, and per severity its value and the relative loss of each system."""
    of = {(score.distortion, score.severity, score.system): score for score in scores}
    systems = list(dict.fromkeys(score.system for score in scores))
    clean = ", ".join(f"{system} {of[CLEAN, '', system].map:.3f}" for system in systems)
    heads = [f"{severity}: {', '.join(systems)}" for severity in SEVERITIES]
    lines = [
        f"MAP of {of[CLEAN, '', systems[0]].queries} clean queries: {clean}.",
        "",
        f"| distortion | in | {' | '.join(heads)} |",
        "|---|---|" + "---|" * len(heads),
    ]
    for kind in dict.fromkeys(score.distortion for score in scores if score.severity):
        cells = [kind, of[kind, MODERATE, systems[0]].unit]
        for severity in SEVERITIES:
            rows = [of[kind, severity, system] for system in systems]
            cells.append(f"{rows[0].value:g}: {', '.join(_told(row) for row in rows)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _told(score: Score) -> str:
    """The loss with its interval in per cent; bold where a moderate one is above the goal."""
    loss, low, high = (round(100 * value) for value in (score.loss, score.loss_low, score.loss_high))
    told = f"{loss} %"
    if score.severity == MODERATE and score.loss > GOAL:
        told = f"**{told}**"
    return f"{told} [{low}, {high}]"


def plot(path: Path, scores: Sequence[Score]) -> None:
    """MAP over severity, a panel per distortion; the goal is marked at moderate severity."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    of = {(score.distortion, score.severity, score.system): score for score in scores}
    systems = list(dict.fromkeys(score.system for score in scores))
    kinds = list(dict.fromkeys(score.distortion for score in scores if score.severity))
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.2 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        for system, colour in zip(systems, ("tab:blue", "tab:orange"), strict=False):
            curve = [of[kind, severity, system] for severity in SEVERITIES]
            panel.plot(
                range(1 + len(curve)),
                [curve[0].clean_map, *(score.map for score in curve)],
                marker="o",
                color=colour,
                label=system,
            )
            panel.plot([1.75, 2.25], [(1 - GOAL) * curve[1].clean_map] * 2, color=colour, linestyle=":", linewidth=2)
        values = [f"{of[kind, severity, systems[0]].value:g}" for severity in SEVERITIES]
        panel.set_xticks(range(1 + len(values)), [CLEAN, *values])
        panel.axvspan(1.75, 2.25, color="0.92")
        panel.set(title=kind, ylim=(0, 1))
        panel.set_xlabel(of[kind, MODERATE, systems[0]].unit, fontsize=7)
    for panel in panels[len(kinds) :]:
        panel.set_axis_off()
    panels[0].legend(loc="lower left", fontsize=8)
    figure.supylabel("MAP")
    FigureCanvasAgg(figure)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110)


@click.command()
@held_out_options(works=20, required=False, of=SONGS)
@click.option("--bundle", default="", help="Exported model; the default is the one that ships.")
@click.option(
    "--distortions", "kinds", multiple=True, type=click.Choice(list(DISTORTIONS)), default=list(DISTORTIONS),
    help="By default all.",
)  # fmt: skip
@click.option("--asking", type=click.IntRange(2), help="Works of each set whose first track asks; by default all.")
@click.option("--seconds", type=click.FloatRange(5), help="Of a query, from its beginning; by default all of it.")
@click.option("--markdown", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to a file.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw.")
@click.option("--workers", type=click.IntRange(1), default=usable_cores(), show_default="all cores")
def main(
    held_out: HeldOut,
    bundle: str,
    kinds: tuple[str, ...],
    asking: int | None,
    seconds: float | None,
    table: Path | None,
    plot_path: Path | None,
    workers: int,
) -> None:
    """Measure what is still found when queries are distorted, by kind and severity."""
    scores = measure(held_out, kinds, asking, seconds, bundle, workers)
    publish(scores, markdown(scores), table)
    if plot_path:
        plot(plot_path, scores)


if __name__ == "__main__":
    main()
