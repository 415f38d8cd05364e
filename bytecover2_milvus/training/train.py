"""The training loop: batch, forward, loss, step, average, log, validate, save.

The paper's recipe is four calls: `train` with phase "bytecover" (no PCA-FC, 2048-d), `insert_pca_fc`, `train`
with phase "frozen" (PCA-FC, BNNeck and classifier only), `train` with phase "joint" (everything, at a lower rate).

A fifth, phase "chroma", trains the network that joins the backbone before the PCA-FC (`model.chroma_network`).

Started by torchrun, the same loop runs in several processes, each on its share of every batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..config import AUTO, Config
from ..errors import TrainingError
from ..metrics import Evaluation
from ..model.network_input import NetworkInput
from ..model.note_map import NoteMap
from .checkpoint import BEST, LAST, Checkpoint
from .data.batches import TrainingBatches
from .data.chroma_batches import ChromaBatches, ChromaCache
from .data.corpus import Corpus
from .data.feature_cache import FeatureCache
from .distributed import launch
from .learner import Learner, set_phase
from .precision import choose_precision
from .resume import adapt, fingerprint, lasting_facts, resume, weights_digest, works_digest
from .run_folder import RunFolder, make_folder
from .validation import validate


@dataclass(frozen=True)
class Progress:
    """A report of the loop after every step, and before the first if the weights it starts from are validated."""

    step: int  # steps done
    loss: float  # NaN before the first step
    tracks_per_s: float  # of this step, with the wait for its batch
    validation: Evaluation | None = None


def train(
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    out: str | Path,
    *,
    init: Checkpoint | None = None,
    validation: Corpus | None = None,
    device: str = "auto",
    data_workers: int = 1,
    facts: dict[str, str] | None = None,
    go_on: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train and return the path of the best checkpoint; a run that was cut off goes on where it stopped.

    `check_start` and `check_disjoint` hold of what is given: `run_training` makes sure before anything is computed.

    Parameters
    ----------
    config : Config
    corpus : Corpus
        Works to train on.
    cache : FeatureCache
        Where the CQTs of `corpus` and `validation` are; filled as needed.
    out : str or Path
        Folder of the run: ``last.safetensors``, ``best.safetensors``, a line for each validation in ``log.jsonl`` and
        TensorBoard's logs. If it holds the ``last.safetensors`` of the same configuration, that run is resumed exactly.
    init : Checkpoint, optional
        Where phases "frozen" and "joint" start.
    validation : Corpus, optional
        Works that are in no training batch; the best MAP decides ``best.safetensors``. That of `init` counts too: a
        run that gains nothing returns the weights it was given.
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where it works, else the CPU.
    data_workers : int
        Processes that prepare batches, of every rank; 0 prepares them in this one.
    facts : dict of str, optional
        What the weights are trained on, kept in the checkpoint for the model card.
    go_on : bool
        The run in `out` goes on with what fits of it, where settings, tracks or validation are others by now.
    report : callable
        Called after every step, on rank 0.

    Raises
    ------
    ConfigError
        If a batch has fewer works than there are ranks.
    CheckpointError
        If the folder holds a run of another configuration, on other tracks or validated on others; with `go_on`, of
        another network.
    DeviceError
        If `device` is "cuda" and torch cannot use it, or there are more ranks than GPUs.
    OutputError
        If the folder or a checkpoint cannot be written.
    """
    training, out = config.training, Path(out)
    validation = validation or Corpus({})
    make_folder(out)
    automatic = training.precision == AUTO
    fabric = launch(device, choose_precision(config, device, out).precision if automatic else training.precision, out)
    works = works_digest(corpus.works)
    start = weights_digest(init.network) if init else ""
    run = {"corpus": fingerprint(corpus), "validation": fingerprint(validation), "start": start}
    if go_on:
        resumed = adapt(out / LAST, config, works, len(corpus.works), run["validation"])
    else:
        resumed = resume(out / LAST, config, **run)
    learner = Learner(config, fabric, works, len(corpus.works), init, resumed)
    folder = RunFolder(out, config, learner, works, run, lasting_facts(facts or {}), resumed)
    network_input, shares = _phase_data(config, corpus, cache, learner.note_map, fabric.global_rank, fabric.world_size)
    network_input.to(fabric.device).requires_grad_(False)

    def validated() -> Evaluation:
        """The validation of the weights that are kept, noted in the folder."""
        kept, note_map = learner.averaged.kept, learner.note_map
        result = validate(kept, config, validation, cache, fabric.device, note_map=note_map)
        fabric.log_dict({"validation/map": result.map, "validation/mr1": result.mr1}, learner.step)
        set_phase(learner.averaged.network, training.phase)
        folder.add_validation(result)
        return result

    validates = bool(validation.works) and fabric.is_global_zero
    if validates and (not folder.has_best if resumed and go_on else init and not resumed):
        report(Progress(learner.step, math.nan, 0.0, validated()))
    started = time.perf_counter()
    for cqt, work in load_batches(shares, range(learner.step, training.last_step), data_workers, fabric.device):
        with torch.no_grad():
            cqt = network_input(cqt.to(fabric.device, non_blocking=True))
        rate = learner.rate
        losses = finite_losses(learner.learn(cqt, work.to(fabric.device, non_blocking=True)), learner.step, out)
        step = learner.step
        folder.journal.samples += len(work)
        tracks_per_s = len(work) / (time.perf_counter() - started)
        fabric.log_dict(losses | {"learning_rate": rate, "tracks_per_s": tracks_per_s}, step)
        ends = step == training.last_step
        result = validated() if validates and (ends or step % training.validate_every == 0) else None
        if ends or step % training.save_every == 0:
            folder.save_last()
        if fabric.is_global_zero:
            report(Progress(step, sum(losses.values()), tracks_per_s, result))
        started = time.perf_counter()
    if not folder.has_best:
        folder.save_best()
    fabric.barrier()  # no rank returns before the checkpoint is there
    return out / BEST


def _phase_data(
    config: Config, corpus: Corpus, cache: FeatureCache, note_map: NoteMap | None, rank: int, ranks: int
) -> tuple[nn.Module, TrainingBatches]:
    """A rank's batches, and what makes of them the input of the network that the phase trains.

    Raises
    ------
    ConfigError
        As `NetworkInput` and `TrainingBatches`.
    """
    if config.training.phase == "chroma":
        assert note_map is not None
        heard = ChromaCache(cache, note_map, config.training)
        return nn.Identity(), ChromaBatches(corpus, heard, config.training, rank, ranks)
    network_input = NetworkInput(config.front_end, config.network, note_map)
    return network_input, TrainingBatches(corpus, cache, config.training, rank, ranks, network_input.pooling)


def load_batches(
    batches: Dataset[Any], steps: range, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The batches of `steps`, prepared in `workers` processes of one thread each, or in this one where that is 0."""
    return DataLoader(
        Subset(batches, steps),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


def finite_losses(terms: dict[str, Tensor], step: int, out: Path) -> dict[str, float]:
    """The terms of a step's loss, as they are logged.

    Raises
    ------
    TrainingError
        If their sum is not finite.
    """
    values = torch.stack(list(terms.values())).tolist()  # one wait for the device, not one per term
    losses = {f"loss/{name}": value for name, value in zip(terms, values, strict=True)}
    if not math.isfinite(sum(values)):
        raise TrainingError(
            f"step {step}: the loss is no number any more ({losses}); run it again in another folder with a lower"
            f" training.learning_rate. What {out} holds was saved before"
        )
    return losses
