"""The network as it ships: every normalisation that is linear at inference folded into the layer before it.

A BatchNorm in eval mode is ``y = s x + t`` with ``s = gamma / sigma`` and ``t = beta - s mu``, where
``sigma = sqrt(var + eps)``. Folded into the layer before it, ``W' = diag(s) W`` and ``b' = s b + t``. BNNeck after
PCA-FC goes the same way, which leaves one final linear layer. Folding is exact; it is computed in float64.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import FrontEnd
from ..errors import ConfigError
from ..model.chroma_network import ChromaNetwork, TimeConvolution, check_pooling
from ..model.cqt import WaveformToCQT, pool_time, scale_magnitude
from ..model.network import IBN, Bottleneck, ByteCover2, ResNetIBN, mean_over_transpositions, transposing_kernel
from ..model.network_input import beside_maps, check_input
from ..model.note_map import NOTE_POOLING, Chroma, HarmonicBlock, NoteMap, note_input


class Affine(nn.Module):
    """A weight and a bias per component: BNNeck where there is no PCA-FC to fold it into."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class FromCQT(nn.Module):
    """Unit embedding (B, D) of cqt (B, n_bins, T): folded backbone, GeM, one final linear layer, norm.

    The cqt is the mean magnitude over `time_pooling` frames, at any level: it is divided by its maximum here. Weights
    of convolutions and of the final layer are rounded to half precision, in which the bundle stores them; the
    arithmetic is float32.
    """

    transposing: Tensor

    def __init__(self, front_end: FrontEnd, network: ByteCover2) -> None:
        super().__init__()
        self.config = front_end
        self.backbone = fold_backbone(network.backbone)
        self.gem = copy.deepcopy(network.gem)
        self.final = fold_head(network)
        self.transpositions = network.config.transpositions
        if self.transpositions != (0,):
            self.register_buffer("transposing", transposing_kernel(self.transpositions, front_end.n_bins))
        _round_to_half(self.backbone)
        _round_to_half(self.final)
        self.eval().requires_grad_(False)

    def forward(self, cqt: Tensor) -> Tensor:
        return self.embed(scale_magnitude(cqt, self.config.scale))

    def embed(self, cqt: Tensor, joined: Tensor | None = None) -> Tensor:
        """Unit embedding (B, D) of the network's input, as `NetworkInput` gives it, and of the chroma network's."""
        if self.transpositions == (0,):
            pooled = self._pooled(cqt)
        else:
            pooled = mean_over_transpositions(self._pooled, cqt, self.transposing)
        if joined is not None:
            pooled = torch.cat([pooled, joined], dim=1)
        return F.normalize(self.final(pooled), dim=1)

    def _pooled(self, cqt: Tensor) -> Tensor:
        return self.gem(self.backbone(cqt))  # (B, 2048)


