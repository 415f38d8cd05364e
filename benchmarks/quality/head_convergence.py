"""Heads of a ByteCover trained for thousands of steps while its backbone rests: where PCA-FC ends, and FC.

The ablation trains everything, which is dear, and so for few steps. With the backbone at rest a step costs a matrix
product, and the heads converge in minutes: this benchmark says which findings of the paper's ablation depend on that.

Every track of the training is heard ``--hearings`` times, in other excerpts and with other augmentation. The pooled
embeddings are kept in ``--out``; the principal axes are theirs, and batches of ``training.works_per_batch`` works are
drawn from them, the same ones for every system. Systems are those of `benchmarks.quality.ablation`; "ByteCover" learns
BNNeck alone. Scores after 0, 100, 300, 1 000 ... steps are of one run, whose learning rate falls until its end.
``--loss paper`` is that of the paper, the cross-entropy over all works and the triplet loss; ``own`` is that of the
checkpoint. Run from the repository::

    python -m benchmarks.quality.head_convergence runs/bytecover/best.safetensors --songs composed@0-500 \\
        --validation-songs traditional --out runs/heads
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.quality.frozen_head import pooled_batches, reduced, train_head
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.config import Training
from bytecover2_milvus.errors import BytecoverError, ConfigError
from bytecover2_milvus.metrics import Evaluation, bootstrap_interval, evaluate, mean_difference
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.options import corpus_options, device_option, runs_option
from bytecover2_milvus.terminal import progress_bar
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus, text_digest
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.sources import DataSources
from bytecover2_milvus.training.distributed import torch_device
from bytecover2_milvus.training.resume import fingerprint, weights_digest
from bytecover2_milvus.training.run import prepare
from bytecover2_milvus.training.validation import pooled_embeddings

FIXED, LEARNS = ("PCA", "whitened PCA"), ("FC", "PCA-FC", "whitened PCA-FC")  # of REDUCTIONS
LOSSES: dict[str, dict[str, float]] = {
    "own": {},
    "paper": {"cross_entropy_weight": 1.0, "triplet_weight": 1.0, "contrastive_weight": 0.0},
}


@dataclass(frozen=True)
class Pooled:
    """Pooled embeddings, whose width P is the backbone's."""

    excerpts: Tensor  # (N, P) of the training tracks
    works: Tensor  # (N,)
    validation: Tensor  # (M, P) of whole tracks


@dataclass(frozen=True)
class Row:
    """A head after some steps."""

    system: str
    steps: int
    map: float
    map_low: float  # 95 % bootstrap interval by work
    map_high: float
    mr1: float


def pool(
    checkpoint: Checkpoint,
    training: Training,
    corpus: Corpus,
    validation: Corpus,
    cache: FeatureCache,
    folder: Path,
    device: torch.device,
) -> Pooled:
    """The output of the resting backbone for the batches of `training`, computed once and kept in `folder`."""
    parts = (weights_digest(checkpoint.network), fingerprint(corpus), fingerprint(validation), repr(training))
    path = folder / f"pooled-{text_digest(' '.join(parts))[:16]}.safetensors"
    if not path.exists():
        batches = pooled_batches(checkpoint, corpus, cache, training, device)
        network, note_map = checkpoint.network.to(device), checkpoint.note_map
        whole = pooled_embeddings(network, checkpoint.config, validation, cache, device, note_map=note_map)
        network.cpu()
        excerpts, works = (torch.cat(parts) for parts in zip(*batches, strict=True))
        with atomic_write(path) as part:
            save_file({"excerpts": excerpts, "works": works, "validation": torch.from_numpy(whole)}, part)
    return Pooled(**load_file(path))


