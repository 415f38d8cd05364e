"""Calibrates the second stage of a bundle on works held out of training, and says how true its probabilities are.

One command, JSON lines on stdout, a plot, and ``calibration.json`` in the bundle::

    python -m benchmarks.quality.calibration --scores SCORES --bundle BUNDLE --plot docs/img/reliability.png --write

Protocol
--------
Works of `held_out` are halved, every other one of each set. The clean tracks of a half are a catalogue. Each of them is
a query of its own half, as it is, degraded, and as excerpts of 45 and of 20 seconds; its own track is no candidate.
The 100 candidates that are closest by the vector are aligned and normalised as by
`bytecover2_milvus.second_stage.rerank`: tracks by a cohort of 40, queries by 20 of these. These pairs of the first half
fit the regression; pairs of the second half, of works that fitted nothing, say how well it is calibrated: in bins of
probability, and by the expected calibration error (ECE). As most pairs are obvious, the same is told of the nearest
match of each query alone.

The more candidates there are, the likelier one of them is above a threshold by chance: the clean and degraded queries
are judged again in catalogues of fewer works, `DRAWS` of each size. What is told of a size are means over the draws:
recall and precision of pairs, the share of queries whose nearest match is right and shown, and the share of queries of
the first half, whose works are not there, that are shown something.

What is not in a catalogue should find nothing there: all queries of the first half in the second catalogue, noise, a
lone sine, and speech (of espeak-ng, where it is installed).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOut, Work, held_out_options, in_processes
from benchmarks.quality.stored import bundle_option
from benchmarks.quality.validation import Heard, hear
from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.alignment.qmax import Qmax, qmax_scores
from bytecover2_milvus.alignment.score import (
    Background,
    Calibration,
    ReliabilityBin,
    cohort_statistics,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from bytecover2_milvus.alignment.verdict import N_FEATURES, VECTOR, Verdict
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.embedding.bundle import CALIBRATION, default_bundle, open_bundle, write_sums
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.milvus.cohort import SIZE
from bytecover2_milvus.second_stage.rerank import CANDIDATES, QUERY_COHORT

CONDITIONS = ("whole", "degraded", "45 s", "20 s")
SIZES, THRESHOLDS, DRAWS = (10, 25, 50), (0.5, 0.75, 0.9), 20  # works of smaller catalogues; of each size
KINDS_OF_NOTHING = 10  # of each kind of sound that is no music
NOTHING_S = 30.0
_UNFITTED = Calibration((0.0,) * N_FEATURES, 0.0), Calibration((0.0,), 0.0)


@dataclass(frozen=True, eq=False)
class Sound:
    """The embedding and chroma of a query."""

    track_id: str  # of the track that it was made from
    work_id: str
    embedding: NDArray[np.float32]  # (D,)
    levels: NDArray[np.uint8]  # (n_frames, channels)


class Catalogue:
    """Clean tracks, and their similarities with a cohort of them."""

    def __init__(self, tracks: Sequence[Sound]) -> None:
        self.tracks = tracks
        self.vectors = np.stack([track.embedding for track in tracks])
        order = sorted(range(len(tracks)), key=lambda i: hashlib.sha256(tracks[i].track_id.encode()).digest())
        self.cohort = [tracks[i] for i in order[:SIZE]]
        self.with_cohort = np.stack([self.cohort_similarities(track) for track in tracks])  # (n, SIZE, kinds)

    def cohort_similarities(self, sound: Sound, size: int = SIZE) -> NDArray[np.float64]:
        """(size, kinds) with the first tracks of the cohort; NaN with the track that the sound is of."""
        similarities = _similarities(sound, self.cohort[:size])
        similarities[[track.track_id == sound.track_id for track in self.cohort[:size]]] = np.nan
        return similarities

    def candidates(self, sound: Sound) -> list[int]:
        """The closest tracks by the vector, without the sound's own."""
        order = np.argsort(-(self.vectors @ sound.embedding), kind="stable")
        return [i for i in order.tolist() if self.tracks[i].track_id != sound.track_id][:CANDIDATES]


def _similarities(sound: Sound, tracks: Sequence[Sound]) -> NDArray[np.float64]:
    """(n, kinds): cosines, and the scores of the alignments."""
    aligned = qmax_scores(sound.levels, [track.levels for track in tracks])
    return np.column_stack([[float(track.embedding @ sound.embedding) for track in tracks], aligned])


