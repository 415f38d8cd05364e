"""The training loop: batch, forward, loss, step, average, log, validate, save.

The paper's recipe is four calls: `train` with phase "bytecover" (no PCA-FC, 2048-d), `reduce.insert_pca_fc`, `train`
with phase "frozen" (PCA-FC, BNNeck and classifier only), `train` with phase "joint" (everything, at a lower rate).

Started by torchrun, the same loop runs in several processes, each on its share of every batch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from ..config import AUTO, Config, Notes, Training
from ..errors import CheckpointError, ConfigError, OutputError, TrainingError
from ..metrics import Evaluation, evaluate
from ..model.network import ByteCover2
from ..model.network_input import NetworkInput, check_input
from ..model.note_map import NoteMap
from .averaging import Averaged
from .checkpoint import BEST, LAST, Checkpoint, load_checkpoint, optimizer_tensors, restore_optimizer
from .data.batches import TrainingBatches
from .data.corpus import Corpus, same_files, text_digest
from .data.feature_cache import FeatureCache, pool_track
from .distributed import launch
from .gradient import backward
from .journal import JOURNAL, Journal
from .optimizer import make_optimizer
from .precision import choose_precision

VALIDATION = "Validation MAP"  # the fact that says how good a checkpoint is
OF_THESE_WEIGHTS = (VALIDATION, "Scores", "PCA-FC")  # facts that are not true of weights that follow from these


@dataclass(frozen=True)
class Progress:
    """A report of the loop after every step, and before the first if the weights it starts from are validated."""

    step: int  # steps done
    loss: float  # NaN before the first step
    tracks_per_s: float  # of this step, with the wait for its batch
    validation: Evaluation | None = None


def learning_rate(step: int, training: Training) -> float:
    """Linear warm-up, of a tenth of the run at most, then a half cosine down to ``final_rate`` times the rate.

    A run without end stays at its rate.
    """
    warmup = min(1.0, (step + 1) / max(1, min(training.warmup_steps, training.last_step // 10)))
    if not training.steps:
        return training.learning_rate * warmup
    done = step / training.steps
    cosine = training.final_rate + (1 - training.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return training.learning_rate * warmup * cosine


def check_start(config: Config, init: Checkpoint | None) -> None:
    """Make sure, before anything is computed, that a run can start as `config` says, from `init` or a new network.

    Raises
    ------
    ConfigError
        If the phase needs a checkpoint and there is none, the networks differ, a new network has a PCA-FC, or the
        network wants maps and there is no note map.
    """
    if config.training.phase == "notes" and config.network.maps:
        raise ConfigError('phase "notes" would change the maps that the network takes: start from one without')
    if config.training.phase != "notes":
        check_input(config.front_end, config.network, init.note_map if init else None)
    if config.training.phase != "notes" and config.notes != (init.config.notes if init else Notes()):
        raise ConfigError('only phase "notes" trains a note map: leave the table [notes] out, or set training.phase')
    if init is not None:
        if init.config.front_end != config.front_end or not init.network.fits(config.network):
            changes = ", ".join(config.differences(replace(init.config, training=config.training)))
            raise ConfigError(
                f"the initial checkpoint has another network or front end than the run asks for: {changes}"
            )
    elif config.training.phase not in ("bytecover", "notes"):
        raise ConfigError(f'phase "{config.training.phase}" starts from a checkpoint: give one with --init')
    elif config.network.feature_dim is not None and config.training.phase != "notes":
        raise ConfigError(
            'phase "bytecover" has no PCA-FC, which fit-pca inserts later: add --set \'network.feature_dim="none"\''
        )


def check_disjoint(corpus: Corpus, validation: Corpus) -> None:
    """Make sure that nothing of what is validated on is trained on.

    Raises
    ------
    ConfigError
        If both have a work of one name, or a file of the same bytes.
    """
    works = sorted(corpus.works.keys() & validation.works.keys())
    shared = works or sorted(map(str, same_files(corpus.files, validation.files)))
    if shared:
        kind = "work" if works else "file"
        raise ConfigError(f"{shared[0]}: a {kind} to train on and to validate on, {len(shared)} in all; hold them out")


def initial_network(config: Config, init: Checkpoint | None) -> ByteCover2:
    """The network a run starts from: a new one, or that of `init`, with more blocks or without PCA-FC as the run wants.

    What is new is drawn from the seed.
    """
    torch.manual_seed(config.training.seed)
    return init.network.adapted(config.network) if init else ByteCover2(config.network)


def set_phase(network: ByteCover2, phase: str) -> None:
    """Training mode; in phase "frozen" the backbone and GeM neither learn nor update their statistics."""
    network.train()
    for part in (network.backbone, network.gem):
        part.requires_grad_(phase != "frozen")
        part.train(phase != "frozen")


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
    network = resumed.network if resumed else initial_network(config, init)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # on CPUs statistics are those of a rank's share
    before = resumed or init
    note_map = before.note_map if before else None
    classifier = initial_classifier(config, works, len(corpus.works), before)
    facts = lasting_facts(facts or {})

    averaged = Averaged(network, training.averaging)
    if resumed:
        averaged.resume(resumed.running, resumed.step)
    set_phase(network, training.phase)
    named: list[tuple[str, Tensor]] = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    named.append(("classifier.weight", classifier.weight))
    names = [name for name, _ in named]
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster order for convolutions
    model = fabric.setup_module(network)
    averaged.to(fabric.device)
    classifier = classifier.to(fabric.device)
    optimizer: Any = make_optimizer([p for _, p in named], training)  # then Fabric's, whose class is private
    if resumed and resumed.optimizer:
        restore_optimizer(optimizer, names, resumed.optimizer)
    optimizer = fabric.setup_optimizers(optimizer)
    step = resumed.step if resumed else 0
    best = float(resumed.facts.get(VALIDATION, -1)) if resumed else -1.0
    journal = Journal(out / JOURNAL, resumed.samples, resumed.seconds) if resumed else Journal(out / JOURNAL)

    def save(path: Path, **running: Any) -> None:
        reached = {VALIDATION: f"{best:.6f}"} if best >= 0 else {}
        if fabric.is_global_zero:
            Checkpoint(config, averaged.kept, note_map, works=works, facts=facts | reached, **running).save(path)

    network_input = NetworkInput(config.front_end, config.network, note_map).to(fabric.device).requires_grad_(False)

    def validate_and_save_best() -> Evaluation:
        """Validate; the weights are kept if none were better before."""
        nonlocal best
        result = validate(averaged.kept, config, validation, cache, fabric.device, note_map=note_map)
        fabric.log_dict({"validation/map": result.map, "validation/mr1": result.mr1}, step)
        set_phase(network, training.phase)
        journal.write(step, map=result.map, mr1=result.mr1, precision_at_10=result.precision_at_10)
        if (reached := round(result.map, 6)) > best:  # as rounded as saved, or a resumed run would take a tie
            best = reached
            save(out / BEST, classifier=classifier.weight)
        return result

    unjudged = best < 0 if resumed and go_on else init and not resumed
    if validation.works and unjudged and fabric.is_global_zero:
        report(Progress(step, math.nan, 0.0, validate_and_save_best()))
    shares = TrainingBatches(corpus, cache, training, fabric.global_rank, fabric.world_size, network_input.pooling)
    batches = DataLoader(
        Subset(shares, range(step, training.last_step)),
        batch_size=None,
        num_workers=data_workers,
        prefetch_factor=4 if data_workers else None,
        pin_memory=fabric.device.type == "cuda",
    )
    started = time.perf_counter()
    for cqt, work in batches:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        with torch.no_grad():
            cqt = network_input(cqt.to(fabric.device, non_blocking=True))
        work = work.to(fabric.device, non_blocking=True)
        optimizer.zero_grad()
        terms = backward(fabric, model, cqt, work, classifier, training)
        assert classifier.weight.grad is not None
        fabric.all_reduce(classifier.weight.grad)  # equal on all ranks but for rounding
        optimizer.step()
        averaged.update()
        step += 1
        journal.samples += len(work)

        values = torch.stack(list(terms.values())).tolist()  # one wait for the device, not one per term
        logged = {f"loss/{name}": value for name, value in zip(terms, values, strict=True)}
        if not math.isfinite(sum(values)):
            raise TrainingError(
                f"step {step}: the loss is no number any more ({logged}); run it again in another folder with a lower"
                f" training.learning_rate. What {out} holds was saved before"
            )
        tracks_per_s = len(work) / (time.perf_counter() - started)
        speed = {"learning_rate": learning_rate(step - 1, training), "tracks_per_s": tracks_per_s}
        fabric.log_dict(logged | speed, step)
        result = None
        due = step % training.validate_every == 0 or step == training.last_step
        if validation.works and fabric.is_global_zero and due:
            result = validate_and_save_best()
        if step % training.save_every == 0 or step == training.last_step:
            moments = optimizer_tensors(optimizer.optimizer, names)
            reached = {"step": step, "samples": journal.samples, "seconds": journal.seconds}
            weights = {"classifier": classifier.weight, "optimizer": moments, "running": averaged.running}
            save(out / LAST, **weights, **reached, **run)
        if fabric.is_global_zero:
            report(Progress(step, sum(logged.values()), tracks_per_s, result))
        started = time.perf_counter()
    if best < 0:
        save(out / BEST, classifier=classifier.weight)
    fabric.barrier()  # no rank returns before the checkpoint is there
    return out / BEST


def make_folder(out: Path) -> None:
    """Make the folder of a run, where it is not there yet.

    Raises
    ------
    OutputError
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error


