"""The training loop of the note map: batch, forward, loss, step, average, log, validate, save.

The songs say which notes sound in every frame of their arrangements, so the loss is a plain binary cross-entropy per
bin and frame. What is validated and saved is a moving average of the weights, which is as good at any moment as the
weights would be after their rate had been brought down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..alignment.qmax import qmax_scores
from ..config import Config
from ..metrics import average_precision
from ..model.network import ByteCover2
from ..model.note_map import MAPS, TIME_STRIDE, Chroma, NoteMap, note_input
from .averaging import Averaged
from .checkpoint import BEST, LAST, Checkpoint, optimizer_tensors, restore_optimizer
from .data.corpus import Corpus
from .data.feature_cache import FeatureCache
from .data.note_batches import NoteBatches, load_note_track
from .distributed import launch
from .learner import learning_rate
from .optimizer import make_optimizer
from .resume import fingerprint, lasting_facts, resume, weights_digest
from .run_folder import make_folder
from .train import finite_losses, load_batches

NOTE_VALIDATION = "Alignment MAP"  # the fact that says how good a note map is
VALIDATION_TRACKS = 3  # of each held-out work
POSITIVE_WEIGHT = (2.0, 4.0)  # of cells in which a note of MAPS sounds, which are few


@dataclass(frozen=True)
class NoteValidation:
    """The validation of a note map: average precision of its notes, and MAP by alignment of its chroma."""

    average_precision: dict[str, float]  # of each of MAPS, over all bins and frames
    map: float  # of alignment alone: each track asks for the others of its work

    def __str__(self) -> str:
        heard = ", ".join(f"{name} {score:.3f}" for name, score in self.average_precision.items())
        return f"MAP {self.map:.3f} by alignment, average precision of {heard}"


@dataclass(frozen=True)
class NoteProgress:
    """A report of the loop after every step."""

    step: int  # steps done
    loss: float
    tracks_per_s: float  # excerpts of this step, with the wait for their batch
    validation: NoteValidation | None = None


def note_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits and target (B, 2, n_bins, n_frames), mean over all cells."""
    weight = logits.new_tensor(POSITIVE_WEIGHT)[:, None, None]
    return F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=weight)


def train_notes(
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
    report: Callable[[NoteProgress], None] = lambda progress: None,
) -> Path:
    """Train the note map and return the path of the best checkpoint; a run that was cut off goes on where it stopped.

    The parameters are those of `training.train.train`, and so are the checks that come before. The network for the
    vector is that of `init`, or a new one, and is saved as it was. With `init` the note map goes on from its own, if it
    has one of the same form.

    Raises
    ------
    CheckpointError
        If the folder holds a run of another configuration, on other tracks or validated on others.
    DeviceError
        If `device` is "cuda" and torch cannot use it.
    OutputError
        If the folder or a checkpoint cannot be written.
    TrainingError
        If the corpus holds a recording, or the loss is not finite any more.
    """
    training, out = config.training, Path(out)
    validation = Corpus({work: tracks[:VALIDATION_TRACKS] for work, tracks in (validation or Corpus({})).works.items()})
    fabric = launch(device, training.precision, out)
    make_folder(out)
    start = weights_digest(init.network) if init else ""
    run = {"corpus": fingerprint(corpus), "validation": fingerprint(validation), "start": start}
    resumed = resume(out / LAST, config, **run)
    torch.manual_seed(training.seed)
    before = resumed or init
    network = before.network if before else ByteCover2(config.network)
    note_map = initial_note_map(config, before)
    averaged = Averaged(note_map, training.averaging)
    if resumed:
        averaged.resume(resumed.running, resumed.step)

    note_map.train()
    names = [name for name, _ in note_map.named_parameters()]
    note_map.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster order for convolutions
    model = fabric.setup_module(note_map)
    averaged.to(fabric.device)
    optimizer: Any = make_optimizer(note_map.parameters(), training)  # then Fabric's, whose class is private
    if resumed:
        restore_optimizer(optimizer, names, resumed.optimizer)
    optimizer = fabric.setup_optimizers(optimizer)
    step = resumed.step if resumed else 0
    best = float(resumed.facts.get(NOTE_VALIDATION, -1)) if resumed else -1.0
    facts = lasting_facts(facts or {})

    def save(path: Path, **running: Any) -> None:
        reached = {NOTE_VALIDATION: f"{best:.6f}"} if best >= 0 else {}
        Checkpoint(config, network, note_map=averaged.kept, facts=facts | reached, **running).save(path)

    batches = NoteBatches(corpus, cache, training)
    started = time.perf_counter()
    for cqt, target in load_batches(batches, range(step, training.last_step), data_workers, fabric.device):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        logits = model(note_input(cqt.to(fabric.device, non_blocking=True)))
        loss = note_loss(logits, target.to(fabric.device, non_blocking=True))
        optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        averaged.update()
        step += 1

        losses = finite_losses({"notes": loss.detach()}, step, out)
        tracks_per_s = len(cqt) / (time.perf_counter() - started)
        fabric.log_dict(losses | {"tracks_per_s": tracks_per_s}, step)
        result = None
        if validation.works and (step % training.validate_every == 0 or step == training.last_step):
            result = validate_notes(averaged.kept, validation, cache, fabric.device)
            note_map.train()
            fabric.log_dict({f"validation/{name}": score for name, score in result.average_precision.items()}, step)
            fabric.log_dict({"validation/map": result.map}, step)
            if (reached := round(result.map, 6)) > best:
                best = reached
                save(out / BEST)
        if step % training.save_every == 0 or step == training.last_step:
            moments = optimizer_tensors(optimizer.optimizer, names)
            save(out / LAST, step=step, optimizer=moments, running=averaged.running, **run)
        report(NoteProgress(step, sum(losses.values()), tracks_per_s, result))
        started = time.perf_counter()
    if best < 0:
        save(out / BEST)
    return out / BEST


