"""The tracks of a training: works with their tracks.

A track is an arrangement of a song, rendered when first needed, or an audio file, as it is or degraded. `FeatureCache`
makes the same thing of all.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...audio.decode_pool import hash_content
from ...audio.degrade import DEGRADATIONS, chosen_kinds, degrade
from ...audio.load import stream_audio
from ...config import SAMPLE_RATE, FrontEnd
from ...errors import AudioError, ManifestError, SongError, TrainingError
from ...manifest import Track
from ...songs.score import Song
from ...songs.version import ANALYSIS, DEGRADING
from .rendering import Rendering, analyse

RECORDING_S = 600.0  # of a longer recording the middle is used: a radio programme is not one work

_PLAYED = Rendering()


class Source(Protocol):
    """One track whose CQT can be had, and a name for what it sounds like."""

    def cqt(self, front_end: FrontEnd, pooling: int) -> NDArray[np.float32]: ...

    @property
    def fingerprint(self) -> str: ...  # 64 characters, as there are many

    @property
    def origin(self) -> str: ...  # the song or the file that it is made of

    def later(self, by: int) -> Source: ...  # the track that takes its place once `by` of its origin are replaced


@dataclass(frozen=True)
class SongSource:
    """An arrangement of a song."""

    song: Song
    seed: int
    rendering: Rendering

    def cqt(self, front_end: FrontEnd, pooling: int) -> NDArray[np.float32]:
        return self.rendering.cqt(self.song, self.seed, front_end, pooling)

    @cached_property
    def fingerprint(self) -> str:
        return text_digest(f"{self.rendering.fingerprint} {self.song.digest} {self.seed}")

    @property
    def origin(self) -> str:
        return self.song.song_id

    def later(self, by: int) -> SongSource:
        return SongSource(self.song, self.seed + by, self.rendering)


@dataclass(frozen=True)
class FileSource:
    """An audio file, at most its middle `RECORDING_S`: as it is, or degraded."""

    path: Path
    variant: int = 0  # 0 is the file as it is, every other number another degraded copy of it
    kinds: tuple[str, ...] = tuple(DEGRADATIONS)  # that copies draw from

    def cqt(self, front_end: FrontEnd, pooling: int) -> NDArray[np.float32]:
        return analyse(self.waveform(), front_end, pooling)

    def waveform(self) -> NDArray[np.float32]:
        """The waveform of the track, (n_samples,) at 22 050 Hz."""
        waveform = _middle(self.path, round(RECORDING_S * SAMPLE_RATE))
        if self.variant == 0:
            return waveform
        seed = [self.variant, zlib.crc32(waveform.data)]  # recordings differ in what happens to them, copies do not
        return degrade(waveform, np.random.default_rng(seed), self.kinds)

    @cached_property
    def fingerprint(self) -> str:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be read ({error.strerror}); check the path") from error
        made = f"{DEGRADING} {self.variant} {' '.join(self.kinds)}" if self.variant else ""
        file = f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        return text_digest(f"{file} {RECORDING_S} {ANALYSIS} {made}")

    @property
    def origin(self) -> str:
        return str(self.path)

    def later(self, by: int) -> FileSource:
        return FileSource(self.path, self.variant + by, self.kinds) if self.variant else self  # there is one original


def _middle(path: Path, limit: int) -> NDArray[np.float32]:
    """At most `limit` samples, the middle of what is longer; which is decoded twice, as memory should not hold it."""
    kept, n_samples = bytearray(), 0
    for block in stream_audio(path):
        n_samples += block.size
        if n_samples <= limit:
            kept += block.data
    if n_samples > limit:
        start, at = (n_samples - limit) // 2, 0
        kept.clear()
        for block in stream_audio(path):
            kept += block[max(0, start - at) : max(0, start + limit - at)].data
            at += block.size
            if at >= start + limit:
                break
    return np.frombuffer(kept, dtype=np.float32)


def text_digest(text: str) -> str:
    """A short name for a long text, in which a path may stand that is not UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class CorpusTrack:
    source: Source
    track_id: str

    def later(self, by: int) -> CorpusTrack:
        """The track that takes its place once `by` tracks of its origin have been replaced; itself, if nothing can."""
        return CorpusTrack(self.source.later(by), f"{self.track_id}+{by}") if by else self


