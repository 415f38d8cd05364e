"""The note map: a small network that says which notes sound in a CQT, and which of them carry the tune.

It is convolutional in frequency and in time and knows no absolute pitch: a track that is transposed by whole bins gives
the same map, moved by as many bins (but for what leaves or enters at the borders of the CQT). A harmonic lies the same
number of bins above its fundamental at every pitch, so kernels dilated by an octave gather the evidence for a note.

Shapes: cqt (B, n_bins, T) in frames of `NOTE_POOLING` CQT frames -> logits (B, 2, n_bins, T // TIME_STRIDE).

References
----------
R. M. Bittner et al., "Deep salience representations for F0 estimation in polyphonic music", ISMIR 2017, and R. M.
Bittner et al., "A lightweight instrument-agnostic model for polyphonic note transcription and multipitch estimation",
ICASSP 2022: small convolutional networks over a CQT with its harmonics in view.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CHROMA_GROUPS, Notes

MAPS = CHROMA_GROUPS
NOTE_POOLING = 5  # CQT frames per input frame: 0.116 s
TIME_STRIDE = 4  # input frames per frame of the map: 0.464 s
OCTAVE = 12  # bins
CHROMA_FRAME_HOPS = NOTE_POOLING * TIME_STRIDE  # CQT frames per frame of chroma: 0.464 s
_CENTRE, _SPREAD = 45.0, 18.0  # bins, of the weight with which octaves are folded: A4, an octave and a half
_SILENCE = 0.05  # the loudest pitch class below which a frame is not brought up to 1


class HarmonicBlock(nn.Module):
    """Residual block: a kernel over two octaves either way, then one over neighbouring bins and frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // 2
        self.conv1 = nn.Conv2d(width, narrow, (5, 1), padding=(2 * OCTAVE, 0), dilation=(OCTAVE, 1), bias=False)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return x + F.relu(self.norm2(self.conv2(h)))


class NoteMap(nn.Module):
    """Logits (B, 2, n_bins, T // 4) of `MAPS` for cqt (B, n_bins, T), the scaled magnitude of `note_input`.

    A new network is in eval mode: whoever trains it says so.
    """

    def __init__(self, config: Notes) -> None:
        super().__init__()
        self.config = config
        stem, width = config.width // 2, config.width
        self.conv1 = nn.Conv2d(1, stem, 5, stride=(1, 2), padding=2, bias=False)
        self.norm1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, width, (3, 5), stride=(1, 2), padding=(1, 2), bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(HarmonicBlock(width) for _ in range(config.blocks)))
        self.output = nn.Conv2d(width, len(MAPS), 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, -3.0)  # few notes sound at a time
        self.eval()

    def forward(self, cqt: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(cqt[:, None])))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.output(self.blocks(x))


def note_input(cqt: Tensor) -> Tensor:
    """The note map's input: the square root of a magnitude (B, n_bins, T) over each track's maximum, in [0, 1].

    T is cut to a multiple of `TIME_STRIDE`.
    """
    cqt = cqt[:, :, : cqt.shape[2] // TIME_STRIDE * TIME_STRIDE]
    return torch.sqrt(cqt / cqt.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12))


class Chroma(nn.Module):
    """Chroma (B, n_frames, 24) in [0, 1] of the note map's logits (B, 2, n_bins, n_frames), one map after the other.

    Octaves are folded with a Gaussian weight, and each frame of each map is divided by its largest value.
    """

    folding: Tensor

    def __init__(self, n_bins: int) -> None:
        super().__init__()
        self.register_buffer("folding", _folding(n_bins), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        groups = [F.conv1d(sounding, self.folding) for sounding in torch.sigmoid(logits).unbind(dim=1)]
        folded = [group / group.amax(dim=1, keepdim=True).clamp(min=_SILENCE) for group in groups]  # (B, 12, n_frames)
        return torch.cat(folded, dim=1).transpose(1, 2)


def _folding(n_bins: int) -> Tensor:
    """Kernel (12, n_bins, 1) that sums the weighted octaves of each pitch class; bin 0 is a C."""
    bins = torch.arange(n_bins)
    weight = torch.exp(-0.5 * ((bins - _CENTRE) / _SPREAD) ** 2)
    return (F.one_hot(bins % OCTAVE, OCTAVE) * weight[:, None]).T[..., None]
