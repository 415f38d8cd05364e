"""Whole tracks embedded by a network in training, and exact metrics of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..config import Config
from ..metrics import Evaluation, evaluate
from ..model.chroma_network import ChromaInput, ChromaNetwork
from ..model.network import ByteCover2
from ..model.network_input import NetworkInput
from ..model.note_map import NOTE_POOLING, NoteMap
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
    chroma_network: ChromaNetwork | None = None,
) -> NDArray[np.float32]:
    """Pooled embeddings of all whole tracks of a corpus, in its order, `mean_pooled` (N, 2048); network in eval mode.

    With `chroma_network` its pooled embeddings are put behind them, (N, 2048 + 4 * width), as a joined network's head
    takes them. `watch` is called after each. A network with maps and a chroma network need the note map.
    """
    network.eval()
    network_input = NetworkInput(config.front_end, config.network, note_map).to(device)
    rows = []
    for _, track in corpus.tracks():
        magnitude = pool_track(cache.load(track), config.front_end, cache.pooling, network_input.pooling)
        rows.append(network.mean_pooled(network_input(magnitude.to(device))))
        watch()
    pooled = torch.cat(rows)
    if chroma_network is not None:
        assert note_map is not None
        joined = chroma_embeddings(chroma_network, config, corpus, cache, device, note_map=note_map)
        pooled = torch.cat([pooled, joined], dim=1)
    return pooled.cpu().numpy()


@torch.inference_mode()
def chroma_embeddings(
    chroma_network: ChromaNetwork,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap,
) -> Tensor:
    """Pooled embeddings (N, 4 * width) of the chroma of all whole tracks of a corpus; `chroma_network` in eval mode."""
    chroma_network.eval()
    chroma_input = ChromaInput(config.front_end, note_map).to(device)
    rows = []
    for _, track in corpus.tracks():
        magnitude = pool_track(cache.load(track), config.front_end, cache.pooling, NOTE_POOLING)
        rows.append(chroma_network.pooled(chroma_input(magnitude.to(device))))
    return torch.cat(rows)


@torch.inference_mode()
def embeddings(
    network: ByteCover2 | ChromaNetwork,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
    chroma_network: ChromaNetwork | None = None,
) -> NDArray[np.float32]:
    """The unit embeddings (N, D) of the whole tracks of a corpus in its order.

    `chroma_network` is needed where the network joins one, and else not used.
    """
    if isinstance(network, ChromaNetwork):
        assert note_map is not None
        pooled = chroma_embeddings(network, config, corpus, cache, device, note_map=note_map)
    else:
        joined = chroma_network if config.network.joins else None
        pooled = torch.from_numpy(
            pooled_embeddings(network, config, corpus, cache, device, note_map=note_map, chroma_network=joined)
        ).to(device)
    return F.normalize(network.head(pooled)[1], dim=1).cpu().numpy()


def validate(
    network: ByteCover2 | ChromaNetwork,
    config: Config,
    corpus: Corpus,
    cache: FeatureCache,
    device: torch.device | str = "cpu",
    *,
    note_map: NoteMap | None = None,
    chroma_network: ChromaNetwork | None = None,
) -> Evaluation:
    """Exact metrics of the corpus' whole tracks, each against all the others, in float32 whatever the run's precision.

    So the MAP of a checkpoint is the one its network has wherever it is evaluated.
    """
    tracks = list(corpus.tracks())
    rows = embeddings(network, config, corpus, cache, device, note_map=note_map, chroma_network=chroma_network)
    return evaluate(rows, [work for work, _ in tracks], [track.track_id for _, track in tracks])