@dataclass(frozen=True, eq=False)
class Pairs:
    """The candidates of queries."""

    similarities: NDArray[np.float64]  # (queries, candidates, kinds)
    of_query: NDArray[np.float64]  # (queries, cohort, kinds): similarities
    of_candidate: NDArray[np.float64]  # (queries, candidates, SIZE, kinds)
    frames: NDArray[np.int64]  # (queries, candidates): of the shorter of both
    same: NDArray[np.bool_]  # (queries, candidates)
    work_ids: NDArray[np.str_]  # (queries, candidates): of the candidates

    def features(self, verdict: Verdict) -> NDArray[np.float64]:
        """(queries, candidates, `N_FEATURES`)"""
        query, candidate = (
            np.stack(
                [
                    cohort_statistics(similarities[..., kind], background)
                    for kind, background in enumerate(verdict.backgrounds.values())
                ],
                axis=-2,
            )
            for similarities in (self.of_query, self.of_candidate)
        )
        statistics = query[:, None], candidate
        return verdict.features(self.similarities[..., 0], self.similarities[..., 1:], *statistics, self.frames)


def pairs_of(queries: Sequence[Sound], catalogue: Catalogue) -> Pairs:
    """Every query with its candidates; those that are too short to be aligned are left out."""
    similarities, of_query, of_candidate, frames, same, work_ids = [], [], [], [], [], []
    for query in queries:
        if len(query.levels) < Qmax().embedding:
            continue
        found = catalogue.candidates(query)
        similarities.append(_similarities(query, [catalogue.tracks[i] for i in found]))
        of_query.append(catalogue.cohort_similarities(query, QUERY_COHORT))
        of_candidate.append(catalogue.with_cohort[found])
        frames.append([min(len(query.levels), len(catalogue.tracks[i].levels)) for i in found])
        same.append([bool(query.work_id) and catalogue.tracks[i].work_id == query.work_id for i in found])
        work_ids.append([catalogue.tracks[i].work_id for i in found])
    return Pairs(*map(np.array, (similarities, of_query, of_candidate, frames, same, work_ids)))


def backgrounds_of(catalogue: Catalogue, groups: Sequence[str]) -> dict[str, Background]:
    """Mean and standard deviation of tracks of different works."""
    other = np.array([[a.work_id != b.work_id for b in catalogue.cohort] for a in catalogue.tracks])
    values = catalogue.with_cohort[other]
    found = zip(values.mean(axis=0).tolist(), values.std(axis=0).tolist(), strict=True)
    return {kind: Background(*known) for kind, known in zip((VECTOR, *groups), found, strict=True)}


def fitted(pairs: Pairs, backgrounds: dict[str, Background], told: str) -> Verdict:
    """The verdict whose regressions fit the pairs."""
    features = pairs.features(Verdict(backgrounds, *_UNFITTED, told)).reshape(-1, N_FEATURES)
    same = pairs.same.ravel()
    both, alone = (fit_calibration(chosen, same) for chosen in (features, features[:, :1]))
    return Verdict(backgrounds, both, alone, told)


def nothing(embedder: Embedder) -> Iterator[tuple[str, list[Sound]]]:
    """Sounds that are no music, by kind."""
    n_samples = round(NOTHING_S * SAMPLE_RATE)
    seconds = np.arange(n_samples) / SAMPLE_RATE
    noises, colours, sines = [], [], []
    for i in range(KINDS_OF_NOTHING):
        noise = np.random.default_rng(i).standard_normal(n_samples)
        noises.append(noise / 5)
        colours.append(np.cumsum(noise) / np.abs(np.cumsum(noise)).max())
        sines.append(np.sin(2 * np.pi * 110 * 2 ** (5 * i / 12) * seconds) / 2)
    kinds = {"white noise": noises, "brown noise": colours, "sine": sines}
    if shutil.which("espeak-ng"):
        kinds["speech"] = list(_speech())
    else:
        click.echo("speech is left out: espeak-ng is not installed", err=True)
    for kind, waveforms in kinds.items():
        heard = [embedder.hear(waveform.astype(np.float32)) for waveform in waveforms]
        yield kind, [Sound("", "", one.embedding, to_levels(one.chroma)) for one in heard]


