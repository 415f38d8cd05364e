"""Batches for the note map: excerpts of arrangements with the notes that are known to sound in them.

A batch is a pure function of the corpus, the configuration, the seed and the step, as those of `training.batches` are.
Arrangements that are drawn are drawn anew whenever they are needed; those that are played are kept in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ...config import Training
from ...errors import TrainingError
from ...model.note_map import NOTE_POOLING, TIME_STRIDE
from ...songs.arrange.arrangement import Arrangement, arrange
from .augment import augment, transpose
from .batches import WorkSampler, crop
from .corpus import Corpus, CorpusTrack, SongSource
from .feature_cache import FeatureCache

LOWEST_BIN_PITCH = 24  # MIDI number of the CQT's lowest bin, C1
LEAD_ROLES = frozenset({"lead", "second voice", "solo"})
TIME_CHANGING = frozenset({"tuning", "tape", "excerpt", "silence"})  # degradations after which notes lie elsewhere
_FAINTEST_PART = 0.08  # of the loudest part's gain: what is softer cannot be heard beside it
_FAINTEST_NOTE = 0.15  # velocity


@dataclass(frozen=True)
class NoteTrack:
    """A track as the note map learns it."""

    cqt: NDArray[np.float32]  # (n_bins, T) magnitude, T in frames of NOTE_POOLING CQT frames
    rolls: NDArray[np.float32]  # (2, n_bins, T) 1 where a note of MAPS sounds


def note_rolls(arrangement: Arrangement, n_bins: int, n_frames: int, frame_s: float) -> NDArray[np.float32]:
    """Piano rolls (2, n_bins, n_frames) of all notes and of the lead's: 1 in every frame that a note touches."""
    rolls = np.zeros((2, n_bins, n_frames), dtype=np.float32)
    loudest = max((part.gain for part in arrangement.parts), default=0.0)
    for part in arrangement.parts:
        if part.gain < _FAINTEST_PART * loudest:
            continue
        notes = part.notes[part.notes["velocity"] >= _FAINTEST_NOTE]
        bins = np.round(notes["pitch"]).astype(int) - LOWEST_BIN_PITCH
        first = np.floor(notes["onset_s"] / frame_s).astype(int)
        last = np.ceil((notes["onset_s"] + notes["duration_s"]) / frame_s).astype(int)
        for k, start, stop in zip(bins.tolist(), first.tolist(), last.tolist(), strict=True):
            if 0 <= k < n_bins:
                rolls[0, k, start:stop] = 1
                if part.role in LEAD_ROLES:
                    rolls[1, k, start:stop] = 1
    return rolls


def load_note_track(track: CorpusTrack, cache: FeatureCache) -> NoteTrack:
    """The CQT and the piano rolls of an arrangement.

    Raises
    ------
    TrainingError
        If the track is a recording, whose notes nobody knows.
    """
    if not isinstance(track.source, SongSource):
        raise TrainingError(f'{track.track_id}: a recording; phase "notes" learns from songs alone (--songs)')
    song, seed, rendering = track.source.song, track.source.seed, track.source.rendering
    kinds = tuple(kind for kind in rendering.kinds if kind not in TIME_CHANGING)
    rendering = replace(rendering, kinds=kinds, degraded=rendering.degraded if kinds else 0.0)
    arrangement = arrange(song, seed)
    if rendering.draws(song, seed):
        cqt = rendering.cqt_of(arrangement, cache.front_end, NOTE_POOLING)
    else:
        cqt = cache.load(replace(track, source=SongSource(song, seed, rendering))).astype(np.float32)
    frame_s = cache.front_end.frame_s / cache.front_end.time_pooling * NOTE_POOLING
    return NoteTrack(cqt, note_rolls(arrangement, len(cqt), cqt.shape[1], frame_s))


class NoteBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batch number `step`: magnitude cqt (B, n_bins, T), and targets (B, 2, n_bins, T // 4) in [0, 1].

    A target is the share of a frame in which a note sounds. A batch has `works_per_batch` works with one track each,
    and of each track `tracks_per_work` excerpts, B in all.
    """

    def __init__(self, corpus: Corpus, cache: FeatureCache, training: Training) -> None:
        self.sampler = WorkSampler(corpus, training.works_per_batch, 1, training.seed)
        self.cache = cache
        self.training = training
        self.augmentation = replace(training, transpose=0, tempo=1.0, mask_bins=0, mask_s=0.0, silence=0.0)

    def __len__(self) -> int:
        return self.training.last_step

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        training = self.training
        frame_s = self.cache.front_end.frame_s / self.cache.front_end.time_pooling * NOTE_POOLING
        crop_s = np.random.default_rng((training.seed, 2, step)).choice(training.crop_s)
        n_frames = max(1, round(float(crop_s) / (TIME_STRIDE * frame_s))) * TIME_STRIDE
        cqts, targets = [], []
        for row, (_, chosen) in enumerate(self.sampler.tracks(step)):
            track = load_note_track(chosen, self.cache)
            both = np.concatenate([track.cqt[None], track.rolls])  # (3, n_bins, T), cut and transposed as one
            for excerpt in range(training.tracks_per_work):
                rng = np.random.default_rng((training.seed, 3, step, row, excerpt))
                cut = crop(both.reshape(-1, both.shape[2]), n_frames, rng).reshape(3, -1, n_frames)
                bins = int(rng.integers(-training.transpose, training.transpose + 1))
                cqt, *rolls = (transpose(plane, bins) for plane in cut)
                cqts.append(augment(cqt, self.augmentation, frame_s, rng))
                targets.append(np.stack(rolls).reshape(2, len(cqt), -1, TIME_STRIDE).mean(axis=3))
        return torch.from_numpy(np.stack(cqts)), torch.from_numpy(np.stack(targets))