class InferenceModel(FromCQT):
    """Unit embedding (B, D) of waveform (B, n_samples): the front end, then `FromCQT`.

    With a note map, embedding and chroma (B, n_frames, 24), both of one CQT and, if the network takes maps or joins a
    chroma network, of the same maps. Where silence is skipped for the embedding, maps are computed twice then, since
    chroma keeps its time.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        network: ByteCover2,
        note_map: NoteMap | None = None,
        chroma_network: ChromaNetwork | None = None,
    ) -> None:
        super().__init__(front_end, network)
        self.front_end = WaveformToCQT(front_end)
        check_input(front_end, network.config, note_map)
        self.maps = network.config.maps
        self.chroma_network = None
        if network.config.joins:
            if note_map is None or chroma_network is None:
                raise ConfigError("a joined network needs the note map and the chroma network of its checkpoint")
            check_pooling(front_end)
            self.chroma_network = fold_chroma_network(chroma_network)
        self.note_map = fold_note_map(note_map) if note_map is not None else None
        self.chroma = Chroma(front_end.n_bins) if note_map is not None else None

    def pool_cqt(self, waveform: Tensor) -> Tensor:
        """The input of `FromCQT`, (B, n_bins, T), of waveform (B, n_samples)."""
        return self.front_end.pooled(waveform, self.front_end.constant_q(waveform))

    def outputs(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Embedding and, with a note map, chroma."""
        outputs = self(waveform)
        return (outputs,) if self.note_map is None else outputs

    def forward(self, waveform: Tensor) -> Any:  # Tensor, or with a note map two of them
        if self.note_map is None or self.chroma is None:
            return super().forward(self.pool_cqt(waveform))
        cqt = self.front_end.constant_q(waveform)
        if self.maps or self.chroma_network is not None:
            magnitude = pool_time(cqt, NOTE_POOLING)
            logits = heard = self.note_map(note_input(magnitude))
            if self.config.silence == "skipped":
                magnitude = self.front_end.pooled(waveform, cqt, NOTE_POOLING)
                heard = self.note_map(note_input(magnitude))
            if self.maps:
                network_input = beside_maps(magnitude, heard, self.config)
            else:
                of_network = pool_time(magnitude, self.config.time_pooling // NOTE_POOLING)
                network_input = scale_magnitude(of_network, self.config.scale)
            joined = None if self.chroma_network is None else self.chroma_network.pooled(self.chroma(heard))
            return self.embed(network_input, joined), self.chroma(logits)
        # First, so that its values have the names in the graph that they have without a note map: int8 hashes them.
        embedding = super().forward(self.front_end.pooled(waveform, cqt))
        return embedding, self.chroma(self.note_map(note_input(pool_time(cqt, NOTE_POOLING))))


def fold_note_map(note_map: NoteMap) -> NoteMap:
    """A copy without BatchNorm, its kernels rounded to half precision."""
    folded = copy.deepcopy(note_map)
    layers = [folded, *(block for block in folded.modules() if isinstance(block, HarmonicBlock))]
    for layer in layers:
        for index in (1, 2):
            conv, norm = getattr(layer, f"conv{index}"), getattr(layer, f"norm{index}")
            setattr(layer, f"conv{index}", _fold_conv(conv, norm))
            setattr(layer, f"norm{index}", nn.Identity())
    _round_to_half(folded)
    return folded.eval().requires_grad_(False)


def fold_chroma_network(network: ChromaNetwork) -> ChromaNetwork:
    """A copy without BatchNorm, its kernels rounded to half precision; its BNNeck is in the final layer already."""
    folded = copy.deepcopy(network)
    for layer in folded.modules():
        if isinstance(layer, TimeConvolution):
            assert isinstance(layer.conv, nn.Conv2d) and isinstance(layer.norm, nn.BatchNorm2d)
            layer.conv, layer.norm = _fold_conv(layer.conv, layer.norm), nn.Identity()
    folded.bnneck = nn.Identity()
    _round_to_half(folded)
    return folded.eval().requires_grad_(False)


def fold_backbone(backbone: ResNetIBN) -> ResNetIBN:
    """A copy without BatchNorm; of IBN the InstanceNorm half remains, as it depends on the input."""
    folded = copy.deepcopy(backbone)
    assert isinstance(folded.norm1, nn.BatchNorm2d)
    folded.conv1, folded.norm1 = _fold_conv(folded.conv1, folded.norm1), nn.Identity()
    for block in folded.modules():
        if isinstance(block, Bottleneck):
            for index in (1, 2, 3):
                conv, norm = getattr(block, f"conv{index}"), getattr(block, f"norm{index}")
                setattr(block, f"conv{index}", _fold_conv(conv, norm))
                if isinstance(norm, IBN):
                    norm.batch_norm = nn.Identity()
                else:
                    setattr(block, f"norm{index}", nn.Identity())
            if isinstance(block.shortcut, nn.Sequential):
                block.shortcut = _fold_conv(*block.shortcut)
    return folded


def fold_head(network: ByteCover2) -> nn.Linear | Affine:
    """PCA-FC and BNNeck as one layer on pooled (B, 2048)."""
    scale, shift = _scale_and_shift(network.bnneck)  # (D,), (D,)
    if isinstance(network.pca_fc, nn.Identity):
        return Affine(scale.float(), shift.float())
    final = copy.deepcopy(network.pca_fc)
    with torch.no_grad():
        final.weight.copy_(scale[:, None] * final.weight)
        final.bias.copy_(scale * final.bias + shift)
    return final


def _fold_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d | IBN) -> nn.Conv2d:
    """`conv` followed by `norm`; of IBN, the second half of the channels only."""
    if isinstance(norm, IBN):
        assert isinstance(norm.batch_norm, nn.BatchNorm2d)
        scale, shift = _scale_and_shift(norm.batch_norm)
        scale, shift = F.pad(scale, (norm.n_instance, 0), value=1.0), F.pad(shift, (norm.n_instance, 0))
    else:
        scale, shift = _scale_and_shift(norm)
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter((scale[:, None, None, None] * conv.weight).float())
    folded.bias = nn.Parameter(shift.float())
    return folded


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """s and t (C,), float64, of ``norm(x) = s x + t`` in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - scale * norm.running_mean.double()


def _round_to_half(module: nn.Module) -> None:
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.copy_(layer.weight.half())
