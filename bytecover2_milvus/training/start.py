"""The start of a run: the checks of its configuration and data, and its first network and classifier."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..config import AUTO, Chroma, Config, Notes
from ..errors import ConfigError, TrainingError
from ..model.chroma_network import ChromaNetwork, check_pooling
from ..model.network import ByteCover2
from ..model.network_input import check_input
from .checkpoint import Checkpoint
from .data.corpus import Corpus, same_files
from .distributed import launched


def check_start(config: Config, init: Checkpoint | None) -> None:
    """Make sure, before anything is computed, that a run can start as `config` says, from `init` or a new network.

    Raises
    ------
    ConfigError
        If the phase needs a checkpoint and there is none, the networks differ, a new network has a PCA-FC, the network
        wants maps and there is no note map, or phase "notes" has no note map to train or what it cannot do.
    """
    if config.training.phase == "notes":
        _check_notes(config)
    elif config.training.phase == "chroma":
        _check_chroma(config, init)
    else:
        check_input(config.front_end, config.network, init.note_map if init else None)
        if config.notes != (init.config.notes if init else Notes()):
            raise ConfigError(
                'only phase "notes" trains a note map: leave the table [notes] out, or set training.phase'
            )
        if config.chroma != (init.config.chroma if init else Chroma()):
            raise ConfigError(
                'only phase "chroma" trains a chroma network: leave the table [chroma] out, or set training.phase'
            )
        if config.network.joins:
            raise ConfigError(
                "its PCA-FC joins the chroma network, so that it is fitted and not trained: add --set"
                " 'network.feature_dim=\"none\"', and fit-pca afterwards"
            )
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


def _check_notes(config: Config) -> None:
    """Make sure that a run of phase "notes" can start."""
    if config.network.maps:
        raise ConfigError('phase "notes" would change the maps that the network takes: start from one without')
    if not config.notes.width:
        raise ConfigError('phase "notes" trains the note map, and there is none: add --set notes.width=32')
    if config.training.precision == AUTO:
        raise ConfigError('phase "notes" computes in the precision that it is told: set training.precision="32-true"')
    if config.training.hearings:
        raise ConfigError('phase "notes" keeps the tracks that it has: leave training.hearings out')
    if launched()[1] > 1:
        raise ConfigError('phase "notes" runs in one process: start it without torchrun')


def _check_chroma(config: Config, init: Checkpoint | None) -> None:
    """Make sure that a run of phase "chroma" can start."""
    if init is None or init.note_map is None or config.notes != init.config.notes:
        raise ConfigError('phase "chroma" learns from the note map of a checkpoint: give --init one that has one')
    if not config.chroma.width:
        raise ConfigError('phase "chroma" trains the chroma network, and there is none: add --set chroma.width=48')
    if config.network != init.config.network:
        raise ConfigError('phase "chroma" leaves the network of the checkpoint as it is: leave the table [network] out')
    check_pooling(config.front_end)
    if init.chroma_network and config.chroma != init.config.chroma:
        raise ConfigError(f"the initial checkpoint has a chroma network of width {init.config.chroma.width}")
    if config.training.precision == AUTO:
        raise ConfigError('phase "chroma" computes in the precision that it is told: set training.precision="32-true"')


def check_disjoint(corpus: Corpus, validation: Corpus) -> None:
    """Make sure that nothing of what is validated on is trained on.

    Raises
    ------
    TrainingError
        If both have a work of one name, or a file of the same bytes.
    """
    works = sorted(corpus.works.keys() & validation.works.keys())
    shared = works or sorted(map(str, same_files(corpus.files, validation.files)))
    if shared:
        kind = "work" if works else "file"
        raise TrainingError(
            f"{shared[0]}: a {kind} to train on and to validate on, {len(shared)} in all; hold them out"
        )


def initial_network(config: Config, init: Checkpoint | None) -> ByteCover2 | ChromaNetwork:
    """The network a run starts from: a new one, or that of `init`, with more blocks or without PCA-FC as the run wants.

    What is new is drawn from the seed. In phase "chroma" it is the chroma network: that of `init` if it has one.
    """
    torch.manual_seed(config.training.seed)
    if config.training.phase == "chroma":
        network = ChromaNetwork(config.chroma)
        if init and init.chroma_network:
            network.load_state_dict(init.chroma_network.state_dict(), strict=True)
        return network
    return init.network.adapted(config.network) if init else ByteCover2(config.network)


def initial_classifier(config: Config, works: str, n_works: int, source: Checkpoint | None) -> nn.Linear:
    """Linear (D -> n_works) without bias; that of `source` where it is of the same works, so that phases go on."""
    torch.manual_seed(config.training.seed)
    classifier = nn.Linear(config.learned_dim, n_works, bias=False)
    nn.init.normal_(classifier.weight, std=0.01)
    learned = source.classifier if source and source.works == works else None
    if learned is not None and learned.shape == classifier.weight.shape:  # another width: PCA-FC has come between
        classifier.load_state_dict({"weight": learned}, strict=True)
    return classifier