def _speech() -> Iterator[NDArray[np.float32]]:
    """The prose of the package's documents, read aloud in several voices."""
    texts = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    for i in range(KINDS_OF_NOTHING):
        text = texts[i % len(texts)].read_text(encoding="utf-8").replace("`", "")[300 * i : 300 * i + 1_500]
        voice = ("en-us", "en-gb", "de", "fr")[i % 4]
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "speech.wav"
            subprocess.run(["espeak-ng", "-v", voice, "-w", wave, "--stdin"], input=text.encode(), check=True)
            yield load_audio(wave)[: round(NOTHING_S * SAMPLE_RATE)]


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


@click.command()
@held_out_options(least_works=4)
@bundle_option
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw.")
@click.option("--write", is_flag=True, help="Write calibration.json into the bundle.")
@click.option("--workers", type=click.IntRange(1), default=usable_cores(), show_default="all cores")
def main(held_out: HeldOut, bundle: Path | None, plot_path: Path | None, write: bool, workers: int) -> None:
    """Calibrate the second stage of a bundle."""
    folder = bundle or default_bundle()
    contract = open_bundle(folder).contract
    if contract.chroma is None:
        raise click.ClickException(f"{folder}: has no note map, and so nothing to calibrate")
    halves: tuple[list[Work], list[Work]] = ([], [])
    for name in held_out.names:
        for i, work in enumerate(held_out.works_of(name)):
            halves[i % 2].append(work)
    job = partial(
        hear,
        conditions=dict.fromkeys(held_out.names, CONDITIONS),
        systems=(str(folder),),
        soundfont=held_out.soundfont,
        folder=held_out.folder,
    )
    sounds: list[dict[str, list[Sound]]] = []
    for works in halves:
        heard = [track for tracks in in_processes(job, works, workers) for track in tracks]
        sounds.append(
            {condition: [_sound(track, condition, str(folder)) for track in heard] for condition in CONDITIONS}
        )
    fit, judged = (Catalogue(half["whole"]) for half in sounds)
    told = (
        f"{len(halves[0])} held-out works of {', '.join(held_out.names)}: clean, degraded, 45 s and 20 s queries, their"
        f" {CANDIDATES} closest of {len(fit.tracks)} tracks"
    )
    queries = [query for condition in CONDITIONS for query in sounds[0][condition]]
    verdict = fitted(pairs_of(queries, fit), backgrounds_of(fit, contract.chroma.groups), told)
    click.echo(json.dumps({"what": "verdict", **json.loads(verdict.to_json())}))

    def judge(queries: Sequence[Sound]) -> Judged:
        pairs = pairs_of(queries, judged)
        return Judged(verdict.both.probability(pairs.features(verdict)), pairs)

    probabilities, same = [], []
    for condition in CONDITIONS:
        found = judge(sounds[1][condition])
        probabilities.append(found.probabilities)
        same.append(found.pairs.same)
        click.echo(json.dumps({"what": condition, **told_of(probabilities[-1], same[-1])}))
    there, not_there = (judge([query for how in CONDITIONS[:2] for query in half[how]]) for half in sounds[::-1])
    for size in SIZES:
        for least in THRESHOLDS:
            figures = by_size(there, not_there, size, least)
            click.echo(json.dumps({"what": f"{size} works", "threshold": least, **figures}))
    every, right = np.concatenate(probabilities), np.concatenate(same)
    click.echo(json.dumps({"what": "all", **told_of(every, right)}))
    absent = [(f"{condition}, of works not there", sounds[0][condition]) for condition in CONDITIONS]
    for kind, strangers in [*absent, *nothing(Embedder(folder, "cpu"))]:
        pairs = pairs_of(strangers, judged)
        if not len(pairs.same):
            continue
        nearest = verdict.both.probability(pairs.features(verdict)).max(axis=1)
        shares = {f"share_from_{p}": round(float((nearest >= p).mean()), 4) for p in (0.5, 0.9)}
        click.echo(json.dumps({"what": kind, "queries": len(nearest), **shares, "highest": float(nearest.max())}))
    if plot_path:
        rows = np.arange(len(every))
        best = every.argmax(axis=1)
        plot(
            plot_path,
            {
                "all pairs": reliability(every.ravel(), right.ravel()),
                "nearest match of each query": reliability(every[rows, best], right[rows, best]),
            },
        )
    if write:
        with atomic_write(folder / CALIBRATION) as part:
            part.write_text(verdict.to_json(), encoding="utf-8")
        write_sums(folder)


def _sound(track: Heard, condition: str, system: str) -> Sound:
    return Sound(track.track_id, track.work_id, track.embeddings[condition, system], track.levels[condition, system])


if __name__ == "__main__":
    main()