def batches_of(pooled: Pooled, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """`training.steps` batches of P works x K excerpts, drawn from its seed: (P * K, width) and works (P * K,)."""
    order = torch.argsort(pooled.works, stable=True).numpy()
    works, starts, counts = np.unique(pooled.works.numpy()[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(training.seed)
    count = min(training.works_per_batch, len(works))
    for _ in range(training.steps):
        chosen = rng.choice(len(works), size=count, replace=False)
        picked = [
            order[start + rng.choice(n, size=min(training.tracks_per_work, n), replace=False)]
            for start, n in zip(starts[chosen], counts[chosen], strict=True)
        ]
        rows = torch.from_numpy(np.concatenate(picked))
        yield pooled.excerpts[rows], pooled.works[rows]


def marks(steps: int) -> list[int]:
    """0, 100, 300, 1 000, 3 000 ... and the last step."""
    powers = (factor * 10**power for power in range(2, 8) for factor in (1, 3))
    return [0, *(mark for mark in powers if mark < steps), steps]


def table_markdown(rows: Sequence[Row], differences: Sequence[tuple[str, str, float, float, float]]) -> str:
    """MAP by steps, and the differences at the end."""
    steps = sorted({row.steps for row in rows})
    of = {(row.system, row.steps): row for row in rows}
    lines = [f"| MAP after | {' | '.join(f'{step} steps' for step in steps)} |", f"|---|{'---|' * len(steps)}"]
    for system in dict.fromkeys(row.system for row in rows):
        found = [of.get((system, step)) for step in steps]
        lines.append(f"| {system} | {' | '.join(f'{row.map:.3f}' if row else '' for row in found)} |")
    lines += ["", "| difference in MAP at the end | | 95 % |", "|---|---|---|"]
    lines += [f"| {a} minus {b} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |" for a, b, mean, low, high in differences]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@corpus_options
@click.option("--validation-songs", multiple=True, required=True, metavar="SONGS", help="Songs to score on.")
@click.option("--dim", type=click.IntRange(1), default=128, show_default=True, help="D of every layer.")
@click.option("--hearings", type=click.IntRange(1), default=2, show_default=True, help="Excerpts of each track.")
@click.option("--steps", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate.")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="paper", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting other than the checkpoint's.")
@device_option
@runs_option
def main(
    checkpoint: Path,
    cache: Path,
    workers: int,
    validation_songs: tuple[str, ...],
    dim: int,
    hearings: int,
    steps: int,
    rate: float,
    loss: str,
    settings: tuple[str, ...],
    device: str,
    out: Path,
    sources: DataSources,
) -> None:
    """Train heads of D dimensions on the resting backbone of CHECKPOINT, a ByteCover without PCA-FC."""
    try:
        start = load_checkpoint(checkpoint)
        if start.config.network.feature_dim is not None:
            raise ConfigError(f"{checkpoint}: has a PCA-FC already; give the ByteCover that it was made from")
        config = start.config.with_settings(settings)
        features = FeatureCache.of(cache, config)
        corpus = prepare(sources.corpus(features, workers), features, workers)
        held_out = DataSources(validation_songs, arrangements=sources.arrangements).corpus(features, workers)
        validation = prepare(held_out, features, workers)
        out.mkdir(parents=True, exist_ok=True)
        heard = -(-hearings * len(corpus.works) // config.training.works_per_batch)
        training = replace(config.training, phase="frozen", hearings=0.0, steps=heard)
        where = torch_device(device)
        with progress_bar("pool", None):
            pooled = pool(start, training, corpus, validation, features, out, where)
        training = replace(training, steps=steps, learning_rate=rate, **LOSSES[loss])  # type: ignore[arg-type]
        tracks = list(validation.tracks())

        def score(network: ByteCover2) -> Evaluation:
            network.bnneck.eval()  # the one part of the head that training changes the behaviour of
            with torch.inference_mode():
                rows = F.normalize(network.head(pooled.validation.to(where))[1], dim=1).cpu().numpy()
            network.bnneck.train()
            return evaluate(rows, [work for work, _ in tracks], [track.track_id for _, track in tracks])

        rows: list[Row] = []
        last: dict[str, Evaluation] = {}

        def keep(system: str, step: int, network: ByteCover2) -> None:
            result = last[system] = score(network)
            interval = bootstrap_interval(result.average_precisions, result.query_work_ids, seed=0)
            rows.append(Row(system, step, result.map, *interval, result.mr1))
            click.echo(json.dumps(asdict(rows[-1])))

        def learn(system: str, begun: Checkpoint) -> None:
            with progress_bar(system, steps) as bar:

                def watch(step: int, network: ByteCover2) -> None:
                    bar.update(completed=step)
                    if step in marks(steps):
                        keep(system, step, network)

                train_head(begun, training, batches_of(pooled, training), list(corpus.works), where, watch)

        excerpts = pooled.excerpts.numpy()
        for system in FIXED:
            keep(system, 0, reduced(system, start, excerpts, dim, training.seed).network.to(where))
        learn("ByteCover", start)
        for system in LEARNS:
            learn(system, reduced(system, start, excerpts, dim, training.seed))
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    differences = [
        (one, other, *mean_difference(last[one].average_precisions, last[other].average_precisions, works, seed=0))
        for other, one in combinations(last, 2)
        for works in [last[one].query_work_ids]
    ]
    table = table_markdown(rows, differences)
    summary = {"loss": loss, "training": asdict(training), "rows": [asdict(row) for row in rows]}
    for name, text in ((f"heads-{loss}.md", table), (f"heads-{loss}.json", json.dumps(summary, indent=1) + "\n")):
        with atomic_write(out / name) as part:
            part.write_text(text, encoding="utf-8")
    click.echo(table, err=True)


if __name__ == "__main__":
    main()
