"""CQTs of arrangements: drawn straight, or played to a waveform and heard by the real front end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...audio.degrade import DEGRADATIONS, degrade
from ...config import FrontEnd
from ...model.cqt import ConstantQ, pool_time
from ...songs.arrange.arrangement import Arrangement, arrange, seeded
from ...songs.render.renderer import render
from ...songs.score import Song
from ...songs.version import ANALYSIS, ARRANGING, DEGRADING, DRAWING, PLAYING
from .spectral import SpectralRenderer
from .tone_bank import ToneBank, loudness_weight

ARRANGEMENT_S = 120.0  # longer arrangements are cut here; a longer crop repeats them


@dataclass(frozen=True)
class Rendering:
    """The way that each arrangement takes, drawn from its song and seed; shares are between 0 and 1."""

    spectral: float = 0.0  # share of the tracks that are drawn straight to the CQT
    degraded: float = 0.0  # share of the played tracks that go through what recordings do to music
    sound_fonts: tuple[Path, ...] = ()  # play every second track that is played, and parts of those that are drawn
    folder: Path = Path(".cache/cqt")  # keeps the tone bank
    kinds: tuple[str, ...] = tuple(DEGRADATIONS)  # that the degraded ones draw from

    @cached_property
    def fingerprint(self) -> str:
        fonts = [(font.name, font.stat().st_size) for font in self.sound_fonts]
        kinds = " ".join(self.kinds) if self.degraded else ""
        versions = (ARRANGING, PLAYING, ANALYSIS, DRAWING if self.spectral else 0, DEGRADING if self.degraded else 0)
        return f"{versions} {ARRANGEMENT_S} {self.spectral:g} {self.degraded:g} {fonts} {kinds}"

    def prepare(self, front_end: FrontEnd) -> None:
        """Measure the tones, where tracks will be drawn; else every process would.

        Raises
        ------
        ConfigError, SongError
            As `ToneBank.open`.
        """
        if self.spectral:
            ToneBank.open(self.folder, front_end, self.sound_fonts)

    def draws(self, song: Song, seed: int) -> bool:
        """True if the arrangement is drawn straight to a CQT, false if it is played."""
        return bool(seeded(song.song_id, seed, "rendering").random() < self.spectral)

    def cqt(self, song: Song, seed: int, front_end: FrontEnd, pooling: int) -> NDArray[np.float32]:
        """CQT magnitude (n_bins, T) of an arrangement's first two minutes, mean over `pooling` frames."""
        return self.cqt_of(arrange(song, seed), front_end, pooling)

    def cqt_of(self, arrangement: Arrangement, front_end: FrontEnd, pooling: int) -> NDArray[np.float32]:
        """The CQT of an arrangement that is there already, as by `cqt`."""
        rng = seeded(arrangement.song_id, arrangement.seed, "rendering")
        if rng.random() < self.spectral:
            renderer = _spectral_renderer(self.folder, front_end, self.sound_fonts)
            return renderer.render(arrangement, pooling, ARRANGEMENT_S)
        waveform = self._play(arrangement, rng)
        if rng.random() < self.degraded:
            waveform = degrade(waveform, rng, self.kinds)
        return analyse(waveform, front_end, pooling)

    def _play(self, arrangement: Arrangement, rng: np.random.Generator) -> NDArray[np.float32]:
        if self.sound_fonts and rng.random() < 0.5:
            from ...songs.render.soundfont import render_with_soundfont

            font = self.sound_fonts[rng.integers(len(self.sound_fonts))]
            return render_with_soundfont(arrangement, font, ARRANGEMENT_S)
        return render(arrangement, ARRANGEMENT_S)


@torch.inference_mode()
def analyse(waveform: NDArray[np.float32], front_end: FrontEnd, pooling: int) -> NDArray[np.float32]:
    """CQT magnitude (n_bins, T) of a waveform, mean over `pooling` frames."""
    return pool_time(ConstantQ(front_end)(torch.from_numpy(waveform)[None]), pooling)[0].numpy()


@lru_cache(maxsize=1)
def _spectral_renderer(folder: Path, front_end: FrontEnd, sound_fonts: tuple[Path, ...]) -> SpectralRenderer:
    return SpectralRenderer(ToneBank.open(folder, front_end, sound_fonts), loudness_weight(front_end))
