"""One step of training on a rank: network, classifier and optimizer, as a run starts them or as it left them."""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..config import Config, Training
from ..model.chroma_network import ChromaNetwork
from ..model.network import ByteCover2
from .averaging import Averaged
from .checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from .gradient import backward
from .optimizer import make_optimizer
from .start import initial_classifier, initial_network

_Network = TypeVar("_Network", bound=nn.Module)


class Learner:
    """Network, classifier and optimizer on the device of a rank, and the average of the weights, which is kept.

    Parameters
    ----------
    config : Config
    fabric : Fabric
    works : str
        `works_digest` of the works to be told apart.
    n_works : int
    init : Checkpoint or None
        Where the run starts, if not at a new network.
    resumed : Checkpoint or None
        What the run has saved, if it has; then `init` says nothing.
    """

    def __init__(
        self,
        config: Config,
        fabric: Fabric,
        works: str,
        n_works: int,
        init: Checkpoint | None,
        resumed: Checkpoint | None,
    ) -> None:
        self.training, self.fabric = config.training, fabric
        network = resumed.learned() if resumed else initial_network(config, init)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            network = _synchronised(network)  # on CPUs statistics are those of a rank's share
        before = self.before = resumed or init
        self.note_map = before.note_map if before else None
        self.classifier = initial_classifier(config, works, n_works, before)
        self.averaged = Averaged(network, self.training.averaging)
        if resumed:
            self.averaged.resume(resumed.running, resumed.step)
        set_phase(network, self.training.phase)
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        named.append(("classifier.weight", self.classifier.weight))
        self._names = [name for name, _ in named]
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster order for convolutions
        self._model = fabric.setup_module(network)
        self.averaged.to(fabric.device)
        self.classifier = self.classifier.to(fabric.device)
        optimizer = make_optimizer([p for _, p in named], self.training)
        if resumed and resumed.optimizer:
            restore_optimizer(optimizer, self._names, resumed.optimizer)
        self._optimizer: Any = fabric.setup_optimizers(optimizer)  # its class is private
        self.step = resumed.step if resumed else 0  # steps done

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.step, self.training)

    @property
    def networks(self) -> tuple[ByteCover2, ChromaNetwork | None]:
        """The two networks of a checkpoint: the one that is trained, as it is kept, and the other, as it was."""
        kept = self.averaged.kept
        if isinstance(kept, ChromaNetwork):
            assert self.before is not None
            return self.before.network, kept
        return kept, self.before.chroma_network if self.before else None

    @property
    def moments(self) -> dict[str, Tensor]:
        """Those of the optimizer, as `optimizer_tensors` names them."""
        return optimizer_tensors(self._optimizer.optimizer, self._names)

    def learn(self, cqt: Tensor, work: Tensor) -> dict[str, Tensor]:
        """One step on a rank's share of a batch, as `backward` takes it: the terms of the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.zero_grad()
        terms = backward(self.fabric, self._model, cqt, work, self.classifier, self.training)
        assert self.classifier.weight.grad is not None
        self.fabric.all_reduce(self.classifier.weight.grad)  # equal on all ranks but for rounding
        self._optimizer.step()
        self.averaged.update()
        self.step += 1
        return terms


def _synchronised(network: _Network) -> _Network:
    """The network with statistics of BatchNorm over the whole batch of all GPUs."""
    return cast(_Network, nn.SyncBatchNorm.convert_sync_batchnorm(network))


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


def set_phase(network: nn.Module, phase: str) -> None:
    """Training mode; in phase "frozen" the backbone and GeM neither learn nor update their statistics."""
    network.train()
    if not isinstance(network, ByteCover2):
        return
    for part in (network.backbone, network.gem):
        part.requires_grad_(phase != "frozen")
        part.train(phase != "frozen")
