"""The loop that every system learns in: the same batches in the same order, Adam, the loss of the system."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .system import Learned

Batches = Callable[[int], tuple[Tensor, Tensor]]  # of step: magnitude (B, n_bins, T) and work (B,)


class Training:
    """A system in training; its classifier and step go on from one call to the next.

    Parameters
    ----------
    system : Learned
    batches : callable
    n_works : int
    first : int
        Step that it begins with: that of the system that it was made of, so that together they see a run's batches.
    device : torch.device or str
    """

    def __init__(
        self, system: Learned, batches: Batches, n_works: int, first: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.system = system.to(self.device)
        self.batches = batches
        self.step = first
        torch.manual_seed(0)
        self.classifier = system.objective.classifier(system.dim, n_works).to(self.device)

    def run(self, steps: int, frozen: bool = False, taken_over: bool = False) -> list[float]:
        """The losses of so many steps at the constant rates of the system's objective.

        Parameters
        ----------
        steps : int
        frozen : bool
            The head and the classifier alone learn.
        taken_over : bool
            All but these is of another system, and learns at the rate of finetuning.
        """
        self.system.set_phase(frozen)
        head = {id(parameter) for module in self.system.head() for parameter in module.parameters()}
        learned = [parameter for parameter in self.system.parameters() if parameter.requires_grad]
        rest = [parameter for parameter in learned if id(parameter) not in head]
        new = [*(parameter for parameter in learned if id(parameter) in head), *self.classifier.parameters()]
        objective = self.system.objective
        rate = objective.finetuning_rate if taken_over else objective.learning_rate
        optimizer = torch.optim.Adam([{"params": rest, "lr": rate}, {"params": new, "lr": objective.learning_rate}])
        losses = []
        for step in range(self.step, self.step + steps):
            magnitude, work = (value.to(self.device) for value in self.batches(step))
            feature, embedding = self.system(magnitude)
            loss = self.system.objective.loss(feature, embedding, self.classifier, work)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        self.step += steps
        self.system.eval()
        return losses
