"""Embedding with the interface of pymilvus' embedding functions, for a stack that is built on them.

``pymilvus.model.base.BaseEmbeddingFunction`` of the package pymilvus-model asks for ``__call__`` and
``encode_queries``; its functions have ``encode_documents`` and ``dim`` too. It is met here without that package, which
brings transformers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..audio.load import load_audio
from ..errors import AudioError
from .embedder import Embedder

Recording: TypeAlias = str | os.PathLike[str] | NDArray[np.float32]  # a file, or a waveform as `load_audio` gives it


class ByteCover2EmbeddingFunction:
    """Recordings to unit embeddings; a query and a document are embedded alike.

    Parameters
    ----------
    bundle, device, threads
        As for `Embedder`.
    """

    def __init__(self, bundle: str | Path | None = None, device: str = "auto", threads: int | None = None) -> None:
        self._embedder = Embedder(bundle, device, threads)

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self._embedder.dim

    @property
    def model_id(self) -> str:
        """Hash of the weights: embeddings compare only within one model_id."""
        return self._embedder.model_id

    def __call__(self, recordings: Sequence[Recording]) -> list[NDArray[np.float32]]:
        """The embeddings of recordings.

        Parameters
        ----------
        recordings : sequence of str, Path or np.ndarray [shape=(n_samples,)] of float32
            Paths of audio files, or waveforms: mono, 22 050 Hz. They are held in memory one at a time.

        Returns
        -------
        embeddings : list of np.ndarray [shape=(D,)] of float32

        Raises
        ------
        AudioError
            If one cannot be embedded; the message names the file.
        TypeError
            If there is no sequence around a single path or waveform.
        """
        if isinstance(recordings, (str, bytes, os.PathLike)) or getattr(recordings, "ndim", 2) == 1:
            raise TypeError("a list of recordings is needed; put the one path or waveform in a list")
        return [self._embed(recording) for recording in recordings]

    def encode_documents(self, documents: Sequence[Recording]) -> list[NDArray[np.float32]]:
        """The embeddings of recordings that are to be stored."""
        return self(documents)

    def encode_queries(self, queries: Sequence[Recording]) -> list[NDArray[np.float32]]:
        """The embeddings of recordings that are looked for."""
        return self(queries)

    def _embed(self, recording: Recording) -> NDArray[np.float32]:
        if isinstance(recording, np.ndarray):
            return self._embedder.embed(recording)
        waveform = load_audio(Path(recording))
        try:
            return self._embedder.embed(waveform)
        except AudioError as error:
            raise type(error)(f"{recording}: {error}") from error
