"""What is trained on: works with their tracks, and the cached CQT of every track.

A track is either an arrangement of a song, rendered when first needed, or an audio file of a manifest. Both become the
same thing, a fine-grained CQT magnitude (n_bins, T) in float16 in the cache; augmentation and pooling start there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .. import __version__
from ..audio import load_audio
from ..config import FrontEnd
from ..errors import AudioError, ManifestError, SongError
from ..manifest import Track
from ..model.cqt import ConstantQ, pool_time
from ..processes import map_in_processes
from ..songs.arrange import arrange
from ..songs.render import render
from ..songs.score import Song
from ..writing import whole_file

FINE_POOLING = 20  # CQT frames per cached frame at most: 0.46 s leaves room for changes of tempo
ARRANGEMENT_S = 120.0  # longer arrangements are cut here: no crop reaches further


class Source(Protocol):
    """One track that can be turned into a waveform, and a name for what it sounds like."""

    def waveform(self) -> NDArray[np.float32]: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class SongSource:
    """An arrangement of a song."""

    song: Song
    seed: int

    def waveform(self) -> NDArray[np.float32]:
        return render(arrange(self.song, self.seed), max_duration_s=ARRANGEMENT_S)

    @cached_property
    def fingerprint(self) -> str:
        return f"{__version__} {ARRANGEMENT_S} {self.song!r} {self.seed}"


@dataclass(frozen=True)
class FileSource:
    """An audio file."""

    path: Path

    def waveform(self) -> NDArray[np.float32]:
        return load_audio(self.path)

    @cached_property
    def fingerprint(self) -> str:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be read ({error.strerror}); mend the manifest") from error
        return f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


@dataclass(frozen=True)
class CorpusTrack:
    source: Source
    track_id: str


@dataclass(frozen=True)
class Corpus:
    """Works by name, each with its tracks."""

    works: dict[str, tuple[CorpusTrack, ...]]

    @classmethod
    def of_songs(cls, songs: Iterable[Song], arrangements: int) -> Corpus:
        """`arrangements` tracks of every song.

        Raises
        ------
        SongError
            If two songs have one song_id: one of them would be lost.
        """
        works: dict[str, tuple[CorpusTrack, ...]] = {}
        for song in songs:
            if song.song_id in works:
                raise SongError(f"{song.song_id}: the id of two songs; name each source once, or rename a score")
            works[song.song_id] = tuple(
                CorpusTrack(SongSource(song, seed), f"{song.song_id}/{seed}") for seed in range(arrangements)
            )
        return cls(works)

    @classmethod
    def of_manifest(cls, tracks: Sequence[Track]) -> Corpus:
        """The works of a manifest that have at least two tracks: only those can be learned from.

        Raises
        ------
        ManifestError
            If there is no such work.
        """
        works: dict[str, list[CorpusTrack]] = {}
        for track in tracks:
            if track.work_id:
                works.setdefault(track.work_id, []).append(CorpusTrack(FileSource(track.path), track.track_id))
        kept = {work_id: tuple(members) for work_id, members in works.items() if len(members) > 1}
        if not kept:
            raise ManifestError("no work with two tracks in the manifest: there is nothing to learn from")
        return cls(kept)

    def __add__(self, other: Corpus) -> Corpus:
        """Both corpora's works; a name that both have is refused, as one of the two works would be lost."""
        if shared := sorted(self.works.keys() & other.works.keys()):
            raise ManifestError(f"{shared[0]}: a work of the songs and of the manifest; rename it in the manifest")
        return Corpus(self.works | other.works)

    @property
    def n_tracks(self) -> int:
        return sum(len(tracks) for tracks in self.works.values())

    def tracks(self) -> Iterator[tuple[str, CorpusTrack]]:
        """Every track with its work, in a fixed order."""
        for work_id, tracks in self.works.items():
            for track in tracks:
                yield work_id, track


class FeatureCache:
    """Fine-grained CQTs of tracks, (n_bins, T) float16 over their maximum, one ``.npy`` each in a folder.

    The folder may be shared by runs and deleted at any time; what is missing is computed again.
    """

    def __init__(self, folder: str | Path, front_end: FrontEnd) -> None:
        self.folder = Path(folder)
        self.front_end = front_end
        self.pooling = np.gcd(front_end.time_pooling, FINE_POOLING).item()  # CQT frames per cached frame

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
        try:
            return np.load(path)
        except FileNotFoundError:
            cqt = self._compute(track.source)
        with whole_file(path) as part, part.open("wb") as file:
            np.save(file, cqt)
        return cqt

    def fill(self, corpus: Corpus, workers: int) -> Iterator[str]:
        """Compute what is missing, in `workers` processes; yields a track_id as each track is ready."""
        missing = []
        for _, track in corpus.tracks():
            if self.path(track).exists():
                yield track.track_id
            else:
                missing.append(track)
        if missing:
            yield from map_in_processes(self._fill_one, missing, workers, chunksize=4)

    def _fill_one(self, track: CorpusTrack) -> str:
        torch.set_num_threads(1)  # of this worker: there is one for every core
        if not self.path(track).exists():
            self.load(track)
        return track.track_id

    @torch.inference_mode()
    def _compute(self, source: Source) -> NDArray[np.float16]:
        constant_q = ConstantQ(self.front_end)
        cqt = pool_time(constant_q(torch.from_numpy(source.waveform())[None]), self.pooling)[0].numpy()
        return (cqt / max(cqt.max(), 1e-12)).astype(np.float16)
