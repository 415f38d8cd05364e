"""Sounds that are no music, and should find nothing: noise, sines and speech."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.calibration_pairs import Sound
from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder

SOUNDS_PER_KIND = 10
DURATION_S = 30.0


def no_music(embedder: Embedder) -> Iterator[tuple[str, list[Sound]]]:
    """Sounds that are no music, kind by kind; speech only where espeak-ng is installed."""
    n_samples = round(DURATION_S * SAMPLE_RATE)
    seconds = np.arange(n_samples) / SAMPLE_RATE
    noises, colours, sines = [], [], []
    for i in range(SOUNDS_PER_KIND):
        noise = np.random.default_rng(i).standard_normal(n_samples)
        noises.append(noise / 5)
        colours.append(np.cumsum(noise) / np.abs(np.cumsum(noise)).max())
        sines.append(np.sin(2 * np.pi * 110 * 2 ** (5 * i / 12) * seconds) / 2)
    kinds = {"white noise": noises, "brown noise": colours, "sine": sines}
    if shutil.which("espeak-ng"):
        kinds["speech"] = list(_speech())
    else:
        click.echo("speech is left out: espeak-ng is not installed", err=True)
    for kind, waveforms in kinds.items():
        heard = [embedder.hear(waveform.astype(np.float32)) for waveform in waveforms]
        yield kind, [Sound("", "", one.embedding, to_levels(one.chroma)) for one in heard]


def _speech() -> Iterator[NDArray[np.float32]]:
    """The prose of the package's documents, read aloud in several voices."""
    texts = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    for i in range(SOUNDS_PER_KIND):
        text = texts[i % len(texts)].read_text(encoding="utf-8").replace("`", "")[300 * i : 300 * i + 1_500]
        voice = ("en-us", "en-gb", "de", "fr")[i % 4]
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "speech.wav"
            subprocess.run(["espeak-ng", "-v", voice, "-w", wave, "--stdin"], input=text.encode(), check=True)
            yield load_audio(wave)[: round(DURATION_S * SAMPLE_RATE)]