@dataclass(frozen=True)
class Corpus:
    """Works by name, each with its tracks."""

    works: dict[str, tuple[CorpusTrack, ...]]

    @classmethod
    def of_songs(cls, songs: Iterable[Song], arrangements: int, rendering: Rendering = _PLAYED) -> Corpus:
        """`arrangements` tracks of every song, as `rendering` turns them into CQTs; versions of a work are one work.

        Raises
        ------
        SongError
            If two songs have one song_id: one of them would be lost.
        """
        works: dict[str, list[CorpusTrack]] = {}
        named: set[str] = set()
        for song in songs:
            if song.song_id in named:
                raise SongError(f"{song.song_id}: the id of two songs; name each source once, or rename a score")
            named.add(song.song_id)
            works.setdefault(song.work_id, []).extend(
                CorpusTrack(SongSource(song, seed, rendering), f"{song.song_id}/{seed}") for seed in range(arrangements)
            )
        return cls({work_id: tuple(tracks) for work_id, tracks in works.items()})

    @classmethod
    def of_manifest(cls, tracks: Sequence[Track]) -> Corpus:
        """The works of a manifest that have at least two tracks: only those can be learned from.

        Raises
        ------
        TrainingError
            If there is no such work.
        """
        works: dict[str, list[CorpusTrack]] = {}
        for track in tracks:
            if track.work_id:
                works.setdefault(track.work_id, []).append(CorpusTrack(FileSource(track.path), track.track_id))
        kept = {work_id: tuple(members) for work_id, members in works.items() if len(members) > 1}
        if not kept:
            raise TrainingError("no work with two tracks in the manifest: there is nothing to learn from")
        return cls(kept)

    @classmethod
    def of_recordings(
        cls,
        paths: Iterable[Path],
        variants: int,
        kinds: Iterable[str] | None = None,
        known: frozenset[Path] = frozenset(),
    ) -> Corpus:
        """Every audio file as a work of its own, whose tracks are the file and `variants` degraded copies of it.

        Files of the same bytes are one work; with the bytes of a `known` file, none. A work is named ``recording/`` and
        its path: the id of a song holds no slash.

        Raises
        ------
        ConfigError
            If one of the `kinds` is no degradation.
        TrainingError
            If there is no file.
        """
        drawn, paths = tuple(chosen_kinds(kinds)), list(paths)
        if not paths:
            raise TrainingError("no recordings: no audio file in what was given to learn from")
        works = {
            f"recording/{path.resolve().as_posix()}": tuple(
                CorpusTrack(FileSource(path, variant, drawn), f"{path.as_posix()}#{variant}")
                for variant in range(variants + 1)
            )
            for path in _distinct([*sorted(known), *paths])
            if path not in known
        }
        return cls(works)

    def __add__(self, other: Corpus) -> Corpus:
        """Both corpora's works; a name that both have is refused, as one of the two works would be lost."""
        if shared := sorted(self.works.keys() & other.works.keys()):
            raise ManifestError(f"{shared[0]}: a work of the songs and of the manifest; rename it in the manifest")
        return Corpus(self.works | other.works)

    @property
    def files(self) -> frozenset[Path]:
        """The audio files, by their resolved paths."""
        return frozenset(
            track.source.path.resolve() for _, track in self.tracks() if isinstance(track.source, FileSource)
        )

    def parts(self) -> tuple[Corpus, Corpus]:
        """The works that are songs, and those that are recordings."""
        songs = {work: tracks for work, tracks in self.works.items() if isinstance(tracks[0].source, SongSource)}
        return Corpus(songs), Corpus({work: tracks for work, tracks in self.works.items() if work not in songs})

    def share(self, rank: int, ranks: int) -> Corpus:
        """Every `ranks`-th work, from number `rank` on."""
        return Corpus(dict(list(self.works.items())[rank::ranks]))

    def where(self, usable: Sequence[bool]) -> Corpus:
        """Without the tracks, in the order of `tracks`, that are not usable, and without works left with one track.

        Raises
        ------
        TrainingError
            If nothing is left.
        """
        kept: dict[str, list[CorpusTrack]] = {}
        for (work_id, track), good in zip(self.tracks(), usable, strict=True):
            if good:
                kept.setdefault(work_id, []).append(track)
        works = {work_id: tuple(tracks) for work_id, tracks in kept.items() if len(tracks) > 1}
        if not works:
            raise TrainingError(
                f"none of the {len(self.works)} works has two usable tracks: there is nothing to learn from"
            )
        return Corpus(works)

    @property
    def n_tracks(self) -> int:
        return sum(len(tracks) for tracks in self.works.values())

    def tracks(self) -> Iterator[tuple[str, CorpusTrack]]:
        """Every track with its work, in a fixed order."""
        for work_id, tracks in self.works.items():
            for track in tracks:
                yield work_id, track


def same_files(paths: Iterable[Path], others: Iterable[Path]) -> list[Path]:
    """Those of `others` that hold the same bytes as one of `paths`; only files of equal size are read."""
    others = _distinct(others)
    sizes = set(map(_size, others))
    known = {path for path in paths if _size(path) in sizes}
    new = set(_distinct([*known, *others])) - known
    return [path for path in others if path not in new]


def _size(path: Path) -> int:
    """In bytes; -1 of what is no file."""
    return path.stat().st_size if path.is_file() else -1


def _content(path: Path) -> str | Path:
    """A hash of a file's bytes; the path itself of what is no file or cannot be read."""
    try:
        if path.is_file():  # opening a pipe may wait for ever
            with path.open("rb") as file:
                return hash_content(file)
    except OSError:
        pass
    return path


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """The first of all files that hold the same bytes; what cannot be read is kept, to be reported when it is used."""
    sizes = {path: _size(path) for path in paths}
    count, seen, distinct = Counter(sizes.values()), set(), []
    for path, size in sizes.items():
        content = size if size >= 0 and count[size] == 1 else _content(path)
        if content not in seen:
            distinct.append(path)
        seen.add(content)
    return distinct
