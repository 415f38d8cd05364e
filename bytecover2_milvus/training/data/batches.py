"""Training batches: P works with K tracks each, one crop length per batch, augmented.

A batch is a pure function of the corpus, the configuration, the seed and the step, so a run resumes exactly and two
runs with one seed see the same batches. So is every row of it, so it is the same batch on any number of ranks.

Where `training.hearings` says so, a track that was heard that often is replaced by one that never was: the next
arrangement of its song, or another degraded copy of its recording. Every work then has a window of tracks, which moves
on from epoch to epoch; what is drawn first comes into the cache as it is needed, and goes once the window has left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ...config import FrontEnd, Training
from ...errors import ConfigError, TrainingError
from .augment import augment, stretch
from .corpus import Corpus, CorpusTrack, SongSource

_LOOK_BACK = 8  # epochs: a work that misses one, as some do, is rid of its old tracks in the next


class TrackCache(Protocol):
    """Arrays (rows, T) that batches are cut from, one for every track, each kept in a file."""

    front_end: FrontEnd
    pooling: int  # CQT frames per frame of the array

    def path(self, track: CorpusTrack) -> Path: ...
    def load(self, track: CorpusTrack) -> NDArray[np.float16]: ...


class WorkSampler:
    """The tracks of each step: every epoch is a new permutation of the works, cut into groups of P.

    Strangers to a song follow its work, so they meet in a batch. A work with fewer than K tracks gives all it has, so a
    track is never its own positive. With `hearings`, tracks are replaced after having been heard so often, on average;
    exactly so often, if works have K tracks.
    """

    def __init__(
        self, corpus: Corpus, works_per_batch: int, tracks_per_work: int, seed: int, hearings: float = 0.0
    ) -> None:
        if len(corpus.works) < 2:
            raise TrainingError(f"{len(corpus.works)} work to train on: a triplet needs at least 2")
        self.works = list(corpus.works.values())
        self.origins = [len({track.source.origin for track in tracks}) for tracks in self.works]
        self.families = _families(self.works)
        self.works_per_batch = min(works_per_batch, len(self.works))
        self.tracks_per_work = tracks_per_work
        self.seed = seed
        self.hearings = hearings
        self.batches_per_epoch = len(self.works) // self.works_per_batch

    def tracks(self, step: int) -> list[tuple[int, CorpusTrack]]:
        """The step's tracks with the index of their work, in [0, number of works)."""
        rng = np.random.default_rng((self.seed, 1, step))
        chosen = []
        for work in self._works(step):
            tracks = self._window(work, step // self.batches_per_epoch)
            count = min(self.tracks_per_work, len(tracks))
            chosen += [(work, tracks[i]) for i in rng.choice(len(tracks), size=count, replace=False)]
        return chosen

    def windows(self, step: int) -> tuple[list[CorpusTrack], list[CorpusTrack]]:
        """All tracks of the works of a step, those that were there in the epochs before, and those that are now."""
        epoch, works = step // self.batches_per_epoch, self._works(step)
        earlier = range(max(0, epoch - _LOOK_BACK), epoch)
        before = [track for work in works for then in earlier for track in self._window(work, then)]
        return before, [track for work in works for track in self._window(work, epoch)]

    def _works(self, step: int) -> list[int]:
        epoch, batch = divmod(step, self.batches_per_epoch)
        families = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.families))
        order = [work for family in families.tolist() for work in self.families[family]]
        return order[batch * self.works_per_batch : (batch + 1) * self.works_per_batch]

    def _window(self, work: int, epoch: int) -> list[CorpusTrack]:
        tracks = self.works[work]
        heard = min(self.tracks_per_work, len(tracks))  # of them in an epoch
        replaced = int(epoch * heard / self.hearings / self.origins[work]) if self.hearings else 0
        return [track.later(replaced) for track in tracks]


def _families(works: Sequence[Sequence[CorpusTrack]]) -> list[list[int]]:
    """Indices of works: each work that is no stranger, and behind it those that are strangers to one of its songs."""
    songs = [[track.source.song for track in work if isinstance(track.source, SongSource)] for work in works]
    known = {song.song_id: index for index, of_work in enumerate(songs) for song in of_work if not song.stranger_to}
    families: dict[int, list[int]] = {}
    for index, of_work in enumerate(songs):
        strange_to = next((song.stranger_to for song in of_work if song.stranger_to), "")
        families.setdefault(known.get(strange_to, index), []).append(index)
    return list(families.values())


def crop(cqt: NDArray[np.floating], n_frames: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """A random excerpt (n_bins, n_frames); what is too short is repeated."""
    if cqt.shape[1] < n_frames:
        cqt = np.tile(cqt, -(-n_frames // cqt.shape[1]))
    start = rng.integers(cqt.shape[1] - n_frames + 1)
    return cqt[:, start : start + n_frames]


class TrainingBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batch number `step`: magnitude cqt (B, n_bins, T) float32, not yet scaled, and work (B,) int64.

    T is in frames of `pooling` CQT frames, those of the front end unless said otherwise (`NetworkInput.pooling`).

    Of several ranks, each gets every `ranks`-th row of cqt, and work whole. Rows and not works are shared out, so the
    statistics of a rank's BatchNorm come from as many works as there are.
    """

    def __init__(
        self,
        corpus: Corpus,
        cache: TrackCache,
        training: Training,
        rank: int = 0,
        ranks: int = 1,
        pooling: int | None = None,
    ) -> None:
        self.sampler = WorkSampler(
            corpus, training.works_per_batch, training.tracks_per_work, training.seed, training.hearings
        )
        if self.sampler.works_per_batch < ranks:
            raise ConfigError(
                f"{ranks} processes share batches of {self.sampler.works_per_batch} works: start no more processes "
                "than works_per_batch, or train on more works"
            )
        self.cache = cache
        self.training = training
        self.rank = rank
        self.ranks = ranks
        self.pooling = pooling or cache.front_end.time_pooling

    def __len__(self) -> int:
        return self.training.last_step

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        training, front_end = self.training, self.cache.front_end
        crop_s = np.random.default_rng((training.seed, 2, step)).choice(training.crop_s)
        ratio = self.pooling // self.cache.pooling  # cached frames per frame of the batch
        n_frames = max(1, round(float(crop_s) / front_end.frame_s)) * (front_end.time_pooling // self.cache.pooling)
        frame_s = front_end.frame_s * self.pooling / front_end.time_pooling
        tracks = self.sampler.tracks(step)
        rows = []
        for row in range(self.rank, len(tracks), self.ranks):
            rng = np.random.default_rng((training.seed, 3, step, row))
            speed = training.tempo ** rng.uniform(-1, 1)
            excerpt = crop(self.cache.load(tracks[row][1]), max(2, round(n_frames * speed)), rng).astype(np.float32)
            cqt = stretch(excerpt, n_frames)
            cqt = cqt.reshape(len(cqt), -1, ratio).mean(axis=2)
            rows.append(augment(cqt, training, frame_s, rng))
        if training.hearings:
            before, now = ({self.cache.path(track) for track in window} for window in self.sampler.windows(step))
            for path in before - now:
                path.unlink(missing_ok=True)
        work = [work for work, _ in tracks]
        return torch.from_numpy(np.stack(rows)), torch.tensor(work)
