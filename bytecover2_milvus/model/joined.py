"""The embedding of a magnitude by networks as trained, before an export folds them: with a chroma network or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Config
from ..errors import ConfigError
from .chroma_network import ChromaInput, ChromaNetwork, check_pooling
from .cqt import pool_time
from .network import ByteCover2
from .network_input import NetworkInput
from .note_map import NOTE_POOLING, NoteMap


class MagnitudeToEmbedding(nn.Module):
    """Unit embedding (B, D) of the magnitude of a CQT (B, n_bins, T) in frames of `pooling` CQT frames.

    Parameters
    ----------
    config : Config
    network : ByteCover2
        In eval mode, and so the others.
    note_map : NoteMap or None
        Needed by a network that takes maps or is joined.
    chroma_network : ChromaNetwork or None
        Needed by a network that is joined.

    Raises
    ------
    ConfigError
        If one that is needed is missing, or as `NetworkInput`.
    """

    def __init__(
        self,
        config: Config,
        network: ByteCover2,
        note_map: NoteMap | None = None,
        chroma_network: ChromaNetwork | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.network_input = NetworkInput(config.front_end, config.network, note_map)
        self.pooling = self.network_input.pooling
        self.chroma_input = self.chroma_network = None
        if config.network.joins:
            if note_map is None or chroma_network is None:
                raise ConfigError("a joined network needs the note map and the chroma network of its checkpoint")
            check_pooling(config.front_end)
            self.chroma_input, self.chroma_network = ChromaInput(config.front_end, note_map), chroma_network
            self.pooling = NOTE_POOLING

    def forward(self, magnitude: Tensor) -> Tensor:
        of_network = pool_time(magnitude, self.network_input.pooling // self.pooling)
        pooled = self.network.mean_pooled(self.network_input(of_network))
        if self.chroma_input is not None and self.chroma_network is not None:
            pooled = torch.cat([pooled, self.chroma_network.pooled(self.chroma_input(magnitude))], dim=1)
        return F.normalize(self.network.head(pooled)[1], dim=1)
