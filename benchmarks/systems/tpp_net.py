"""TPPNet: kernels of three octaves, the largest value over pitch, and a temporal pyramid of 4, 3, 2 and 1 parts.

Z. Yu, X. Xu, X. Chen, D. Yang, "Temporal pyramid pooling convolutional neural network for cover song identification",
IJCAI 2019.

Fixed by the paper and its public code: CQT of 84 bins averaged over 20 frames (0.464 s); kernels 36 x 40, 12 x 3, 3 x
3, then 1 x 3 three times behind a maximum over pitch, all but the first with a stride of 2 in time, with batch
normalisation and ReLU; maxima over a quarter, a third, a half and all of the time; 5120 -> 300; softmax over works;
cosine of the 300.

Chosen: as for CQT-Net; a track needs 102 frames (47 s), and is repeated until it has them.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .system import ByOutput, Objective, cqt_frames, scaled

PYRAMID = (4, 3, 2, 1)  # parts of the time


class TPPNet(ByOutput):
    """TPPNet with a share of the published channels, (B, n_bins, T) -> (B, 300)."""

    name = "TPPNet"
    objective = Objective(cross_entropy=1.0, bias=True)
    frame = 4
    fewest = 102

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        widths = [scaled(channels, share) for channels in (32, 64, 128, 256, 512, 512)]
        self.pitch = nn.Sequential(
            *_layer(1, widths[0], (36, 40), 1),
            *_layer(widths[0], widths[1], (12, 3), 2),
            *_layer(widths[1], widths[2], (3, 3), 2),
        )
        self.time = nn.Sequential(
            *(module for before, after in itertools.pairwise(widths[2:]) for module in _layer(before, after, (1, 3), 2))
        )
        self.output = nn.Linear(sum(PYRAMID) * widths[-1], scaled(300, share))

    def forward(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pitch(cqt_frames(self.long_enough(magnitude), self.frame))
        x = self.time(x.amax(dim=2, keepdim=True))[:, :, 0]  # (B, C, T')
        embedding = self.output(torch.cat([F.adaptive_max_pool1d(x, parts).flatten(1) for parts in PYRAMID], dim=1))
        return embedding, embedding


def _layer(before: int, after: int, kernel: tuple[int, int], stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, kernel, stride=(1, stride), bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]
