"""The weights that a run validates and keeps: a moving average of those in training.

An average is as good at any moment as the weights would be after their rate had been brought down, so a run at a
constant rate may end, or be cut off, at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Network = TypeVar("_Network", bound=nn.Module)


class Averaged(Generic[_Network]):
    """A network in training beside the one that is kept, which is the same one if `decay` is 0.

    Statistics of norms are averaged as weights are: they are moving averages themselves.

    Parameters
    ----------
    network : nn.Module
        In training; its weights are the average to begin with.
    decay : float
        Of the average, from 0 to below 1.
    """

    def __init__(self, network: _Network, decay: float) -> None:
        self.network = network
        self._average = AveragedModel(network, multi_avg_fn=moving_average(decay), use_buffers=True) if decay else None
        if self._average is not None:
            self._average.requires_grad_(False).eval()

    @property
    def kept(self) -> _Network:
        """The network to validate and to save."""
        return self.network if self._average is None else cast(_Network, self._average.module)

    @property
    def running(self) -> dict[str, Tensor]:
        """The weights in training, where they are others than `kept`: resuming needs them."""
        return {} if self._average is None else self.network.state_dict()

    def resume(self, running: dict[str, Tensor], steps: int) -> None:
        """Go on after `steps` from an average, which is there already, and the weights that were in training."""
        if running:
            self.network.load_state_dict(running, strict=True)
        if self._average is not None:
            self._average.n_averaged.fill_(steps)

    def to(self, device: torch.device) -> None:
        """The average on a device."""
        if self._average is not None:
            self._average.to(device)

    def update(self) -> None:
        """After every step."""
        if self._average is not None:
            self._average.update_parameters(self.network)


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """An update of averaged weights that begins as their mean and ends as a moving average with that decay.

    Else the first weights, which have learned nothing, would count for a thousand steps.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        n = int(n_averaged)
        share = 1 - min(decay, (1 + n) / (10 + n))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    return update
