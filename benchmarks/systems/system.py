"""The interface of a system: it hears a track, and scores a query against tracks that it has heard.

All begin with the same magnitude of a CQT, (n_bins, T) in frames of 0.116 s, so that none has a better front end than
another. A system that learns gives a unit vector and scores by cosine; a system that aligns keeps a time series and
scores a pair of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bytecover2_milvus.config import FrontEnd
from bytecover2_milvus.model.cqt import WaveformToCQT, pool_time
from bytecover2_milvus.model.losses import batch_hard_triplet
from bytecover2_milvus.model.note_map import NOTE_POOLING

FRONT_END = FrontEnd(time_pooling=NOTE_POOLING)

Magnitude = NDArray[np.floating]  # (n_bins, T)


class System(Protocol):
    """A way to find covers."""

    name: str

    def hear(self, magnitude: Magnitude) -> NDArray[Any]:
        """The representation of a track that is stored."""

    def scores(self, query: NDArray[Any], tracks: Sequence[NDArray[Any]]) -> NDArray[np.floating]:
        """Scores (n_tracks,) of a query, higher is closer."""


@dataclass(frozen=True)
class Objective:
    """The loss of a system, and the rates at which it learns: of new weights, and of what it takes from another."""

    cross_entropy: float = 0.0  # weight of the cross-entropy over works
    smoothing: float = 0.0  # of its labels
    temperature: float = 0.0  # cross-entropy of cosines with one proxy per work, divided by this; 0: of a linear layer
    triplet: float = 0.0  # weight of the batch-hard triplet loss
    margin: float = 0.3
    bias: bool = False  # the classifier has one
    learning_rate: float = 1e-3
    finetuning_rate: float = 1e-4

    def classifier(self, dim: int, n_works: int) -> nn.Linear:
        """A new classifier of embeddings."""
        return nn.Linear(dim, n_works, bias=self.bias)

    def loss(self, feature: Tensor, embedding: Tensor, classifier: nn.Linear, work: Tensor) -> Tensor:
        """The loss of a batch: the triplet loss is of features, the cross-entropy of embeddings."""
        total = feature.new_zeros(())
        if self.cross_entropy:
            if self.temperature:
                weight = F.normalize(classifier.weight, dim=1)
                logits = F.linear(F.normalize(embedding, dim=1), weight) / self.temperature
            else:
                logits = classifier(embedding)
            total = total + self.cross_entropy * F.cross_entropy(logits, work, label_smoothing=self.smoothing)
        if self.triplet:
            total = total + self.triplet * batch_hard_triplet(feature, work, self.margin)
        return total


class Learned(nn.Module, ABC):
    """A system that learns a vector. ``forward`` gives feature and embedding (B, D) of a magnitude (B, n_bins, T)."""

    name: str
    objective: Objective
    fewest: int  # frames of `frame` that the network needs; a shorter track is repeated
    frame: int  # frames of the magnitude in one of the network's

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, the length of the embedding."""

    @abstractmethod
    def head(self) -> list[nn.Module]:
        """The modules that learn while the rest is frozen."""

    def size(self) -> int:
        """The number of parameters, without those of a note map that it hears through and that learns nothing."""
        named = self.named_parameters()
        return sum(value.numel() for name, value in named if not name.startswith("note_map."))

    def set_phase(self, frozen: bool) -> None:
        """Prepare for training: of all, or of the head alone, with the rest as if it were not training."""
        self.train(not frozen)
        for parameter in self.parameters():
            parameter.requires_grad_(not frozen)
        for module in self.head() if frozen else ():
            module.train()
            for parameter in module.parameters():
                parameter.requires_grad_(True)

    def long_enough(self, magnitude: Tensor) -> Tensor:
        """A magnitude (B, n_bins, T), repeated until the network can take it."""
        least = self.fewest * self.frame
        times = -(-least // magnitude.shape[2])
        return magnitude if times <= 1 else magnitude.repeat(1, 1, times)

    @torch.inference_mode()
    def hear(self, magnitude: Magnitude) -> NDArray[np.float32]:
        """The unit embedding (D,) of a whole track."""
        self.eval()
        device = next(self.parameters()).device
        batch = torch.from_numpy(np.ascontiguousarray(magnitude, dtype=np.float32))[None].to(device)
        return F.normalize(self(batch)[1], dim=1)[0].cpu().numpy()

    def scores(self, query: NDArray[np.float32], tracks: Sequence[NDArray[np.float32]]) -> NDArray[np.floating]:
        """Cosines (n_tracks,)."""
        return np.asarray(tracks) @ query


class ByOutput(Learned):
    """A system whose head is one linear layer, `output`."""

    output: nn.Linear

    @property
    def dim(self) -> int:
        return self.output.out_features

    def head(self) -> list[nn.Module]:
        return [self.output]


def scaled(channels: int, share: float) -> int:
    """A number of channels at a share of the published width."""
    return max(1, round(channels * share))


def cqt_frames(magnitude: Tensor, frame: int) -> Tensor:
    """A magnitude (B, n_bins, T) over its maximum, with one channel, in frames of `frame`: (B, 1, n_bins, T')."""
    pooled = pool_time(magnitude, frame)
    return (pooled / pooled.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12))[:, None]


@torch.inference_mode()
def magnitude_of(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The magnitude (n_bins, T) that systems hear, of a waveform at 22 050 Hz."""
    return _front_end()(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].numpy()


@cache
def _front_end() -> WaveformToCQT:
    return WaveformToCQT(FRONT_END).eval()
