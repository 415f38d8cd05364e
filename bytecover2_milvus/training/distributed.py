"""One process or several: what torchrun started, the device of each rank, and the batch that the ranks share.

Rank r of R works on rows r, r + R, r + 2R, ... of every batch, and every rank computes the losses on all rows. A rank's
network gets the gradient of its own rows, R times, as DDP takes the mean over ranks: so the gradient is that of one
process, whatever R is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor

from ..errors import DeviceError


def launched() -> tuple[int, int]:
    """This process' rank and the number of ranks, as torchrun says; (0, 1) without torchrun."""
    if not torch.distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def torch_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" means here; "auto" is CUDA where it works, else the CPU.

    Raises
    ------
    DeviceError
        If `name` is "cuda" and torch cannot use it.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"CUDA was asked for but torch {torch.__version__} cannot use it; choose cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def launch(device: str, precision: str, logs: Path) -> Fabric:
    """Fabric on this rank's device, the ranks connected: by NCCL between GPUs, by gloo between CPUs.

    Raises
    ------
    DeviceError
        If `device` is "cuda" and torch cannot use it, or this machine has fewer GPUs than ranks.
    """
    on_gpu = torch_device(device).type == "cuda"
    _, ranks = launched()
    local_ranks = int(os.environ["LOCAL_WORLD_SIZE"]) if ranks > 1 else 1
    if on_gpu and local_ranks > torch.cuda.device_count():
        raise DeviceError(
            f"{local_ranks} processes for {torch.cuda.device_count()} GPUs: give torchrun --nproc-per-node the number "
            "of GPUs, or choose cpu"
        )
    fabric = Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        strategy="ddp" if ranks > 1 else "auto",
        devices=local_ranks,
        num_nodes=ranks // local_ranks,
        precision=cast(Any, precision),
        loggers=TensorBoardLogger(logs, name="tensorboard", version=""),
    )
    fabric.launch()
    return fabric


def gather(fabric: Fabric, rows: Tensor, n_rows: int) -> Tensor:
    """The batch (n_rows, D) of which every rank has its share (n_rows / R rounded up or down, D), differentiable."""
    if fabric.world_size == 1:
        return rows
    ranks, share = fabric.world_size, -(-n_rows // fabric.world_size)
    own = torch.cat([rows, rows.new_zeros(share - len(rows), rows.shape[1])])  # collectives need equal shapes
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * ranks)
    gathered = [torch.empty_like(own) for _ in range(ranks)]
    torch.distributed.all_gather(gathered, own.detach())
    gathered[fabric.global_rank] = own
    return torch.stack(gathered, dim=1).flatten(0, 1)[:n_rows]  # (share, R, D), what was added last
