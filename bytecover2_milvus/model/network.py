"""ByteCover2: ResNet50-IBN, GeM, PCA-FC and BNNeck, one class for every D.

Shapes: cqt (B, 84, T), or with the note map's maps (B, 3, 84, T) -> backbone (B, 2048, 6, ceil(T / 8)) -> pooled
(B, 2048) -> feature (B, D) -> embedding (B, D).

A network learns from a track as it is. What it embeds may be the mean of the pooled embeddings of the track in several
transpositions: that takes away some of what the backbone still tells of the key.

References
----------
X. Du et al., "ByteCover2: Towards dimensionality reduction of latent embedding for efficient cover song
identification", ICASSP 2022.
X. Du et al., "ByteCover: Cover song identification via multi-loss training", ICASSP 2021.
X. Pan et al., "Two at once: Enhancing learning and generalization capacities via IBN-Net", ECCV 2018 (IBN-a).
F. Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019 (GeM).
P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017 (blocks that start as shortcuts).
H. Luo et al., "Bag of tricks and a strong baseline for deep person re-identification", CVPRW 2019 (BNNeck).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Network
from .network_input import input_channels

EXPANSION = 4  # of a bottleneck: its output has four times the channels of its 3 x 3 convolution


class IBN(nn.Module):
    """InstanceNorm (affine) on the first half of the channels, BatchNorm on the second half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.n_instance = channels // 2
        self.instance_norm = nn.InstanceNorm2d(self.n_instance, affine=True)
        self.batch_norm: nn.Module = nn.BatchNorm2d(channels - self.n_instance)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.instance_norm(x[:, : self.n_instance]), self.batch_norm(x[:, self.n_instance :])], dim=1)


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1; with `ibn`, the norm after the first convolution is IBN."""

    def __init__(self, in_channels: int, width: int, stride: tuple[int, int], ibn: bool) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1: nn.Module = IBN(width) if ibn else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != (1, 1) or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        return F.relu(self.norm3(self.conv3(h)) + self.shortcut(x))


class ResNetIBN(nn.Module):
    """Backbone (B, n_bins, T) -> (B, 32 * base_width, n_bins / 14 rounded up, ceil(T / 8)); 84 bins give 6.

    Frequency is halved by the stem, the max pooling and groups 2 and 3 (84-42-21-11-6); time by the stem and groups 2
    and 3 only, which leaves T / 8.
    """

    def __init__(self, config: Network) -> None:
        super().__init__()
        width = config.base_width
        self.conv1 = nn.Conv2d(input_channels(config), width, 7, stride=(2, 2), padding=3, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(width)  # an export folds it away
        self.max_pool = nn.MaxPool2d(3, stride=(2, 1), padding=1)
        groups, in_channels = [], width
        for index, (blocks, stride) in enumerate(
            zip(config.stage_blocks, [(1, 1), (2, 2), (2, 2), (1, 1)], strict=True)
        ):
            group_width = width << index
            ibn = index < 3
            group = [Bottleneck(in_channels, group_width, stride, ibn)]
            in_channels = group_width * EXPANSION
            group += [Bottleneck(in_channels, group_width, (1, 1), ibn) for _ in range(blocks - 1)]
            groups.append(nn.Sequential(*group))
        self.groups = nn.ModuleList(groups)

    def forward(self, cqt: Tensor) -> Tensor:
        x = cqt if cqt.ndim == 4 else cqt[:, None]
        x = self.max_pool(F.relu(self.norm1(self.conv1(x))))  # (B, 64, 21, ceil(T / 2))
        for group in self.groups:
            x = group(x)
        return x  # (B, 2048, 6, ceil(T / 8))


class GeM(nn.Module):
    """Generalised mean over frequency and time, (B, C, F, T) -> (B, C), always in float32.

    ``mean(max(x, eps) ** p) ** (1 / p)``: eps cubed underflows in half precision.
    """

    def __init__(self, exponent: float, eps: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().clamp(min=self.eps)
            return x.pow(self.exponent).mean(dim=(2, 3)).pow(1 / self.exponent)


def transposing_kernel(transpositions: tuple[int, ...], n_bins: int) -> Tensor:
    """Kernel (K * n_bins, n_bins, 1) that moves the bins of a CQT up by each transposition; zeros move in."""
    return torch.cat([torch.diag(torch.ones(n_bins - abs(bins)), -bins) for bins in transpositions])[..., None]


def mean_over_transpositions(pooled: Callable[[Tensor], Tensor], cqt: Tensor, kernel: Tensor) -> Tensor:
    """The mean over the transpositions of `kernel` of what `pooled` (B, n_bins, T) -> (B, C) makes of `cqt`."""
    n_bins = cqt.shape[-2]
    if cqt.ndim == 3:
        moved = F.conv1d(cqt, kernel).split(n_bins, dim=1)  # K times (B, n_bins, T)
    else:  # every channel moves as the CQT does
        channels = F.conv1d(cqt.flatten(0, 1), kernel).split(n_bins, dim=1)
        moved = tuple(channel.unflatten(0, (-1, cqt.shape[1])) for channel in channels)  # K times (B, C, n_bins, T)
    return pooled(torch.cat(moved)).unflatten(0, (len(moved), -1)).mean(dim=0)


class ByteCover2(nn.Module):
    """The network between the front end and cosine similarity.

    `feature_dim` None is ByteCover: no PCA-FC, and the feature is the pooled vector itself. BNNeck is a BatchNorm whose
    bias stays zero (Luo et al. 2019). A network is *joined* where its PCA-FC takes the embedding of a chroma network
    too (`model.chroma_network`), which whoever calls `head` puts behind the pooled one.

    A new network is in eval mode: whoever trains it says so (`training.train.set_phase`).
    """

    def __init__(self, config: Network) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNetIBN(config)
        self.gem = GeM(config.gem_exponent, config.gem_eps)
        self.pca_fc: nn.Identity | nn.Linear = nn.Identity()
        if config.feature_dim is not None:
            self.pca_fc = nn.Linear(config.pooled_dim + config.joined, config.feature_dim)
        self.bnneck = nn.BatchNorm1d(config.embedding_dim)
        self.bnneck.bias.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.norm3.weight)  # every block starts as its shortcut, else deep ones learn late
        self.eval()

    def pooled(self, cqt: Tensor) -> Tensor:
        """(B, n_bins, T) -> (B, 2048), float32."""
        return self.gem(self.backbone(cqt))

    def mean_pooled(self, cqt: Tensor) -> Tensor:
        """The mean of `pooled` over the transpositions, (B, n_bins, T) -> (B, 2048)."""
        kernel = transposing_kernel(self.config.transpositions, cqt.shape[-2]).to(cqt.device)
        return mean_over_transpositions(self.pooled, cqt, kernel)

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2048) -> feature (B, D) for the triplet loss, embedding (B, D) for the classifier and for retrieval.

        Of a network that is joined, `pooled` (B, 2048 + joined) ends with the embedding of the chroma network.
        """
        with torch.autocast(pooled.device.type, enabled=False):
            feature = self.pca_fc(pooled)
            return feature, self.bnneck(feature)

    def forward(self, cqt: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.pooled(cqt))

    def embed(self, cqt: Tensor) -> Tensor:
        """Unit embedding (B, D) of cqt (B, n_bins, T): what retrieval compares by cosine."""
        return F.normalize(self.head(self.mean_pooled(cqt))[1], dim=1)

    def fits(self, config: Network) -> bool:
        """True if `config` is this network, or one that `adapted` makes of it."""
        dim = None if config.feature_dim is None else self.config.feature_dim
        blocks, transpositions, maps = config.stage_blocks, config.transpositions, config.maps or self.config.maps
        same = replace(self.config, stage_blocks=blocks, feature_dim=dim, transpositions=transpositions, maps=maps)
        return same == config and all(map(operator.ge, config.stage_blocks, self.config.stage_blocks))

    def adapted(self, config: Network) -> ByteCover2:
        """A copy with the blocks per group, transpositions and maps of `config`, and without PCA-FC if it has none.

        Blocks that are added start as their shortcut, kernels over maps with zeros: the same function. In the place of
        PCA-FC and its BNNeck is a BNNeck that has seen nothing.
        """
        network = ByteCover2(config)
        kept = self.state_dict()
        added = input_channels(config) - input_channels(self.config)
        kept["backbone.conv1.weight"] = F.pad(kept["backbone.conv1.weight"], (0, 0, 0, 0, 0, added))
        if config.feature_dim is None and self.config.feature_dim is not None:
            kept = {name: value for name, value in kept.items() if not name.startswith(("pca_fc.", "bnneck."))}
        network.load_state_dict(network.state_dict() | kept, strict=True)
        return network
