"""How well covers are found: ours against random and against the untrained floor, on the same rendered tracks.

Every track of every song is a query against all the others. Prints one JSON object per set of songs and system on
stdout and a table on stderr. Run from the repository::

    python -m benchmarks.identification --songs traditional --arrangements 4
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.fourier import fourier_embedding
from bytecover2_milvus.embedder import Embedder
from bytecover2_milvus.metrics import bootstrap_interval, evaluate
from bytecover2_milvus.songs.arrange import arrange
from bytecover2_milvus.songs.render import render
from bytecover2_milvus.songs.score import Song
from bytecover2_milvus.songs.select import select_songs


@dataclass(frozen=True)
class Score:
    songs: str
    system: str
    map: float
    map_low: float  # 95 % bootstrap interval by work
    map_high: float
    mr1: float
    precision_at_10: float
    queries: int


_embedder: Embedder


def _start_worker(bundle: str | None) -> None:
    global _embedder
    _embedder = Embedder(bundle, device="cpu", threads=1)


def _embed_both(track: tuple[Song, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    waveform = render(arrange(*track))
    return fourier_embedding(waveform), _embedder.embed(waveform)


def score(spec: str, arrangements: int, bundle: str | None, workers: int) -> list[Score]:
    """The scores of random, floor and bundle on `arrangements` tracks of every song that `spec` names."""
    tracks = [(song, seed) for song in select_songs(spec) for seed in range(arrangements)]
    work_ids = [song.song_id for song, _ in tracks]
    track_ids = [f"{song.song_id}/{seed}" for song, seed in tracks]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (bundle,)) as pool:
        floor, ours = (np.stack(rows) for rows in zip(*pool.map(_embed_both, tracks, chunksize=4), strict=True))
    random = np.random.default_rng(0).standard_normal(ours.shape).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    scores = []
    for system, embeddings in {"random": random, "2-D Fourier of chroma": floor, "bundle": ours}.items():
        result = evaluate(embeddings, work_ids, track_ids)
        low, high = bootstrap_interval(result.average_precisions, result.query_work_ids, seed=0)
        scores.append(Score(spec, system, result.map, low, high, result.mr1, result.precision_at_10, result.queries))
    return scores


@click.command()
@click.option(
    "--songs", multiple=True, default=["traditional"], show_default=True, help="As in bytecover2-milvus train."
)
@click.option("--arrangements", default=4, show_default=True, help="Tracks of each song.")
@click.option("--bundle", help="Exported model; the default is the one that ships.")
@click.option("--workers", default=2, show_default=True)
def main(songs: tuple[str, ...], arrangements: int, bundle: str | None, workers: int) -> None:
    """Score random, the 2-D Fourier floor and a bundle on arrangements of songs."""
    click.echo(f"{'songs':40} {'system':24} {'MAP':>6} {'95 %':>13} {'MR1':>7} {'P@10':>6} {'queries':>7}", err=True)
    for spec in songs:
        for row in score(spec, arrangements, bundle, workers):
            interval = f"{row.map_low:.3f}-{row.map_high:.3f}"
            click.echo(
                f"{row.songs:40} {row.system:24} {row.map:6.3f} {interval:>13} {row.mr1:7.1f} "
                f"{row.precision_at_10:6.3f} {row.queries:7}",
                err=True,
            )
            click.echo(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
