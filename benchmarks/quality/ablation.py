"""The paper's ablation and its Figure 2, from one trained ByteCover: one command that writes the table and the plot.

Systems
-------
ByteCover-2048
    The checkpoint as it is; 2048 stands for its backbone's own width.
ByteCover-2048, trained on
    The checkpoint after as many further steps as the systems below have had. Without it one would compare lengths of
    training.
ByteCoverFC-D
    A fully connected layer with random weights, trained exactly as ByteCover2's.
ByteCoverPCA-D
    A fixed PCA of ByteCover's embedding, nothing trained after it.
ByteCover2-D
    PCA-FC: the layer starts as the PCA of the pooled embedding and is trained. "Untrained" is that start.
ByteCoverPCA-D and ByteCover2-D, whitened
    Both from the axes of ByteCover's embedding, half whitened, as `fit-pca` does unless told otherwise.

"Trained" is the paper's two phases: first the layer, BNNeck and classifier, then everything at a lower rate. Seeds and
batches are the same for all, and the weights of the last step are those that are scored, so that the validation works
choose nothing. Runs are folders under ``--out``: the same command goes on where it was cut off and trains nothing
twice; further ``--dims`` may be added later. Run from the repository::

    python -m benchmarks.quality.ablation runs/bytecover/best.safetensors --songs composed@0-500 \\
        --validation-songs traditional --out runs/ablation
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.quality.ablation_table import REDUCTIONS, TRAINED, Score, comparisons, plot, table_markdown
from benchmarks.quality.frozen_head import pooled_batches, reduced, train_head
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.config import Config, Training
from bytecover2_milvus.errors import BytecoverError, CheckpointError, ConfigError
from bytecover2_milvus.metrics import bootstrap_interval, evaluate
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.options import corpus_options, device_option, runs_option
from bytecover2_milvus.terminal import progress_bar
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.sources import DataSources
from bytecover2_milvus.training.distributed import torch_device
from bytecover2_milvus.training.resume import fingerprint, weights_digest
from bytecover2_milvus.training.run import prepare
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import pooled_embeddings

DIMS = (32, 64, 128, 256, 512, 1024, 1536, 2048)  # of Figure 2


@dataclass(frozen=True)
class System:
    """One line of the table."""

    reduction: str | None  # a key of REDUCTIONS; None is ByteCover
    dim: int
    trained: bool  # the two phases follow

    @property
    def name(self) -> str:
        name = REDUCTIONS[self.reduction].format(self.dim) if self.reduction else f"ByteCover-{self.dim}"
        return name if self.reduction or not self.trained else f"{name}, trained on"

    @property
    def folder(self) -> str:
        return self.name.lower().replace(", ", "-").replace(" ", "-")


@dataclass(frozen=True)
class Shared:
    """The output of the frozen backbone, computed once for all systems."""

    tracks: NDArray[np.float32]  # (N, 2048), the training tracks whole: what a PCA is fitted on
    batches: list[tuple[Tensor, Tensor]]  # of the frozen phase: pooled (B, 2048) and work (B,)
    validation: NDArray[np.float32]  # (M, 2048)


@dataclass(frozen=True)
class Ablation:
    """All that the systems have in common, and the folder that their runs are in."""

    checkpoint: Checkpoint
    frozen: Training
    joint: Training
    corpus: Corpus
    validation: Corpus
    cache: FeatureCache
    out: Path
    device: torch.device
    data_workers: int

    def shared(self) -> Shared:
        """Computed once and kept in ``pooled.safetensors``."""
        path = self.out / "pooled.safetensors"
        if not path.exists():
            network = self.checkpoint.network.to(self.device)
            config = self.checkpoint.config
            tensors = {
                name: torch.from_numpy(self._pooled(network, config, corpus))
                for name, corpus in (("tracks", self.corpus), ("validation", self.validation))
            }
            network.cpu()
            batches = pooled_batches(self.checkpoint, self.corpus, self.cache, self.frozen, self.device)
            for step, (pooled, work) in enumerate(batches):
                tensors |= {f"pooled.{step}": pooled, f"work.{step}": work}
            with atomic_write(path) as part:
                save_file(tensors, part)
        tensors = load_file(path)
        batches = [(tensors[f"pooled.{step}"], tensors[f"work.{step}"]) for step in range(self.frozen.steps)]
        return Shared(tensors["tracks"].numpy(), batches, tensors["validation"].numpy())

    def _pooled(self, network: ByteCover2, config: Config, corpus: Corpus) -> NDArray[np.float32]:
        note_map = self.checkpoint.note_map
        return pooled_embeddings(network, config, corpus, self.cache, self.device, note_map=note_map)

    def start(self, system: System, shared: Shared) -> Checkpoint:
        """The start of `system`: the checkpoint with its layer inserted, nothing trained yet."""
        if system.reduction is None:
            return self.checkpoint
        return reduced(system.reduction, self.checkpoint, shared.tracks, system.dim, self.frozen.seed)

    def score(
        self, system: System, shared: Shared, report: Callable[[int, float], None] = lambda step, loss: None
    ) -> Score:
        """The score of `system`, trained if it is not there yet; kept in its folder."""
        folder = self.out / system.folder
        path = folder / "score.json"
        if path.exists():
            return Score(**json.loads(path.read_text(encoding="utf-8")))
        final, pooled = self.start(system, shared), shared.validation
        if system.trained:
            final = train_head(final, self.frozen, shared.batches, list(self.corpus.works), self.device)
            best = train(
                replace(final.config, training=self.joint),
                self.corpus,
                self.cache,
                folder,
                init=final,
                device=self.device.type,
                data_workers=self.data_workers,
                facts=final.facts,
                report=lambda progress: report(progress.step, progress.loss),
            )
            final = load_checkpoint(best)
            network = final.network.to(self.device)
            pooled = self._pooled(network, final.config, self.validation)
            network.cpu()
        with torch.inference_mode():
            embeddings = F.normalize(final.network.head(torch.from_numpy(pooled))[1], dim=1).numpy()
        tracks = list(self.validation.tracks())
        result = evaluate(embeddings, [work for work, _ in tracks], [track.track_id for _, track in tracks])
        score = Score(
            system.name,
            system.reduction,
            system.dim,
            self.joint.steps if system.trained else 0,
            result.map,
            *bootstrap_interval(result.average_precisions, result.query_work_ids, seed=0),
            result.mr1,
            result.precision_at_10,
            result.queries,
            result.works,
            result.average_precisions.tolist(),
            result.query_work_ids.tolist(),
        )
        _write(path, json.dumps(asdict(score)))
        return score

    def claim(self) -> None:
        """Mark the folder as this ablation's.

        Raises
        ------
        CheckpointError
            If it holds an ablation of another checkpoint, other songs or other settings.
        """
        mine = {
            "network": weights_digest(self.checkpoint.network),
            "frozen": asdict(self.frozen),
            "joint": asdict(self.joint),
            "songs": fingerprint(self.corpus),
            "validation": fingerprint(self.validation),
        }
        mine = json.loads(json.dumps(mine))
        path = self.out / "settings.json"
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            if differing := [name for name in mine if mine[name] != there.get(name)]:
                raise CheckpointError(
                    f"{self.out}: an ablation with another {', '.join(differing)}; choose an empty folder with --out"
                )
        else:
            _write(path, json.dumps(mine, indent=1))


def systems(pooled_dim: int, dims: Sequence[int]) -> list[System]:
    """ByteCover, ByteCover trained on, and every reduction to every dimension that the backbone has."""
    lines = [System(None, pooled_dim, False), System(None, pooled_dim, True)]
    for dim in sorted({dim for dim in dims if dim <= pooled_dim}):
        lines += [System(reduction, dim, reduction in TRAINED) for reduction in REDUCTIONS]
    return lines


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _dims(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        dims = tuple(int(dim) for dim in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text}: whole numbers with commas between them") from error
    if min(dims) < 1:
        raise click.BadParameter(f"{text}: 1 or more")
    return dims


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@corpus_options
@click.option("--validation-songs", multiple=True, metavar="SONGS", help="Songs that the systems are scored on.")
@click.option("--validation-manifest", type=click.Path(path_type=Path), help="Recordings that they are scored on.")
@click.option(
    "--dims",
    default=",".join(map(str, DIMS)),
    show_default=True,
    callback=_dims,
    help="D of every layer; what exceeds the backbone's width is left out.",
)
@click.option("--steps-frozen", type=click.IntRange(1), default=150, show_default=True)
@click.option("--steps-joint", type=click.IntRange(1), default=150, show_default=True)
@click.option("--rate-frozen", default=1e-3, show_default=True, help="Learning rate of the frozen phase.")
@click.option("--rate-joint", default=3e-4, show_default=True, help="Learning rate of the joint phase.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting other than the checkpoint's, e.g. 'training.precision=\"bf16-mixed\"'.",
)
@device_option
@runs_option
def main(
    checkpoint: Path,
    cache: Path,
    workers: int,
    validation_songs: tuple[str, ...],
    validation_manifest: Path | None,
    dims: tuple[int, ...],
    steps_frozen: int,
    steps_joint: int,
    rate_frozen: float,
    rate_joint: float,
    settings: tuple[str, ...],
    device: str,
    out: Path,
    sources: DataSources,
) -> None:
    """Compare ByteCover, ByteCoverFC, ByteCoverPCA and ByteCover2 at several dimensions, all from CHECKPOINT."""
    if not validation_songs and not validation_manifest:
        raise click.UsageError("nothing to score on: give --validation-songs or --validation-manifest")
    try:
        start = load_checkpoint(checkpoint)
        if start.config.network.feature_dim is not None:
            raise ConfigError(f"{checkpoint}: has a PCA-FC already; give the ByteCover that it was made from")
        training = start.config.with_settings(settings).training
        features = FeatureCache.of(cache, start.config)
        corpus = prepare(sources.corpus(features, workers), features, workers)
        held_out = DataSources(validation_songs, validation_manifest, arrangements=sources.arrangements)
        validation = prepare(held_out.corpus(features, workers), features, workers)
        ablation = Ablation(
            start,
            replace(training, phase="frozen", steps=steps_frozen, learning_rate=rate_frozen),
            replace(training, phase="joint", steps=steps_joint, learning_rate=rate_joint),
            corpus,
            validation,
            features,
            out,
            torch_device(device),
            workers,
        )
        ablation.claim()
        with progress_bar("pool", None):
            shared = ablation.shared()
        scores = []
        for system in systems(start.config.network.pooled_dim, dims):
            with progress_bar(system.name, steps_joint if system.trained else None) as bar:
                scores.append(
                    ablation.score(
                        system, shared, lambda step, loss: bar.update(completed=step, note=f"loss {loss:.3f}")
                    )
                )
            click.echo(json.dumps(scores[-1].summary()))
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    found = comparisons(scores)
    table = table_markdown(scores, found)
    summary = {"scores": [score.summary() for score in scores], "comparisons": [asdict(line) for line in found]}
    _write(out / "ablation.json", json.dumps(summary, indent=1) + "\n")
    _write(out / "ablation.md", table)
    plot(scores, out / "dimensions.png")
    click.echo(table, err=True)


if __name__ == "__main__":
    main()