def lasting_facts(facts: dict[str, str]) -> dict[str, str]:
    """The facts that stay true when other weights follow from these."""
    return {name: text for name, text in facts.items() if name not in OF_THESE_WEIGHTS}


def fingerprint(corpus: Corpus) -> str:
    """A hash of works, tracks and their sound, in order: another hash means other batches."""
    digest = hashlib.sha256()
    for work_id, track in corpus.tracks():
        line = f"{work_id}\n{track.track_id}\n{track.source.fingerprint}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def works_digest(works: Iterable[str]) -> str:
    """A hash of the works' names, in order: what a classifier tells apart."""
    return text_digest("\n".join(works))


def weights_digest(network: ByteCover2) -> str:
    """A hash of all weights and statistics of a network."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def resume(path: Path, config: Config, corpus: str, validation: str, start: str) -> Checkpoint | None:
    """The checkpoint of a run that goes on, or None where `path` is not there.

    Raises
    ------
    CheckpointError
        If it is of another configuration, on other tracks, validated on others or from other weights.
    """
    if not path.exists():
        return None
    last = load_checkpoint(path)
    if last.config != config:
        changes = ", ".join(config.differences(last.config))
        raise CheckpointError(
            f"{path}: a run of another configuration ({changes}); give the same, or choose an empty folder with --out"
        )
    if last.corpus not in ("", corpus):  # "": saved before checkpoints told
        raise CheckpointError(
            f"{path}: a run on other tracks than those given now (songs or files were added, left out, reordered or "
            "changed, or another version arranges them); give the same, or choose an empty folder with --out"
        )
    if last.validation not in ("", validation):
        raise CheckpointError(
            f"{path}: a run whose best weights another validation chose (songs or files were added, left out or "
            "changed); give the same, or choose an empty folder with --out"
        )
    if last.start != start:
        raise CheckpointError(
            f"{path}: a run that began from other weights; give the same --init, or choose an empty folder with --out"
        )
    return last


def adapt(path: Path, config: Config, works: str, n_works: int, validation: str) -> Checkpoint | None:
    """The checkpoint of a run, as far as another can go on from it, or None where `path` is not there.

    Steps go on, so that tracks that were heard do not come again. The classifier of other works starts anew, and so do
    all moments with another phase or optimizer; what another validation found is forgotten.

    Raises
    ------
    CheckpointError
        If it is of another network.
    """
    if not path.exists():
        return None
    last = load_checkpoint(path)
    if changes := replace(config, training=last.config.training).differences(last.config):
        raise CheckpointError(
            f"{path}: a run of another network ({', '.join(changes)}); give the same, or choose an empty folder with "
            "--out"
        )
    before, now = last.config.training, config.training
    moments = last.optimizer if (before.phase, before.optimizer) == (now.phase, now.optimizer) else {}
    if last.works != works:
        new = torch.zeros(n_works, config.network.embedding_dim)
        moments = {
            name: (new if value.ndim else torch.zeros(())) if name.startswith("classifier.") else value
            for name, value in moments.items()
        }
    facts = last.facts if last.validation == validation else lasting_facts(last.facts)
    return replace(last, optimizer=moments, facts=facts)


def initial_classifier(config: Config, works: str, n_works: int, source: Checkpoint | None) -> nn.Linear:
    """Linear (D -> n_works) without bias; that of `source` where it is of the same works, so that phases go on."""
    torch.manual_seed(config.training.seed)
    classifier = nn.Linear(config.network.embedding_dim, n_works, bias=False)
    nn.init.normal_(classifier.weight, std=0.01)
    learned = source.classifier if source and source.works == works else None
    if learned is not None and learned.shape == classifier.weight.shape:  # another width: PCA-FC has come between
        classifier.load_state_dict({"weight": learned}, strict=True)
    return classifier


@torch.inference_mode()
def pooled_embeddings(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    watch: Callable[[], object] = lambda: None,
    *,
    note_map: NoteMap | None = None,
) -> NDArray[np.float32]:
    """Pooled embeddings of all whole tracks of a corpus, in its order, `mean_pooled` (N, 2048); network in eval mode.

    `watch` is called after each. A network with maps needs the note map.
    """
    network.eval()
    network_input = NetworkInput(config.front_end, config.network, note_map).to(device)
    rows = []
    for _, track in corpus.tracks():
        magnitude = pool_track(cache.load(track), config.front_end, cache.pooling, network_input.pooling)
        rows.append(network.mean_pooled(network_input(magnitude.to(device))))
        watch()
    return torch.cat(rows).cpu().numpy()


def validate(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
) -> Evaluation:
    """Exact metrics of the corpus' whole tracks, each against all the others, in float32 whatever the run's precision.

    So the MAP of a checkpoint is the one its network has wherever it is evaluated.
    """
    tracks = list(corpus.tracks())
    rows = embeddings(network, config, corpus, cache, device, note_map=note_map)
    return evaluate(rows, [work for work, _ in tracks], [track.track_id for _, track in tracks])


@torch.inference_mode()
def embeddings(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
) -> NDArray[np.float32]:
    """The unit embeddings (N, D) of the whole tracks of a corpus in its order."""
    pooled = torch.from_numpy(pooled_embeddings(network, config, corpus, cache, device, note_map=note_map)).to(device)
    return F.normalize(network.head(pooled)[1], dim=1).cpu().numpy()
