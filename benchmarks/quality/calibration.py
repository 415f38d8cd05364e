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
are judged again in catalogues of fewer works, `calibration_figures.DRAWS` of each size. What is told of a size are
means over the draws: recall and precision of pairs, the share of queries whose nearest match is right and shown, and
the share of queries of the first half, whose works are not there, that are shown something.

What is not in a catalogue should find nothing there: all queries of the first half in the second catalogue, noise, a
lone sine, and speech (of espeak-ng, where it is installed).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOut, Work, held_out_options, in_processes
from benchmarks.quality.calibration_figures import Judged, by_size, plot, told_of
from benchmarks.quality.calibration_pairs import Catalogue, Pairs, Sound, backgrounds_of, pairs_of
from benchmarks.quality.no_music import no_music
from benchmarks.quality.stored import bundle_option
from benchmarks.quality.validation import Heard, hear
from bytecover2_milvus.alignment.score import Background, Calibration, fit_calibration, reliability
from bytecover2_milvus.alignment.verdict import N_FEATURES, Verdict
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.embedding.bundle import CALIBRATION, default_bundle, open_bundle, write_sums
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.second_stage.rerank import CANDIDATES

CONDITIONS = ("whole", "degraded", "45 s", "20 s")
SIZES, THRESHOLDS = (10, 25, 50), (0.5, 0.75, 0.9)  # works of smaller catalogues; probabilities from which one is shown
Sounds = dict[str, list[Sound]]  # of half of the works, by condition
_UNFITTED = Calibration((0.0,) * N_FEATURES, 0.0), Calibration((0.0,), 0.0)


def fitted(pairs: Pairs, backgrounds: dict[str, Background], told: str) -> Verdict:
    """The verdict whose regressions fit the pairs."""
    features = pairs.features(Verdict(backgrounds, *_UNFITTED, told)).reshape(-1, N_FEATURES)
    same = pairs.same.ravel()
    both, alone = (fit_calibration(chosen, same) for chosen in (features, features[:, :1]))
    return Verdict(backgrounds, both, alone, told)


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
    halves, n_works = _halves(held_out, folder, workers)
    fit = Catalogue(halves[0]["whole"])
    told = (
        f"{n_works} held-out works of {', '.join(held_out.names)}: clean, degraded, 45 s and 20 s queries, their"
        f" {CANDIDATES} closest of {len(fit.tracks)} tracks"
    )
    queries = [query for condition in CONDITIONS for query in halves[0][condition]]
    verdict = fitted(pairs_of(queries, fit), backgrounds_of(fit, contract.chroma.groups), told)
    click.echo(json.dumps({"what": "verdict", **json.loads(verdict.to_json())}))
    probabilities, same = _print_figures(verdict, *halves, Embedder(folder, "cpu"))
    if plot_path:
        rows = np.arange(len(probabilities))
        best = probabilities.argmax(axis=1)
        plot(
            plot_path,
            {
                "all pairs": reliability(probabilities.ravel(), same.ravel()),
                "nearest match of each query": reliability(probabilities[rows, best], same[rows, best]),
            },
        )
    if write:
        with atomic_write(folder / CALIBRATION) as part:
            part.write_text(verdict.to_json(), encoding="utf-8")
        write_sums(folder)


def _halves(held_out: HeldOut, folder: Path, workers: int) -> tuple[tuple[Sounds, Sounds], int]:
    """The sounds of both halves of the works, and the number of works of the first half."""
    works: tuple[list[Work], list[Work]] = ([], [])
    for name in held_out.names:
        for i, work in enumerate(held_out.works_of(name)):
            works[i % 2].append(work)
    job = partial(
        hear,
        conditions=dict.fromkeys(held_out.names, CONDITIONS),
        systems=(str(folder),),
        soundfont=held_out.soundfont,
        folder=held_out.folder,
    )

    def sounds(half: list[Work]) -> Sounds:
        heard = [track for tracks in in_processes(job, half, workers) for track in tracks]
        return {condition: [_sound(track, condition, str(folder)) for track in heard] for condition in CONDITIONS}

    return (sounds(works[0]), sounds(works[1])), len(works[0])


def _print_figures(
    verdict: Verdict, fitting: Sounds, judged: Sounds, embedder: Embedder
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Print how true the probabilities of a verdict are on works that fitted nothing.

    Parameters
    ----------
    verdict : Verdict
    fitting, judged : dict of str to list of Sound
        Of the works that fitted the verdict, and of the others, by condition.
    embedder : Embedder
        Of the same bundle.

    Returns
    -------
    probabilities, same : np.ndarray [shape=(queries, candidates)]
        Of all queries of the judged works.
    """
    catalogue = Catalogue(judged["whole"])

    def judge(queries: Sequence[Sound]) -> Judged:
        pairs = pairs_of(queries, catalogue)
        return Judged(verdict.both.probability(pairs.features(verdict)), pairs)

    probabilities, same = [], []
    for condition in CONDITIONS:
        found = judge(judged[condition])
        probabilities.append(found.probabilities)
        same.append(found.pairs.same)
        click.echo(json.dumps({"what": condition, **told_of(probabilities[-1], same[-1])}))
    there, not_there = (judge([query for how in CONDITIONS[:2] for query in half[how]]) for half in (judged, fitting))
    for size in SIZES:
        for least in THRESHOLDS:
            figures = by_size(there, not_there, size, least)
            click.echo(json.dumps({"what": f"{size} works", "threshold": least, **figures}))
    every, right = np.concatenate(probabilities), np.concatenate(same)
    click.echo(json.dumps({"what": "all", **told_of(every, right)}))
    absent = [(f"{condition}, of works not there", fitting[condition]) for condition in CONDITIONS]
    for kind, strangers in [*absent, *no_music(embedder)]:
        pairs = pairs_of(strangers, catalogue)
        if not len(pairs.same):
            continue
        nearest = verdict.both.probability(pairs.features(verdict)).max(axis=1)
        shares = {f"share_from_{p}": round(float((nearest >= p).mean()), 4) for p in (0.5, 0.9)}
        click.echo(json.dumps({"what": kind, "queries": len(nearest), **shares, "highest": float(nearest.max())}))
    return every, right


def _sound(track: Heard, condition: str, system: str) -> Sound:
    return Sound(track.track_id, track.work_id, track.embeddings[condition, system], track.levels[condition, system])


if __name__ == "__main__":
    main()
