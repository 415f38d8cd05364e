"""The chroma network: an embedding of a track's chroma, the same in every key, which joins that of the backbone.

It hears what the second stage aligns, the notes and the tune that the note map finds, and not the sound. All twelve
rotations of the pitch classes go through one convolutional network over time, and a generalised mean is taken over time
and rotations: so the embedding of a track that is transposed is the same, but for what the note map hears otherwise.

Shapes: chroma (B, T, 24) -> rotations (B, 24, 12, T) -> features (B, 4 * width, 12, ceil(T / 8)) -> pooled
(B, 4 * width).

References
----------
Z. Yu et al., "Learning a representation for cover song identification using convolutional neural network", ICASSP 2020
(CQT-Net) and F. Yesiler et al., "Accurate and scalable version identification using musically-motivated embeddings",
ICASSP 2020 (MOVE): networks that take every transposition alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CHROMA_GROUPS, Chroma, FrontEnd
from ..errors import ConfigError
from .network import GeM
from .note_map import NOTE_POOLING, OCTAVE, NoteMap, note_input
from .note_map import Chroma as FoldedChroma

_GEM_EXPONENT, _GEM_EPS = 3.0, 1e-6


class TimeConvolution(nn.Module):
    """A convolution over time alone, and its norm."""

    def __init__(self, in_channels: int, channels: int, size: int, stride: int = 1) -> None:
        super().__init__()
        padding = (0, size // 2)
        self.conv: nn.Module = nn.Conv2d(in_channels, channels, (1, size), (1, stride), padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class TimeBlock(nn.Module):
    """Residual block: one frame, five frames, one frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 2
        self.first = TimeConvolution(channels, narrow, 1)
        self.second = TimeConvolution(narrow, narrow, 5)
        self.third = TimeConvolution(narrow, channels, 1)
        assert isinstance(self.third.norm, nn.BatchNorm2d)
        nn.init.zeros_(self.third.norm.weight)  # it starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.third(F.relu(self.second(F.relu(self.first(x))))))


class ChromaNetwork(nn.Module):
    """Embedding (B, 4 * width) of chroma (B, T, 24) in [0, 1], not normalised.

    A new network is in eval mode: whoever trains it says so.
    """

    def __init__(self, config: Chroma) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.layers = nn.Sequential(
            TimeConvolution(len(CHROMA_GROUPS) * OCTAVE, width, 5, stride=2),
            nn.ReLU(),
            TimeConvolution(width, 2 * width, 5, stride=2),
            nn.ReLU(),
            TimeBlock(2 * width),
            TimeConvolution(2 * width, 4 * width, 3, stride=2),
            nn.ReLU(),
            TimeBlock(4 * width),
        )
        self.gem = GeM(_GEM_EXPONENT, _GEM_EPS)
        bnneck = nn.BatchNorm1d(config.dim)
        bnneck.bias.requires_grad_(False)
        self.bnneck: nn.Module = bnneck  # an export folds it away
        self.eval()

    def pooled(self, chroma: Tensor) -> Tensor:
        """(B, T, 24) -> (B, 4 * width), before BNNeck."""
        return self.gem(self.layers(rotations(chroma)))

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled (B, 4 * width) -> feature and embedding (B, 4 * width), as those of `ByteCover2.head`."""
        with torch.autocast(pooled.device.type, enabled=False):
            return pooled, self.bnneck(pooled)

    def forward(self, chroma: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.pooled(chroma))


class ChromaInput(nn.Module):
    """Chroma (B, T // 4, 24) of the magnitude of a CQT (B, n_bins, T) in frames of `NOTE_POOLING` CQT frames.

    Parameters
    ----------
    front_end : FrontEnd
    note_map : NoteMap
        In eval mode.
    """

    pooling = NOTE_POOLING

    def __init__(self, front_end: FrontEnd, note_map: NoteMap) -> None:
        super().__init__()
        self.note_map = note_map
        self.fold = FoldedChroma(front_end.n_bins)

    def forward(self, magnitude: Tensor) -> Tensor:
        return self.fold(self.note_map(note_input(magnitude)))


def check_pooling(front_end: FrontEnd) -> None:
    """Make sure that the frames of a network that joins a chroma network are whole numbers of the note map's.

    Raises
    ------
    ConfigError
    """
    if front_end.time_pooling % NOTE_POOLING:
        raise ConfigError(
            f"a chroma network with time_pooling = {front_end.time_pooling}: a multiple of {NOTE_POOLING} is needed"
        )


def rotations(chroma: Tensor) -> Tensor:
    """All rotations (B, 24, 12, T) of the pitch classes of chroma (B, T, 24), each group by itself."""
    groups = chroma.transpose(1, 2).unflatten(1, (-1, OCTAVE))  # (B, 2, 12, T)
    twice = torch.cat([groups, groups[:, :, :-1]], dim=2)
    rotated = [twice[:, :, start : start + OCTAVE] for start in range(OCTAVE)]
    return torch.stack(rotated, dim=3).flatten(1, 2)
