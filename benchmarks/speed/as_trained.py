"""The network as it was trained, in PyTorch, and the front end by itself: the reference for graphs."""

from __future__ import annotations

from torch import Tensor, nn

from bytecover2_milvus.config import FrontEnd
from bytecover2_milvus.model.cqt import ConstantQ, pool_time
from bytecover2_milvus.model.joined import MagnitudeToEmbedding
from bytecover2_milvus.training.checkpoint import Checkpoint


class PooledCQT(nn.Module):
    """The front end by itself: waveform (B, n_samples) -> cqt (B, n_bins, T), the network's input before scaling."""

    note_map = None  # no second output

    def __init__(self, config: FrontEnd) -> None:
        super().__init__()
        self.config, self.constant_q = config, ConstantQ(config)

    def forward(self, waveform: Tensor) -> Tensor:
        return pool_time(self.constant_q(waveform), self.config.time_pooling)


def as_trained(checkpoint: Checkpoint) -> MagnitudeToEmbedding:
    """Unit embedding (B, D) of a cqt (B, n_bins, T) in frames of its `pooling`."""
    return MagnitudeToEmbedding(checkpoint.config, checkpoint.network, checkpoint.note_map, checkpoint.chroma_network)
