"""Losses of the training: cross-entropy over works is torch's own; triplet and supervised contrastive are here.

Conventions: `work` (B,) holds the index of each row's work. A track is never its own positive.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def batch_hard_triplet(feature: Tensor, work: Tensor, margin: float) -> Tensor:
    """Mean over anchors of ``max(0, margin + farthest positive - nearest negative)``, Euclidean, on raw features.

    Parameters
    ----------
    feature : Tensor [shape=(B, D)]
        Not normalised (ReID practice, as ByteCover).
    work : Tensor of int [shape=(B,)]
        Every work of the batch has at least two rows and there are at least two works.

    References
    ----------
    A. Hermans et al., "In defense of the triplet loss for person re-identification", 2017.
    """
    distance = torch.cdist(feature, feature, compute_mode="donot_use_mm_for_euclid_dist")
    same = work[:, None] == work[None, :]
    own = torch.eye(len(work), dtype=torch.bool, device=work.device)
    positive = distance.masked_fill(~same | own, -torch.inf).amax(dim=1)
    negative = distance.masked_fill(same, torch.inf).amin(dim=1)
    return F.relu(margin + positive - negative).mean()


def supervised_contrastive(embedding: Tensor, work: Tensor, temperature: float) -> Tensor:
    """Mean over anchors and their positives of ``-log softmax`` of cosine similarity over all others of the batch.

    Parameters
    ----------
    embedding : Tensor [shape=(B, D)]
        Normalised here.
    work : Tensor of int [shape=(B,)]
    temperature : float

    References
    ----------
    P. Khosla et al., "Supervised contrastive learning", NeurIPS 2020 (L_out).
    """
    embedding = F.normalize(embedding, dim=1)
    own = torch.eye(len(work), dtype=torch.bool, device=work.device)
    logits = (embedding @ embedding.T / temperature).masked_fill(own, -torch.inf)
    log_probability = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(own, 0)
    positive = (work[:, None] == work[None, :]) & ~own
    return -((log_probability * positive).sum(dim=1) / positive.sum(dim=1)).mean()
