"""A small real embedder: the energy of a waveform in bands, for tests that need embeddings but no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.embedding.embedder import Heard


class BandEmbedder:
    """Unit vector of mean log energies in `dim` equal bands; equal for equal waveforms, near for similar ones."""

    model_id = "bands"
    dim = 128
    contract_version = 1
    chroma_id = ""
    chroma_channels = 0
    verdict = None

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        frames = waveform[: len(waveform) // 1024 * 1024].reshape(-1, 1024)
        power = np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1))[:, :512] ** 2  # (n_frames, 512)
        bands = np.log1p(1e3 * power.mean(axis=0).reshape(self.dim, -1).mean(axis=1))  # (dim,)
        return (bands / np.linalg.norm(bands)).astype(np.float32)

    def embed_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack([self.embed(waveform) for waveform in waveforms])

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        return Heard(self.embed(waveform), self.chroma(waveform))

    def hear_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Heard]:
        return [self.hear(waveform) for waveform in waveforms]

    def chroma(self, waveform: NDArray[np.float32]) -> NDArray[np.float32] | None:
        return None


class ChromaEmbedder(BandEmbedder):
    """The same embeddings, and beside them chroma: in each frame one pitch class, by the band with the most energy."""

    chroma_id = "most"
    chroma_channels = 24

    def chroma(self, waveform: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Of frames of 10 240 samples, shape=(n_frames, 24)."""
        frames = waveform[: len(waveform) // 10_240 * 10_240].reshape(-1, 10_240)
        loudest = np.abs(np.fft.rfft(frames, axis=1))[:, 1:].argmax(axis=1)  # (n_frames,)
        return np.tile(np.eye(12, dtype=np.float32)[loudest % 12], 2)


class NoEmbedder(BandEmbedder):
    """For runs that must not embed anything."""

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("embedded again")
