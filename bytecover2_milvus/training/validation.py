"""Whole tracks embedded by a network in training, and exact metrics of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..config import Config
from ..metrics import Evaluation, evaluate
from ..model.network import ByteCover2
from ..model.network_input import NetworkInput
from ..model.note_map import NoteMap
from .data.corpus import Corpus
from .data.feature_cache import FeatureCache, pool_track

VALIDATION = "Validation MAP"  # the fact that says how good a checkpoint is


@torch.inference_mode()
def pooled_embeddings(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    watch: Callable[[], object] = lambda: None,
    *,
    note_map: NoteMap | None = None,
) -> NDArray[np.float32]:
    """Pooled embeddings of all whole tracks of a corpus, in its order, `mean_pooled` (N, 2048); network in eval mode.

    `watch` is called after each. A network with maps needs the note map.
    """
    network.eval()
    network_input = NetworkInput(config.front_end, config.network, note_map).to(device)
    rows = []
    for _, track in corpus.tracks():
        magnitude = pool_track(cache.load(track), config.front_end, cache.pooling, network_input.pooling)
        rows.append(network.mean_pooled(network_input(magnitude.to(device))))
        watch()
    return torch.cat(rows).cpu().numpy()


@torch.inference_mode()
def embeddings(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
) -> NDArray[np.float32]:
    """The unit embeddings (N, D) of the whole tracks of a corpus in its order."""
    pooled = torch.from_numpy(pooled_embeddings(network, config, corpus, cache, device, note_map=note_map)).to(device)
    return F.normalize(network.head(pooled)[1], dim=1).cpu().numpy()


def validate(
    network: ByteCover2,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
) -> Evaluation:
    """Exact metrics of the corpus' whole tracks, each against all the others, in float32 whatever the run's precision.

    So the MAP of a checkpoint is the one its network has wherever it is evaluated.
    """
    tracks = list(corpus.tracks())
    rows = embeddings(network, config, corpus, cache, device, note_map=note_map)
    return evaluate(rows, [work for work, _ in tracks], [track.track_id for _, track in tracks])