def initial_note_map(config: Config, source: Checkpoint | None) -> NoteMap:
    """A copy of the note map of `source`, or a new one, drawn from the seed, where there is none of that form."""
    note_map = NoteMap(config.notes)
    if source and source.note_map and source.config.notes == config.notes:
        note_map.load_state_dict(source.note_map.state_dict(), strict=True)
    return note_map


@torch.inference_mode()
def validate_notes(
    note_map: NoteMap, corpus: Corpus, cache: FeatureCache, device: torch.device | str = "cpu"
) -> NoteValidation:
    """The validation of a note map, in eval mode, on a corpus of whole tracks, at least two of each work."""
    note_map.eval()
    fold = Chroma(cache.front_end.n_bins).to(device)
    chroma: list[NDArray[np.float32]] = []
    scores: list[list[NDArray[np.float32]]] = [[] for _ in MAPS]
    truths: list[list[NDArray[np.bool_]]] = [[] for _ in MAPS]
    for _, chosen in corpus.tracks():
        track = load_note_track(chosen, cache)
        output = note_map(note_input(torch.from_numpy(track.cqt)[None].to(device))).float()
        chroma.append(fold(output)[0].cpu().numpy())
        logits = output[0].cpu().numpy()
        n_frames = logits.shape[2]
        rolls = track.rolls[:, :, : n_frames * TIME_STRIDE].reshape(len(MAPS), -1, n_frames, TIME_STRIDE).mean(axis=3)
        for index in range(len(MAPS)):
            scores[index].append(logits[index].ravel())
            truths[index].append(rolls[index].ravel() >= 0.5)
    return NoteValidation(
        {
            name: cell_average_precision(np.concatenate(score), np.concatenate(truth))
            for name, score, truth in zip(MAPS, scores, truths, strict=True)
        },
        alignment_map(chroma, [work for work, _ in corpus.tracks()]),
    )


def alignment_map(chroma: Sequence[NDArray[np.float32]], works: Sequence[str]) -> float:
    """MAP where every track (n_frames, channels) asks for the others of its work by the mean score of its groups."""
    work = np.array(works)
    precisions = []
    for query, own in enumerate(chroma):
        others = np.arange(len(work)) != query
        scores = qmax_scores(own, chroma).mean(axis=1)
        precisions.append(average_precision(scores[others], (work == work[query])[others]))
    return float(np.mean(precisions))


def cell_average_precision(score: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Mean, over the true cells, of the precision at their rank; `score` and `truth` (n_cells,)."""
    found = truth[np.argsort(-score, kind="stable")]
    hits = np.cumsum(found)
    return float((hits[found] / (np.flatnonzero(found) + 1)).mean()) if hits[-1] else 0.0
