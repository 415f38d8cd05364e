"""ByteCover and what the ByteCover2 paper makes of it: FC-128, PCA-128, ByteCover2-128 and ByteCover2-1536.

X. Du, Z. Yu, B. Zhu, X. Chen, Z. Ma, "ByteCover: Cover song identification via multi-loss training", ICASSP 2021; X.
Du, K. Chen, Z. Wang, B. Zhu, Z. Ma, "ByteCover2: Towards dimensionality reduction of latent embedding for efficient
cover song identification", ICASSP 2022.

Fixed by the papers: ResNet50-IBN of 2048 channels over a CQT, GeM, BNNeck; cross-entropy after it and triplet loss
(0.3) before. ByteCoverPCA is a PCA of ByteCover's embeddings, not trained. In ByteCoverFC a layer with random weights
stands between GeM and BNNeck; in ByteCover2 (PCA-FC) it begins as the principal axes. Both are trained alone at
first, the backbone frozen, and then with it. Adam, 1e-4.

Chosen: as the package has it (``docs/paper.md``): strides, IBN-a, label smoothing, no whitening; frames of 20
CQT frames (0.46 s), where the paper has 100.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.frozen_head import insert_random_fc
from bytecover2_milvus.config import Config, FrontEnd, Network
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.model.note_map import NOTE_POOLING
from bytecover2_milvus.training.checkpoint import Checkpoint
from bytecover2_milvus.training.insert_pca import insert_embedding_pca, insert_pca_fc

from .system import Learned, Objective, cqt_frames

Inserted = Callable[[Checkpoint, NDArray[np.float32], int], Checkpoint]


class ByteCover(Learned):
    """ByteCover, or with a layer of D values ByteCover2 and its like: (B, n_bins, T) -> (B, D)."""

    objective = Objective(cross_entropy=1.0, smoothing=0.1, triplet=1.0, margin=0.3)
    fewest = 8

    def __init__(self, name: str, config: Config, network: ByteCover2 | None = None) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.frame = config.front_end.time_pooling // NOTE_POOLING
        self.network = network or ByteCover2(config.network)

    @classmethod
    def new(cls, share: float = 1.0, time_pooling: int = 20) -> ByteCover:
        """ByteCover without a layer in between, of a share of the published 2048 channels."""
        network = Network(None, base_width=max(1, round(64 * share)))
        return cls(f"ByteCover-{network.pooled_dim}", Config(FrontEnd(time_pooling=time_pooling), network))

    @property
    def dim(self) -> int:
        return self.config.network.embedding_dim

    def head(self) -> list[nn.Module]:
        return [self.network.pca_fc, self.network.bnneck]

    def set_phase(self, frozen: bool) -> None:
        super().set_phase(frozen)
        self.network.bnneck.bias.requires_grad_(False)

    def forward(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(cqt_frames(self.long_enough(magnitude), self.frame)[:, 0])

    @torch.inference_mode()
    def pooled(self, magnitudes: list[NDArray[np.floating]]) -> NDArray[np.float32]:
        """The pooled embeddings (N, 2048) of whole tracks."""
        self.eval()
        rows = []
        for magnitude in magnitudes:
            batch = torch.from_numpy(np.asarray(magnitude, dtype=np.float32))[None]
            batch = self.long_enough(batch.to(self.network.bnneck.weight.device))
            rows.append(self.network.pooled(cqt_frames(batch, self.frame)[:, 0])[0].cpu().numpy())
        return np.stack(rows)

    def reduced(self, name: str, insert: Inserted, pooled: NDArray[np.float32], dim: int) -> ByteCover:
        """This ByteCover with a layer to `dim` values, put in by one of `LAYERS` from pooled embeddings (N, 2048)."""
        device = self.network.bnneck.weight.device
        made = insert(Checkpoint(self.config, self.network.cpu()), pooled, dim)
        self.network.to(device)
        return ByteCover(name, made.config, made.network).to(device)


LAYERS: dict[str, Inserted] = {
    "FC": partial(insert_random_fc, seed=0),
    "PCA": insert_embedding_pca,
    "PCA-FC": insert_pca_fc,
}
