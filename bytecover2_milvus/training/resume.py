"""The run that a folder holds, as far as it goes on, and the hashes that tell one run from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..config import Config
from ..errors import CheckpointError
from .checkpoint import Checkpoint, load_checkpoint
from .data.corpus import Corpus, text_digest
from .validation import VALIDATION

OF_THESE_WEIGHTS = (VALIDATION, "Scores", "PCA-FC")  # facts that are not true of weights that follow from these


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
        new = torch.zeros(n_works, config.learned_dim)
        moments = {
            name: (new if value.ndim else torch.zeros(())) if name.startswith("classifier.") else value
            for name, value in moments.items()
        }
    facts = last.facts if last.validation == validation else lasting_facts(last.facts)
    return replace(last, optimizer=moments, facts=facts)


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


def weights_digest(network: nn.Module) -> str:
    """A hash of all weights and statistics of a network."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
