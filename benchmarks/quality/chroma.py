"""MAP of the learned chroma by alignment, beside that of chroma made by hand from the same CQT.

One command, JSON lines on stdout::

    python -m benchmarks.quality.chroma --scores SCORES --copies FOLDER

Systems
-------
hand-made
    Magnitudes of the CQT, of each bin no more than its median over 0.4 s, which takes the drums away; mean over a frame
    of chroma, over the track's maximum, square root; each frame less its mean over bins; folded to pitch classes with a
    Gaussian weight around A4 (`alignment.chroma.fold`). Aligned with the parameters of the paper (`qmax.PUBLISHED`),
    which were chosen for such chroma.
notes, lead
    The groups of the bundle's note map, each by itself.
learned
    Both groups, their normalised scores added, as the second stage does.
learned, published parameters
    The same, aligned with the parameters of the paper.

Protocol
--------
That of `benchmarks.quality.validation`, by alignment alone: the clean tracks of a set are candidates, each is a query
once per condition, and its own track is not among its candidates. All scores are normalised by a cohort of the set.

Real recordings come without works. What can be asked of them is whether a damaged copy finds its recording: every file
in FOLDER, two minutes of it at most, is a candidate, and each asks as a degraded copy and as 20 s of one, its own
recording among the candidates. That says how steady what is heard is, not whether covers are found.

Intervals are 95 %, by bootstrap over works or recordings; gains are those over the hand-made chroma, query by query.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import LONGEST_S, HeldOut, Waveform, cached, held_out_options
from benchmarks.quality.second_stage import ALIGNMENT, normalised
from benchmarks.quality.stored import bundle_option
from benchmarks.quality.validation import CHEAP, CONDITIONS
from bytecover2_milvus.alignment.chroma import fold, to_levels
from bytecover2_milvus.alignment.qmax import PUBLISHED, Qmax, qmax_scores
from bytecover2_milvus.audio.degrade import degrade
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.metrics import average_precision, bootstrap_interval, mean_difference, rank_of_first

FRAME = 20  # CQT frames, as of the learned chroma
STEADY = 17  # CQT frames, 0.4 s
AUDIO = (".flac", ".mp3", ".ogg", ".opus", ".wav")
HAND_MADE, LEARNED, AS_PUBLISHED = "hand-made", "learned", "learned, published parameters"

Levels = NDArray[np.uint8]  # (n_frames, channels)
Scores = NDArray[np.float64]  # (n_queries, n_tracks)


def hand_made(cqt: NDArray[np.floating]) -> NDArray[np.float32]:
    """Chroma (n_frames // 20, 12) of CQT magnitudes.

    Parameters
    ----------
    cqt : np.ndarray [shape=(n_bins, n_frames)]
        Semitones from C1, whole octaves.
    """
    from scipy.ndimage import median_filter

    steady = np.minimum(cqt, median_filter(cqt, (1, STEADY), mode="nearest"))
    n_frames = steady.shape[1] // FRAME
    blocks = steady[:, : n_frames * FRAME].reshape(len(steady), n_frames, FRAME).mean(axis=2)
    loudness = np.sqrt(blocks / max(float(blocks.max()), 1e-9))
    return fold(np.maximum(loudness - loudness.mean(axis=0), 0))


@cache
def _constant_q() -> object:
    import torch

    from bytecover2_milvus.model.cqt import ConstantQ

    torch.set_num_threads(1)
    return ConstantQ(FrontEnd())


def heard_as(waveform: Waveform, embedder: Embedder) -> Levels:
    """The hand-made chroma, then the groups of the bundle, on the grid that collections store."""
    import torch

    with torch.inference_mode():
        cqt = _constant_q()(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].numpy()
    learned = to_levels(embedder.hear(waveform).chroma)
    own = to_levels(hand_made(cqt))
    n_frames = min(len(own), len(learned))  # they differ by one at most
    return np.concatenate([own[:n_frames], learned[:n_frames]], axis=1)


def aligned(queries: Sequence[Levels], tracks: Sequence[Levels]) -> NDArray[np.float32]:
    """Scores (n_queries, n_tracks, 1 + 2 groups): hand-made chroma, learned, learned with the paper's parameters.

    The hand-made chroma has transpositions of its own.
    """
    hand, learned = slice(0, 12), slice(12, None)
    scores = []
    for part, parameters in ((hand, PUBLISHED), (learned, Qmax()), (learned, PUBLISHED)):
        asked, clean = ([np.ascontiguousarray(one[:, part]) for one in some] for some in (queries, tracks))
        scores.append(np.stack([qmax_scores(query, clean, parameters) for query in asked]))
    return np.concatenate(scores, axis=2)


def by_system(
    asked: NDArray[np.float32], clean: NDArray[np.float32], names: Sequence[str], ids: Sequence[str]
) -> dict[str, Scores]:
    """The normalised scores of each system, of alignments of queries and of clean tracks with all clean tracks."""
    hand, *learned = (normalised(asked[..., i], clean[..., i], ids, ALIGNMENT) for i in range(asked.shape[-1]))
    short, long = learned[: len(names)], learned[len(names) :]
    both = {LEARNED: np.sum(short, axis=0), AS_PUBLISHED: np.sum(long, axis=0)}
    return {HAND_MADE: hand, **dict(zip(names, short, strict=True)), **both}


def lines_of(
    name: str,
    condition: str,
    scores: dict[str, Scores],
    relevant: NDArray[np.bool_],
    removed: NDArray[np.bool_],
    works: Sequence[str],
) -> Iterator[dict[str, object]]:
    """The scores of each system, where `relevant` (n_queries, n_tracks) is to be found among what is not removed."""
    precisions: dict[str, NDArray[np.float64]] = {}
    for system, score in scores.items():
        lists = [(row[~gone], right[~gone]) for row, right, gone in zip(score, relevant, removed, strict=True)]
        precisions[system] = np.array([average_precision(*one) for one in lists])
        line: dict[str, object] = {"set": name, "condition": condition, "system": system, "queries": len(lists)}
        line |= {"map": float(precisions[system].mean()), "interval": bootstrap_interval(precisions[system], works, 0)}
        line["mr1"] = float(np.mean([rank_of_first(*one) for one in lists]))
        if system != HAND_MADE:
            line["gain"] = mean_difference(precisions[system], precisions[HAND_MADE], works, 0)
        yield line


def of_set(name: str, held_out: HeldOut, conditions: Sequence[str], embedder: Embedder) -> Iterator[dict[str, object]]:
    """A set of held-out works."""
    groups = embedder.contract.chroma.groups
    ids, works, tracks, clean = [], [], [], []
    for work in held_out.works_of(name):
        for track in held_out.recordings(work):
            ids.append(track.track_id)
            works.append(work.work_id)
            clean.append(track.waveform)
            tracks.append(heard_as(track.waveform, embedder))
    same = np.array(works)[:, None] == np.array(works)
    own = np.eye(len(ids), dtype=bool)
    pairs = aligned(tracks, tracks)
    for condition in conditions:
        asked = pairs
        if condition != "whole":
            queries = []
            for track_id, waveform in zip(ids, clean, strict=True):
                rng = np.random.default_rng(zlib.crc32(f"{track_id} {condition}".encode()))
                make = partial(CONDITIONS[condition], waveform, rng)
                changed = held_out.folder / track_id / f"{condition}.flac"
                queries.append(heard_as(make() if condition in CHEAP else cached(changed, make), embedder))
            asked = aligned(queries, tracks)
        yield from lines_of(name, condition, by_system(asked, pairs, groups, ids), same & ~own, own, works)


def of_copies(paths: Sequence[Path], embedder: Embedder) -> Iterator[dict[str, object]]:
    """Real recordings, asked for by damaged copies."""
    waveforms = [load_audio(path)[: round(LONGEST_S * SAMPLE_RATE)] for path in paths]
    tracks, ids = [heard_as(waveform, embedder) for waveform in waveforms], [path.stem for path in paths]
    own, pairs = np.eye(len(ids), dtype=bool), aligned(tracks, tracks)
    for condition in ("degraded", "20 s, degraded"):
        queries = []
        for name, waveform in zip(ids, waveforms, strict=True):
            rng = np.random.default_rng(zlib.crc32(f"{name} {condition}".encode()))
            cut = waveform if condition == "degraded" else CONDITIONS["20 s"](waveform, rng)
            queries.append(heard_as(degrade(cut, rng), embedder))
        scores = by_system(aligned(queries, tracks), pairs, embedder.contract.chroma.groups, ids)
        yield from lines_of("recordings", condition, scores, own, np.zeros_like(own), ids)


@click.command()
@held_out_options(works=20, tracks=None)
@bundle_option
@click.option("--copies", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of recordings.")
@click.option("--conditions", multiple=True, type=click.Choice(list(CONDITIONS)), default=("whole", "degraded"))
def main(held_out: HeldOut, copies: Path | None, bundle: Path | None, conditions: tuple[str, ...]) -> None:
    """Align learned and hand-made chroma on held-out works and on real recordings."""
    embedder = Embedder(bundle, "cpu")
    if embedder.contract.chroma is None:
        raise click.ClickException(f"{bundle}: has no note map, and so no chroma")
    for name in held_out.names:
        for line in of_set(name, held_out, conditions, embedder):
            click.echo(json.dumps(line))
    if copies:
        paths = sorted(path for path in copies.iterdir() if path.suffix.lower() in AUDIO)
        for line in of_copies(paths, embedder):
            click.echo(json.dumps(line))


if __name__ == "__main__":
    main()
