"""Training data as users name it: songs, a manifest of recordings, recordings without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...audio.degrade import chosen_kinds
from ...audio.load import find_audio
from ...manifest import read_manifest
from ...songs.select import select_songs
from ...songs.strangers import stranger
from .corpus import Corpus
from .feature_cache import FeatureCache
from .rendering import Rendering


@dataclass(frozen=True)
class DataSources:
    """The sources of works, and the way songs become tracks."""

    songs: tuple[str, ...] = ()  # as `select_songs` reads them
    manifest: str | Path | None = None  # as `read_manifest` reads it
    unlabelled: tuple[Path, ...] = ()  # audio files or folders: each recording is a work of its own
    strangers: int = 0  # songs composed over the chords of each song, with its bands: works of their own
    arrangements: int = 4  # tracks of each song
    spectral: float = 0.0  # share of the arrangements that are drawn straight to a CQT
    degraded: float = 0.0  # share of the played ones that go through what recordings do
    sound_fonts: tuple[Path, ...] = ()  # that play a part of them
    variants: int = 3  # degraded copies of each unlabelled recording
    degradations: tuple[str, ...] = ()  # what may happen to either; all kinds if none is named

    @property
    def names(self) -> Iterator[str]:
        """The sources by the last part of their names, for the model card."""
        sources: tuple[str | Path, ...] = (*self.songs, *([self.manifest] if self.manifest else []), *self.unlabelled)
        for source in sources:
            yield Path(source).name or Path(source).resolve().name

    def corpus(self, features: FeatureCache, workers: int) -> Corpus:
        """The works, their CQTs not computed yet; a recording of the manifest's works is not a work of its own.

        Raises
        ------
        BytecoverError
            If a source cannot be read, or has nothing to learn from.
        """
        kinds = tuple(chosen_kinds(self.degradations or None))
        rendering = Rendering(self.spectral, self.degraded, self.sound_fonts, features.folder, kinds)
        chosen = [song for spec in self.songs for song in select_songs(spec, features.folder / "songs", workers)]
        chosen += [stranger(song, number) for song in chosen for number in range(self.strangers)]
        corpus = Corpus.of_songs(chosen, self.arrangements, rendering)
        if self.songs:
            rendering.prepare(features.front_end)
        labelled = Corpus.of_manifest(read_manifest(self.manifest)) if self.manifest else Corpus({})
        corpus += labelled
        if self.unlabelled:
            corpus += Corpus.of_recordings(find_audio(self.unlabelled), self.variants, kinds, labelled.files)
        return corpus
