"""The gain from recordings of one's own: a network as it is, adapted without labels, and finetuned with labels.

The works of the manifest are drawn into two halves. All three systems are scored on the second half, every recording a
query against the others of that half:

* *start*: the network of ``--init``.
* *without labels*: every recording of both halves was a work of its own, learned from degraded copies; ``work_id`` was
  not looked at. That the scored recordings themselves are adapted to is the point, as whoever searches a catalogue has
  it; what decides the score, which of them belong together, the network was never told. It was told, wrongly, that two
  recordings of one work are two works.
* *with labels*: trained on the works of the first half; neither the recordings nor the works that score were seen.

Songs given by ``--songs`` are mixed in, so that nothing is forgotten; whether it was shows on the songs of ``--guard``,
which no run may learn from. With ``--excerpt`` the queries are the middle seconds of their tracks, the candidates
whole: where all whole recordings are found, only excerpts can show a gain. A gain is the mean over queries of the
difference to the start, its interval by work: it tells more than two overlapping intervals. Prints one JSON object per
set and system on stdout and a table on stderr.
Run from the repository::

    python -m benchmarks.quality.adaptation --manifest recordings.csv --songs composed@0-100 --guard traditional \\
      --init bundles/mine --steps 300 --out runs/adaptation
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.score import Score, figures
from bytecover2_milvus.config import SAMPLE_RATE, Config
from bytecover2_milvus.errors import BytecoverError, ConfigError, ManifestError
from bytecover2_milvus.manifest import Track, read_manifest
from bytecover2_milvus.metrics import Evaluation, evaluate
from bytecover2_milvus.options import cache_option, device_option, runs_option, workers_option
from bytecover2_milvus.songs.select import select_songs
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus, CorpusTrack
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.run import prepare
from bytecover2_milvus.training.start import check_start
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import embeddings


def halves(tracks: Sequence[Track], seed: int) -> tuple[list[Track], list[Track]]:
    """The tracks of two random halves of the works that have two tracks or more."""
    members: dict[str, list[Track]] = {}
    for track in tracks:
        if track.work_id:
            members.setdefault(track.work_id, []).append(track)
    works = sorted(work for work, its in members.items() if len(its) > 1)
    if len(works) < 4:
        raise ManifestError(f"{len(works)} works with two recordings: two to learn from and two to score are needed")
    order = np.random.default_rng(seed).permutation(len(works))
    first, second = order[: len(works) // 2], order[len(works) // 2 :]
    return [t for i in first for t in members[works[i]]], [t for i in second for t in members[works[i]]]


class Excerpts(FeatureCache):
    """The middle `excerpt_s` seconds of what another cache holds."""

    def __init__(self, cache: FeatureCache, excerpt_s: float) -> None:
        super().__init__(cache.folder, cache.front_end, cache.pooling)
        self.n_frames = max(1, round(excerpt_s * SAMPLE_RATE / (cache.front_end.hop_length * self.pooling)))

    def load(self, track: CorpusTrack) -> NDArray[np.float16]:
        cqt = super().load(track)
        start = max(0, (cqt.shape[1] - self.n_frames) // 2)
        return cqt[:, start : start + self.n_frames]


def _evaluated(checkpoint: Checkpoint, corpus: Corpus, features: FeatureCache, queries: FeatureCache) -> Evaluation:
    works, tracks = zip(*corpus.tracks(), strict=True)
    known = checkpoint.network, checkpoint.config, corpus
    heard = {"note_map": checkpoint.note_map, "chroma_network": checkpoint.chroma_network}
    candidates = embeddings(*known, features, **heard)
    asked = candidates
    if queries is not features:
        asked = embeddings(*known, queries, **heard)
    return evaluate(candidates, works, [track.track_id for track in tracks], asked)


@click.command()
@click.option("--manifest", type=click.Path(path_type=Path), required=True, help="Recordings with work_id.")
@click.option("--init", type=click.Path(path_type=Path), required=True, help="Checkpoint or bundle to start from.")
@click.option("--songs", multiple=True, help="Songs mixed into both trainings, as in bytecover2-milvus train.")
@click.option("--guard", multiple=True, help="Songs that show whether anything was forgotten.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; its [training] is used.")
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True, help="Of each of the two trainings.")
@click.option("--learning-rate", default=3e-4, show_default=True)
@click.option("--arrangements", type=click.IntRange(2), default=4, show_default=True, help="Tracks of each song.")
@click.option(
    "--variants", type=click.IntRange(1), default=3, show_default=True, help="Degraded copies of each recording."
)
@click.option("--excerpt", "excerpt_s", type=click.FloatRange(10), help="Seconds of a track to query with; else all.")
@click.option("--seed", default=0, show_default=True, help="Of the halves.")
@cache_option
@runs_option
@workers_option
@device_option
def main(**options: Any) -> None:
    """Score a network on recordings as it is, adapted without their labels, and finetuned with labels of others."""
    try:
        _measure(**options)
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error


def _measure(
    manifest: Path,
    init: Path,
    songs: tuple[str, ...],
    guard: tuple[str, ...],
    config_file: Path | None,
    steps: int,
    learning_rate: float,
    arrangements: int,
    variants: int,
    excerpt_s: float | None,
    seed: int,
    cache: Path,
    out: Path,
    workers: int,
    device: str,
) -> None:
    start = load_checkpoint(init)
    if start.config.network.joins:  # the backbone alone is trained, and measured
        network = replace(start.config.network, feature_dim=None)
        start = replace(start, config=replace(start.config, network=network), network=start.network.adapted(network))
    training = (Config.from_toml(config_file) if config_file else start.config).training
    training = replace(training, phase="joint", steps=steps, learning_rate=learning_rate)
    config = replace(start.config, training=training)
    check_start(config, start)
    features = FeatureCache.of(cache, config)

    def of_songs(specs: Sequence[str]) -> Corpus:
        return Corpus.of_songs((song for spec in specs for song in select_songs(spec)), arrangements)

    learned, scored = halves(read_manifest(manifest), seed)
    sets = {"recordings": Corpus.of_manifest(scored)} | {spec: of_songs([spec]) for spec in guard}
    mixed = of_songs(songs)
    if heard := sorted({work for spec in guard for work in sets[spec].works} & mixed.works.keys()):
        raise ConfigError(f"{heard[0]}: a song of --songs and of --guard; guard by songs that no run learns from")
    corpora = {
        "without labels": Corpus.of_recordings([track.path for track in (*learned, *scored)], variants) + mixed,
        "with labels": Corpus.of_manifest(learned) + mixed,
    }
    sets = {name: prepare(corpus, features, workers) for name, corpus in sets.items()}

    queries = Excerpts(features, excerpt_s) if excerpt_s else features

    def evaluated(checkpoint: Checkpoint) -> dict[str, Evaluation]:
        return {name: _evaluated(checkpoint, part, features, queries) for name, part in sets.items()}

    results = {"start": evaluated(start)}
    for system, corpus in corpora.items():
        run = out / system.replace(" ", "-")
        prepared = prepare(corpus, features, workers)
        best = train(config, prepared, features, run, init=start, device=device, data_workers=workers)
        results[system] = evaluated(load_checkpoint(best))

    click.echo(f"{'set':30} {'system':15} {'MAP':>6} {'95 %':>13} {'MR1':>6} {'gain':>7} {'95 %':>16}", err=True)
    for name in sets:
        for system, result in results.items():
            row = Score(set=name, system=system, **figures(result[name], results["start"][name]))
            click.echo(
                f"{name:30} {system:15} {row.map:6.3f} {f'{row.map_low:.3f}-{row.map_high:.3f}':>13} {row.mr1:6.1f} "
                f"{row.gain:+7.3f} {f'{row.gain_low:+.3f} to {row.gain_high:+.3f}':>16}",
                err=True,
            )
            click.echo(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
