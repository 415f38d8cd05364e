"""Started by torchrun in test_training.py: each rank trains, and leaves what it ended with in a folder."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from bytecover2_milvus.config import Config
from bytecover2_milvus.model.network_input import NetworkInput
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training import learner as learner_module
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.batches import TrainingBatches
from bytecover2_milvus.training.data.corpus import Corpus, CorpusTrack
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.distributed import gather, launch
from bytecover2_milvus.training.gradient import loss_terms
from bytecover2_milvus.training.start import initial_network
from bytecover2_milvus.training.train import train


def uneven_corpus() -> Corpus:
    """Four works, one of which has three tracks: batches of nine, of which two ranks have five and four."""
    corpus = Corpus.of_songs([compose(seed) for seed in range(4)], arrangements=2)
    three = Corpus.of_songs([compose(0)], arrangements=3)
    return Corpus(corpus.works | three.works)


def changed(config: Config, **training: object) -> Config:
    return Config.from_dict(config.to_dict() | {"training": config.to_dict()["training"] | training})


def gradients(fabric: Fabric, checkpoint: Checkpoint, corpus: Corpus, cache: FeatureCache) -> dict[str, Tensor]:
    """All losses of the first batch and their gradient; norms as stored, so that nothing depends on who sees what."""
    config = changed(checkpoint.config, tracks_per_work=3, contrastive_weight=1.0)
    network = copy.deepcopy(checkpoint.network)
    torch.manual_seed(0)
    classifier = nn.Linear(config.network.embedding_dim, len(corpus.works), bias=False)
    model = fabric.setup_module(network)
    batches = TrainingBatches(corpus, cache, config.training, fabric.global_rank, fabric.world_size)
    cqt, work = batches[0]
    rows = model(NetworkInput(config.front_end, config.network, None)(cqt))
    feature, embedding = (gather(fabric, part, len(work)) for part in rows)
    loss = sum(loss_terms(feature, embedding, classifier, work, config.training).values())
    fabric.backward(loss)
    learned = {**dict(network.named_parameters()), "classifier": classifier.weight}
    return {"loss": loss.detach()} | {name: p.grad.contiguous() for name, p in learned.items() if p.requires_grad}


class Cut(Exception):
    pass


class CutCache(FeatureCache):
    """A cache that fails on every rank in the fourth batch."""

    loads = 0

    def load(self, track: CorpusTrack):
        self.loads += 1
        if self.loads > 3 * 4:
            raise Cut
        return super().load(track)


def main(folder: Path, cache_folder: Path) -> None:
    torch.set_num_threads(1)
    pca = load_checkpoint(folder / "pca.safetensors")
    corpus, cache = uneven_corpus(), FeatureCache(cache_folder, pca.config.front_end)
    fabric = launch("cpu", "32-true", folder / "logs")
    rank = fabric.global_rank
    save_file(gradients(fabric, pca, corpus, cache), folder / f"gradients{rank}.safetensors")

    networks = []

    def kept(config: Config, init: Checkpoint | None):
        networks.append(initial_network(config, init))
        return networks[-1]

    learner_module.initial_network = kept
    arguments = {"data_workers": 0, "device": "cpu"}
    train(
        load_checkpoint(folder / "frozen.safetensors").config, corpus, cache, folder / "frozen", init=pca, **arguments
    )

    config = changed(pca.config, phase="joint", steps=6, save_every=2)
    learned = Corpus({f"again {work}": tracks for work, tracks in corpus.works.items()})
    whole = {"init": pca, "validation": learned, **arguments}
    steps: list[int] = []
    train(config, corpus, cache, folder / "whole", report=lambda p: steps.append(p.step), **whole)
    assert steps == ([0, 1, 2, 3, 4, 5, 6] if rank == 0 else []), steps  # 0: what it starts from is validated
    moved = {name: p.detach().contiguous() for name, p in networks[-1].named_parameters()}
    save_file(moved, folder / f"learned{rank}.safetensors")

    try:
        train(config, corpus, CutCache(cache_folder, cache.front_end), folder / "parts", init=pca, **arguments)
    except Cut:
        assert load_checkpoint(folder / "parts" / "last.safetensors").step == 2
    train(config, corpus, cache, folder / "parts", init=pca, **arguments)  # not validated, and learns the same


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
