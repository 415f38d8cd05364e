"""Adam, the paper's, and Muon: Adam whose convolution kernels move along an orthogonal matrix instead.

References
----------
K. Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024: the momentum, the iteration and its
coefficients.
J. Liu et al., "Muon is scalable for LLM training", 2025: steps as long as Adam's, so one learning rate does for both.
D. P. Kingma, J. Ba, "Adam: A method for stochastic optimization", 2015.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..config import Training

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of X, X X' X and (X X')^2 X
_ITERATIONS = 5
_ADAM_STEP = 0.2  # root mean square of Adam's steps over its learning rate, as Liu et al. found it


def make_optimizer(parameters: Iterable[Tensor], training: Training) -> torch.optim.Optimizer:
    """The optimizer that `training.optimizer` names, at `training.learning_rate`."""
    optimizers: dict[str, type[torch.optim.Adam | Muon]] = {"adam": torch.optim.Adam, "muon": Muon}
    return optimizers[training.optimizer](parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


class Muon(torch.optim.Optimizer):
    """Muon for kernels, which have four axes, and Adam for all other parameters, at one learning rate.

    A kernel (out, in, height, width) is the matrix (out, in x height x width). Its momentum, made orthogonal, moves all
    directions of the matrix alike, where Adam's step is nearly of low rank.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.momentum, self.betas, self.eps = momentum, betas, eps

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # training has no closures
        """One step; `closure` is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, lr, decay = self.state[parameter], group["lr"], group["weight_decay"]
                if parameter.ndim == 4:
                    parameter.mul_(1 - lr * decay)  # in the gradient, which is made orthogonal, it would be lost
                    self._along_orthogonal(parameter, parameter.grad, state, lr)
                else:
                    self._adam(parameter, parameter.grad.add(parameter, alpha=decay), state, lr)

    def _along_orthogonal(self, kernel: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        direction = orthogonal(gradient.lerp(state["momentum"], self.momentum).flatten(1))  # Nesterov's look ahead
        length = _ADAM_STEP * math.sqrt(max(direction.shape))  # elements of `direction` have 1 / sqrt(max) on average
        kernel.add_(direction.view(kernel.shape), alpha=-lr * length)

    def _adam(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float) -> None:
        if not state:
            state |= {
                "step": torch.tensor(0.0),
                "mean": torch.zeros_like(gradient),
                "power": torch.zeros_like(gradient),
            }
        state["step"] += 1
        (mean_decay, power_decay), step = self.betas, state["step"].item()
        state["mean"].lerp_(gradient, 1 - mean_decay)
        state["power"].lerp_(gradient.square(), 1 - power_decay)
        deviation = (state["power"] / (1 - power_decay**step)).sqrt().add_(self.eps)
        parameter.addcdiv_(state["mean"], deviation, value=-lr / (1 - mean_decay**step))


def orthogonal(matrix: Tensor) -> Tensor:
    """The singular vectors of a matrix (M, N) with singular values between 0.7 and 1.2 instead of its own, in float32.

    By Newton and Schulz' iteration in bfloat16: matrix products only. Singular values below about 1e-3 of the norm
    stay smaller.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = len(matrix) <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).float().contiguous()
