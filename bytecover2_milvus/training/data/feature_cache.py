"""The cached CQTs of tracks.

Every track becomes the same thing, a fine-grained CQT magnitude (n_bins, T) in float16; augmentation and pooling start
there.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...atomic import atomic_write
from ...audio.load import AudioWarning
from ...config import SHORTEST_FRAMES, Config, FrontEnd
from ...errors import AudioError
from ...model.cqt import pool_time
from ...model.network_input import input_pooling
from ...model.note_map import NOTE_POOLING
from ...parallel import map_in_processes
from ...untrusted import DAMAGED, parse_npy, read_bytes
from .corpus import Corpus, CorpusTrack

FINE_POOLING = 20  # CQT frames per cached frame at most: 0.46 s leaves room for changes of tempo
CACHED_BYTES = 256 << 20  # of a cached CQT; ten minutes at the finest have less


@dataclass(frozen=True)
class Prepared:
    """The result of preparing one track."""

    track_id: str
    usable: bool = True
    warning: str = ""  # why it is not usable, or how far it is damaged


class FeatureCache:
    """Fine-grained CQTs of tracks, (n_bins, T) float16 over their maximum, one ``.npy`` each in a folder.

    The folder may be shared by runs and deleted at any time; what is missing is computed again.
    """

    def __init__(self, folder: str | Path, front_end: FrontEnd, pooling: int | None = None) -> None:
        self.folder = Path(folder)
        self.front_end = front_end
        # CQT frames per cached frame
        self.pooling = pooling or math.gcd(front_end.time_pooling, FINE_POOLING)

    @classmethod
    def of(cls, folder: str | Path, config: Config) -> FeatureCache:
        """The cache of a run of `config`: as fine as its network needs it, or a note map that it learns from or joins.

        Raises
        ------
        ConfigError
            As `input_pooling`.
        """
        if config.training.phase in ("notes", "chroma") or config.network.joins:
            return cls(folder, config.front_end, NOTE_POOLING)
        return cls(folder, config.front_end, math.gcd(input_pooling(config.front_end, config.network), FINE_POOLING))

    def path(self, track: CorpusTrack) -> Path:
        front_end = self.front_end
        form = (
            f"{front_end.hop_length} {front_end.fmin} {front_end.n_octaves} {front_end.bins_per_octave} {self.pooling}"
        )
        name = hashlib.sha256(f"{form} {track.source.fingerprint}".encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.npy"

    def load(self, track: CorpusTrack) -> NDArray[np.float16]:
        """The cached CQT (n_bins, T), computed if it is not there.

        Raises
        ------
        AudioError
            If the track's file gives no usable waveform.
        OutputError
            If the cache cannot be written.
        """
        path = self.path(track)
        with suppress(*DAMAGED):  # not there, or damaged, as when the power failed
            cached = parse_npy(read_bytes(path, CACHED_BYTES))
            fits = cached.dtype == np.float16 and cached.ndim == 2 and len(cached) == self.front_end.n_bins
            if fits and cached.size and np.isfinite(cached).all():
                return cached
        cqt = track.source.cqt(self.front_end, self.pooling)
        cqt = (cqt / max(cqt.max(), 1e-12)).astype(np.float16)
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, cqt)
        return cqt

    def fill(self, corpus: Corpus, workers: int) -> Iterator[Prepared]:
        """Compute what is missing, in `workers` processes; yields in the order of the corpus' tracks."""
        tracks = [track for _, track in corpus.tracks()]
        missing = [not self._holds(track) for track in tracks]
        absent = [track for track, needed in zip(tracks, missing, strict=True) if needed]
        computed = map_in_processes(self._fill_one, absent, workers, chunksize=4) if absent else iter(())
        for track, needed in zip(tracks, missing, strict=True):
            yield next(computed) if needed else Prepared(track.track_id)

    def _holds(self, track: CorpusTrack) -> bool:
        try:
            return self.path(track).exists()
        except AudioError:  # no such file: whoever computes it says so
            return False

    def _fill_one(self, track: CorpusTrack) -> Prepared:
        torch.set_num_threads(1)  # of this worker: there is one for every core
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AudioWarning)
            try:
                if not self.path(track).exists():
                    self.load(track)
            except AudioError as error:
                return Prepared(track.track_id, usable=False, warning=str(error))
        damage = (str(entry.message) for entry in caught if issubclass(entry.category, AudioWarning))
        return Prepared(track.track_id, warning="; ".join(damage))


def pool_track(cqt: NDArray[np.float16], front_end: FrontEnd, cached: int, pooling: int | None = None) -> torch.Tensor:
    """A whole track (1, n_bins, T), cached at `cached` CQT frames per frame, at `pooling` or the front end's."""
    magnitude = torch.from_numpy(cqt.astype(np.float32))[None]
    shortest = SHORTEST_FRAMES * front_end.time_pooling // cached
    repeats = -(-shortest // magnitude.shape[2])  # what is too short is repeated, as at inference
    return pool_time(magnitude.repeat(1, 1, repeats), (pooling or front_end.time_pooling) // cached)
