"""All systems by name, trained with the same batches: each sees as many samples as the others.

A system that is made of another (Re-MOVE of MOVE, ByteCover2 and ByteCoverFC of ByteCover) begins where that one has
seen half of its samples, and sees the other half. ByteCoverPCA learns nothing: it is of ByteCover when all are seen.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.config import Training as Settings
from bytecover2_milvus.model.note_map import NoteMap
from bytecover2_milvus.training.data.batches import TrainingBatches
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache

from .bytecover import LAYERS, ByteCover
from .cqt_net import CQTNet
from .move import MOVE, ReMOVE
from .qmax import QmaxOfNotes, QmaxOfPeaks
from .system import Learned, System, scaled
from .tpp_net import TPPNet
from .train import Training

MADE_OF_BYTECOVER = {  # layer of `bytecover.LAYERS`, dimensions
    "ByteCoverFC-128": ("FC", 128),
    "ByteCoverPCA-128": ("PCA", 128),
    "ByteCover2-128": ("PCA-FC", 128),
    "ByteCover2-1536": ("PCA-FC", 1536),
}
LEARNED = ("TPPNet", "CQT-Net", "MOVE", "Re-MOVE", "ByteCover", *MADE_OF_BYTECOVER)
NAMES = (QmaxOfPeaks.name, QmaxOfNotes.name, *LEARNED)
POOLED = 2_000  # tracks that principal axes are fitted on, at most


@dataclass(frozen=True)
class Budget:
    """The size of the systems, and what they learn from."""

    share: float  # of the published channels; dimensions above a hundred or so shrink with them
    samples: int  # that each system sees
    works_per_batch: int = 16
    tracks_per_work: int = 4
    crop_s: tuple[float, ...] = (100.0, 150.0, 200.0)
    time_pooling: int = 20  # CQT frames in a frame of ByteCover

    @property
    def steps(self) -> int:
        """Batches, at least four, so that every phase has one."""
        return max(4, self.samples // (self.works_per_batch * self.tracks_per_work))

    def dim(self, name: str) -> int:
        """The dimensions of a system made of ByteCover; 1536 of 2048 are three quarters of fewer, too."""
        pooled = 32 * max(1, round(64 * self.share))
        published = MADE_OF_BYTECOVER[name][1]
        return min(published, pooled) if published == 128 else scaled(published, pooled / 2048)


class Trained:
    """The systems of a comparison, each trained when it is asked for and kept in a folder.

    Parameters
    ----------
    budget : Budget
    corpus : Corpus
        Its CQTs are in `features`.
    features : FeatureCache
        Of `system.FRONT_END`.
    note_map : NoteMap
        That MOVE, Re-MOVE and one of the Qmax hear through.
    folder : Path
        For the weights; what is there is not trained again.
    device : torch.device or str
    report : callable
        Told what is trained, and its last loss.
    """

    def __init__(
        self,
        budget: Budget,
        corpus: Corpus,
        features: FeatureCache,
        note_map: NoteMap,
        folder: Path,
        device: torch.device | str = "cpu",
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.budget, self.corpus, self.features = budget, corpus, features
        self.note_map, self.folder, self.device, self.report = note_map, folder, device, report
        settings = Settings(
            steps=budget.steps,
            works_per_batch=budget.works_per_batch,
            tracks_per_work=budget.tracks_per_work,
            crop_s=budget.crop_s,
        )
        batches = TrainingBatches(corpus, features, settings)
        self.batches = batches.__getitem__
        self.batch = (
            batches.sampler.works_per_batch * budget.tracks_per_work
        )  # fewer works than asked for, if there are

    @property
    def samples(self) -> int:
        """Excerpts that each system that learns has seen, those of the system that it is made of among them."""
        return self.budget.steps * self.batch

    def system(self, name: str) -> System:
        """The system of that name, one of `NAMES`."""
        if name == QmaxOfPeaks.name:
            return QmaxOfPeaks()
        if name == QmaxOfNotes.name:
            return QmaxOfNotes(self.note_map)
        steps = self.budget.steps
        if name == "Re-MOVE":
            return self._kept(name, self._re_move, self._two_phases)
        if name == "ByteCoverPCA-128":
            return self._kept(name, partial(self._of_bytecover, name, "ByteCover"), lambda system: [])
        if name in MADE_OF_BYTECOVER:
            return self._kept(name, partial(self._of_bytecover, name, "ByteCover, half"), self._two_phases)
        if name in ("MOVE", "ByteCover"):
            half = partial(self.system, f"{name}, half")
            return self._kept(name, lambda: copy.deepcopy(half()), partial(self._rest, steps - steps // 2, steps // 2))
        of = name.removesuffix(", half")
        return self._kept(name, partial(self._new, of), partial(self._rest, steps // 2 if of != name else steps, 0))

    def _new(self, name: str) -> Learned:
        torch.manual_seed(0)
        share = self.budget.share
        if name == "MOVE":
            return MOVE(self.note_map, share)
        if name == "ByteCover":
            return ByteCover.new(share, self.budget.time_pooling)
        return {"TPPNet": TPPNet, "CQT-Net": CQTNet}[name](share)

    def _re_move(self) -> Learned:
        move = self.system("MOVE, half")
        assert isinstance(move, MOVE)
        torch.manual_seed(0)
        return ReMOVE.of(move, scaled(256, self.budget.share))

    def _of_bytecover(self, name: str, base: str) -> Learned:
        bytecover = self.system(base)
        assert isinstance(bytecover, ByteCover)
        tracks = [track for _, track in itertools.islice(self.corpus.tracks(), POOLED)]
        pooled = bytecover.pooled([self.features.load(track) for track in tracks])
        return bytecover.reduced(name, LAYERS[MADE_OF_BYTECOVER[name][0]], pooled, self.budget.dim(name))

    def _training(self, system: Learned, first: int) -> Training:
        return Training(system, self.batches, len(self.corpus.works), first, self.device)

    def _rest(self, steps: int, first: int, system: Learned) -> Sequence[float]:
        return self._training(system, first).run(steps)

    def _two_phases(self, system: Learned) -> Sequence[float]:
        """The second half of the samples: half of them with the rest frozen."""
        first = self.budget.steps // 2
        training = self._training(system, first)
        alone = (self.budget.steps - first) // 2
        losses = training.run(alone, frozen=True)
        return [*losses, *training.run(self.budget.steps - first - alone, taken_over=True)]

    def _kept(self, name: str, make: Callable[[], Learned], train: Callable[[Learned], Sequence[float]]) -> Learned:
        """The system with the weights in the folder, trained if there are none."""
        from safetensors.torch import load_file, save_file

        path = self.folder / f"{name}.safetensors"
        if path.exists():
            system = self._shaped(name)
            system.load_state_dict(load_file(path))
            return system.to(self.device).eval()
        system = make()
        system.to(self.device)
        self.report(f"{name}: in training")
        losses = train(system)
        self.report(
            f"{name}: " + (f"loss {losses[0]:.3f}, at the end {losses[-1]:.3f}" if losses else "nothing to learn")
        )
        with atomic_write(path) as part:
            save_file({key: value.contiguous() for key, value in system.cpu().state_dict().items()}, part)
        return system.to(self.device).eval()

    def _shaped(self, name: str) -> Learned:
        """A system of the form that is kept, with whatever weights."""
        of = name.removesuffix(", half")
        if of == "Re-MOVE":
            move = self._new("MOVE")
            assert isinstance(move, MOVE)
            return ReMOVE.of(move, scaled(256, self.budget.share))
        if of not in MADE_OF_BYTECOVER:
            return self._new(of)
        bytecover = self._new("ByteCover")
        assert isinstance(bytecover, ByteCover)
        network = replace(bytecover.config.network, feature_dim=self.budget.dim(of))
        return ByteCover(of, replace(bytecover.config, network=network))
