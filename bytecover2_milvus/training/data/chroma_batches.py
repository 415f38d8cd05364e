"""Batches for the chroma network: excerpts of chroma that the note map heard in augmented tracks.

The note map takes longer than the network that learns from it, so it hears a track once: augmented, and the chroma is
kept. What changes from one hearing to the next is the excerpt and its tempo; `training.hearings` brings other tracks.
"""

from __future__ import annotations

import copy
import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...atomic import atomic_write
from ...config import CHROMA_GROUPS, Training
from ...model.chroma_network import ChromaInput
from ...model.note_map import CHROMA_FRAME_HOPS, OCTAVE, NoteMap
from ...untrusted import DAMAGED, parse_npy, read_bytes
from .augment import augment
from .batches import TrainingBatches
from .corpus import Corpus, CorpusTrack
from .feature_cache import CACHED_BYTES, FeatureCache

_AUGMENTED = ("tuning", "room_s", "equaliser_db", "compression", "noise", "crowd", "mask_bins")


class ChromaCache:
    """Chroma (24, n_frames) of augmented tracks, float16 in [0, 1], one ``.npy`` each in the folder of `features`.

    Parameters
    ----------
    features : FeatureCache
        As fine as the note map needs it.
    note_map : NoteMap
        In eval mode. A copy on the CPU is used, as batches are made in other processes than training.
    training : Training
        Its augmentation but for tempo, transposition, silence and masks in time.
    """

    pooling = CHROMA_FRAME_HOPS

    def __init__(self, features: FeatureCache, note_map: NoteMap, training: Training) -> None:
        self.front_end = features.front_end
        self.features = features
        self.training = replace(training, transpose=0, silence=0.0, mask_s=0.0)
        note_map = copy.deepcopy(note_map).cpu()
        self.chroma_of = ChromaInput(features.front_end, note_map)
        digest = hashlib.sha256(str([getattr(training, name) for name in _AUGMENTED]).encode())
        for name, value in note_map.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        self.digest = digest.hexdigest()

    def path(self, track: CorpusTrack) -> Path:
        name = hashlib.sha256(f"{self.digest} {self.features.path(track).name}".encode()).hexdigest()[:32]
        return self.features.folder / name[:2] / f"{name}.npy"

    def load(self, track: CorpusTrack) -> NDArray[np.float16]:
        """The chroma (24, n_frames) of a track, computed if it is not there.

        Raises
        ------
        AudioError
            If the track's file gives no usable waveform.
        OutputError
            If the cache cannot be written.
        """
        path = self.path(track)
        with suppress(*DAMAGED):  # not there, or damaged
            cached = parse_npy(read_bytes(path, CACHED_BYTES))
            if cached.dtype == np.float16 and cached.ndim == 2 and len(cached) == len(CHROMA_GROUPS) * OCTAVE:
                return cached
        chroma = self._heard(track)
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, chroma)
        return chroma

    @torch.inference_mode()
    def _heard(self, track: CorpusTrack) -> NDArray[np.float16]:
        pooling = self.features.pooling
        cqt = track.source.cqt(self.front_end, pooling)
        cqt = np.tile(cqt, -(-CHROMA_FRAME_HOPS // pooling // cqt.shape[1]))  # one frame at least
        frame_s = self.front_end.frame_s / self.front_end.time_pooling * pooling
        rng = np.random.default_rng(list(bytes.fromhex(track.source.fingerprint[:32])))
        cqt = augment(cqt / np.float32(max(cqt.max(), 1e-12)), self.training, frame_s, rng)
        return self.chroma_of(torch.from_numpy(cqt)[None])[0].T.numpy().astype(np.float16)


class ChromaBatches(TrainingBatches):
    """Batch number `step`: chroma (B, T, 24) float32 in frames of `CHROMA_FRAME_HOPS` CQT frames, and work (B,)."""

    def __init__(self, corpus: Corpus, cache: ChromaCache, training: Training, rank: int = 0, ranks: int = 1) -> None:
        heard = replace(
            training,
            transpose=0,
            tuning=0.0,
            room_s=0.0,
            equaliser_db=0.0,
            compression=0.0,
            noise=0.0,
            crowd=0.0,
            mask_bins=0,
        )
        super().__init__(corpus, cache, heard, rank, ranks, CHROMA_FRAME_HOPS)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        chroma, work = super().__getitem__(step)
        return chroma.transpose(1, 2).contiguous(), work
