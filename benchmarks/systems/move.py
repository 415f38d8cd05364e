"""MOVE and Re-MOVE: convolutions over pitch classes in twelve keys, of which the largest counts.

F. Yesiler, J. Serra, E. Gomez, "Accurate and scalable version identification using musically-motivated embeddings",
ICASSP 2020, and "Less is more: faster and better music version identification with embedding distillation", ISMIR
2020.

Fixed by the papers and their public code: pitch classes stacked to 23 rows, so that a kernel of 12 x 180 meets all
twelve keys, and the maximum over them; kernels 1 x 5 four times, dilated by 1, 20, 1 and 13, with biases and PReLU
(from 0.01), 256 channels, the last 512: one half is weighted by a softmax of the other over time (auto-pool, one
learned factor); 256 -> 16 000 without bias, batch normalisation without gain. MOVE learns by triplets with a margin
of 1. Re-MOVE's latent-space reconfiguration takes a trained MOVE, puts a layer of 256 (or another size) in the place
of the last, trains that alone at first and then all of it, the rest at a rate far lower, by a softmax of cosines with
a proxy of each work.

Chosen: the learned chroma of the shipped model stands for cremaPCP; its frames of 0.464 s are repeated five times,
which gives the 0.093 s of cremaPCP. Hardest positives and negatives of a batch; the distance is divided by the root
of D, as theirs is squared and divided by D; Adam in place of SGD and Ranger; a temperature of 0.05.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bytecover2_milvus.model.note_map import OCTAVE, TIME_STRIDE, Chroma, NoteMap, note_input

from .system import FRONT_END, Learned, Objective, scaled

REPEATED = 5  # times that a frame of chroma stands, 0.464 s / 0.093 s
_CONVOLUTIONS = ((1, 1), (1, 20), (1, 1), (2, 13))  # output over input channels, dilation


class MOVE(Learned):
    """MOVE with a share of the published channels and dimensions, (B, n_bins, T) -> (B, 16000)."""

    name = "MOVE"
    objective = Objective(triplet=1.0, margin=1.0)
    frame = TIME_STRIDE
    fewest = 64  # 320 of its own frames, 30 s

    def __init__(self, note_map: NoteMap, share: float = 1.0, dim: int | None = None) -> None:
        super().__init__()
        width = scaled(256, share)
        self.note_map = copy.deepcopy(note_map).requires_grad_(False).eval()
        self.chroma = Chroma(FRONT_END.n_bins)
        self.keys = nn.Conv2d(1, width, (OCTAVE, 180))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width * times, 5, dilation=dilation) for times, dilation in _CONVOLUTIONS
        )
        self.activations = nn.ModuleList(nn.PReLU(init=0.01) for _ in range(1 + len(_CONVOLUTIONS)))
        self.pooling = nn.Parameter(torch.tensor(0.0))
        for convolution in (self.keys, *self.convolutions):
            nn.init.kaiming_normal_(convolution.weight, a=0.01, nonlinearity="leaky_relu")
        self.set_output(dim or scaled(16_000, share))

    def set_output(self, dim: int) -> None:
        """A new last layer, of `dim` values."""
        self.output = nn.Linear(self.keys.out_channels, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim, affine=False)

    @property
    def dim(self) -> int:
        return self.output.out_features

    def head(self) -> list[nn.Module]:
        return [self.output, self.norm]

    def set_phase(self, frozen: bool) -> None:
        super().set_phase(frozen)
        self.note_map.requires_grad_(False).eval()

    def pitch_classes(self, magnitude: Tensor) -> Tensor:
        """The learned chroma of all notes, (B, 1, 23, T'): eleven rows stand twice."""
        with torch.no_grad():
            chroma = self.chroma(self.note_map(note_input(magnitude)))[..., :OCTAVE].transpose(1, 2)  # (B, 12, T)
        chroma = chroma.repeat_interleave(REPEATED, dim=2)
        return torch.cat([chroma, chroma[:, :-1]], dim=1)[:, None]

    def forward(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        x = self.activations[0](self.keys(self.pitch_classes(self.long_enough(magnitude)))).amax(dim=2)
        for convolution, activation in zip(self.convolutions, self.activations[1:], strict=True):
            x = activation(convolution(x))
        weighing, weighed = x.chunk(2, dim=1)
        summary = (weighed * torch.softmax(weighing * self.pooling, dim=2)).sum(dim=2)  # (B, 256)
        embedding = self.norm(self.output(summary))
        return embedding / self.dim**0.5, embedding


class ReMOVE(MOVE):
    """Re-MOVE: the MOVE that it takes, with fewer dimensions."""

    name = "Re-MOVE"
    objective = Objective(cross_entropy=1.0, temperature=0.05, finetuning_rate=1e-5)

    @classmethod
    def of(cls, move: MOVE, dim: int = 256) -> ReMOVE:
        """A Re-MOVE of `dim` values that begins as a trained MOVE does, but for its last layer."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        for name, module in move.named_children():
            setattr(made, name, copy.deepcopy(module))
        made.pooling = nn.Parameter(move.pooling.detach().clone())
        made.set_output(dim)
        return made.to(move.pooling.device)
