"""Waveforms in, unit embeddings out: one ONNX Runtime session on a bundle."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ..cpu import usable_cores
from ..errors import AudioError, BundleError, DeviceError, SilentAudio
from ..untrusted import shorten
from .bundle import default_bundle, open_bundle
from .contract import COPY_AGAIN, INPUT, OUTPUT, OUTPUT_CHROMA, check_graph, check_metadata
from .onnx_file import OnnxFile
from .session import onnx_runtime_errors, open_session, run_interruptibly
from .waveform import prepare

if TYPE_CHECKING:
    import onnxruntime

DEVICES = ("auto", "cpu", "cuda")
BATCH_SAMPLES = 8 << 20  # samples of all waveforms in one call of the session, 6.3 min; they bound its memory
LONGEST_S = 1800.0  # seconds of a waveform in one call; what is longer is a concert or a programme, not one work


@dataclass(frozen=True, eq=False)
class Heard:
    """The network's output for a recording: a vector to search by, and a sequence to align."""

    embedding: NDArray[np.float32]  # (D,), unit norm
    chroma: NDArray[np.float32] | None = None  # (n_frames, channels) in [0, 1]; None where the bundle has none


class Embedder:
    """The network of a bundle, ready to embed.

    Threads may share it, and a call lets other threads run meanwhile, so that ``await
    asyncio.to_thread(embedder.embed, waveform)`` does not block an event loop. A pickle of it holds the path of its
    bundle and its settings: the process that unpickles it opens that bundle again. A process that was forked opens the
    bundle again when it first embeds, which takes as long as `Embedder` does. CUDA does not survive a fork, so start
    processes that use it by "spawn" or "forkserver".

    Parameters
    ----------
    bundle : str or Path, optional
        Folder of the bundle; by default the one that ships with this package.
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where it works, else the CPU.
    threads : int, optional
        CPU threads of one call; by default all cores that this process may use.

    Raises
    ------
    BundleError
        If the bundle is missing, damaged, foreign, or its model contradicts its contract.
    DeviceError
        If ONNX Runtime is not installed, or `device` is "cuda" and CUDA does not work.
    """

    def __init__(self, bundle: str | Path | None = None, device: str = "auto", threads: int | None = None) -> None:
        if device not in DEVICES:
            raise DeviceError(f"device = {device!r}: choose one of {', '.join(DEVICES)}")
        opened = open_bundle(default_bundle() if bundle is None else bundle)
        self.contract = opened.contract
        self.verdict = opened.calibration  # None where there is no second stage, or it was not calibrated
        model = OnnxFile.read(opened.model)
        check_metadata(self.contract, opened.model, model)
        check_graph(self.contract, opened.model, model)
        self._made_with = (None if bundle is None else str(opened.path.absolute()), device, threads)
        self._model = opened.model
        self._session = open_session(opened, device, threads or usable_cores())
        _embedders.add(self)

    def __reduce__(self) -> tuple[Callable[..., Embedder], tuple[str, str | None, str, int | None]]:
        return _reopen, (self.model_id, *self._made_with)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        """The session, opened again in a process that was forked."""
        return _reopen(self.model_id, *self._made_with)._session

    @property
    def model_id(self) -> str:
        """Hash of the weights: embeddings compare only within one model_id."""
        return self.contract.model_id

    @property
    def contract_version(self) -> int:
        return self.contract.contract_version

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.contract.embedding_dim

    @property
    def chroma_id(self) -> str:
        """Hash of the note map: chroma compares only within one chroma_id; "" where the bundle has no second stage."""
        return self.contract.chroma_id

    @property
    def chroma_channels(self) -> int:
        """Channels of chroma, 12 for each group; 0 where the bundle has no second stage."""
        return self.contract.chroma_channels

    @property
    def frame_s(self) -> float:
        """Seconds from one frame of chroma to the next; 0 where the bundle has no second stage."""
        return self.contract.frame_s

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider in use, such as "CPUExecutionProvider"."""
        return str(self._session.get_providers()[0])

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """The unit embedding of one waveform.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)] of float32
            Mono, at the contract's sample rate, 22 050 Hz. Below `contract.minimum_samples` it is repeated; beyond
            `LONGEST_S` its embedding is the mean of those of equal parts, so that memory does not grow with it.

        Returns
        -------
        embedding : np.ndarray [shape=(D,)] of float32
            Of unit norm.

        Raises
        ------
        EmptyAudio, ShortAudio, SilentAudio
            If there are no samples, too few, or none above the silence floor: the embedding would mean nothing.
        AudioError
            If the array is not one-dimensional, not float32, or holds NaN or infinity, or its embedding does.
        DeviceError
            If ONNX Runtime fails, for want of memory perhaps.
        """
        return self.hear(waveform).embedding

    def embed_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The embeddings (N, D) of several waveforms; each is what `embed` gives for it alone.

        Raises
        ------
        AudioError, DeviceError
            As `hear_batch`.
        """
        rows = [heard.embedding for heard in self.hear_batch(waveforms)]
        return np.stack(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        """The unit embedding of one waveform and its chroma, frame by frame.

        The chroma of a short waveform, which is repeated, ends where the waveform does. Beyond `LONGEST_S` chroma is
        that of the parts, one after the other.

        Raises
        ------
        AudioError, DeviceError
            As `embed`.
        """
        (heard,) = self.hear_batch([waveform])
        return heard

    def hear_batch(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Heard]:
        """Embeddings and chroma of several waveforms; each is what `hear` gives for it alone.

        Waveforms of equal length share a call of the session. None is ever padded: the network pools over time and
        would see the padding.

        Raises
        ------
        AudioError
            As `embed`; of the samples, before anything is computed, unless they are more than `LONGEST_S`.
        DeviceError
            As `embed`.
        """
        prepared = [waveform if self._is_long(waveform) else prepare(waveform, self.contract) for waveform in waveforms]
        indices_of: dict[int, list[int]] = {}  # length -> where such waveforms stand
        for index, waveform in enumerate(prepared):
            indices_of.setdefault(len(waveform), []).append(index)
        heard: dict[int, Heard] = {}
        for length, indices in indices_of.items():
            if self._is_long(prepared[indices[0]]):
                heard |= {index: self._hear_parts(prepared[index]) for index in indices}
                continue
            step = max(1, BATCH_SAMPLES // length)
            for start in range(0, len(indices), step):
                batch = indices[start : start + step]
                one = len(batch) == 1  # whose samples need not be copied
                rows = prepared[batch[0]][None] if one else np.stack([prepared[index] for index in batch])
                embeddings, chroma = self._run(rows)
                for row, index in enumerate(batch):
                    own = None if chroma is None else chroma[row, : self._n_frames(len(waveforms[index]))]
                    heard[index] = Heard(embeddings[row], own)
        return [heard[index] for index in range(len(prepared))]

    def _n_frames(self, n_samples: int) -> int:
        """Frames of chroma of so many samples: whole ones of those that the CQT has, one more than hops."""
        hop_length = self.contract.front_end.hop_length
        assert self.contract.chroma is not None
        return (1 + n_samples // hop_length) * hop_length // self.contract.chroma.frame_samples

    def _is_long(self, waveform: NDArray[np.float32]) -> bool:
        return waveform.ndim == 1 and len(waveform) > LONGEST_S * self.contract.sample_rate

    def _hear_parts(self, waveform: NDArray[np.float32]) -> Heard:
        """The unit mean of the embeddings of equal parts of at most `LONGEST_S`; those that are silent do not count.

        Chroma is that of the parts in order, 0 where one is silent.
        """
        total = np.zeros(self.dim, dtype=np.float32)
        chroma: list[NDArray[np.float32]] = []
        silent: SilentAudio | None = None
        for part in np.array_split(waveform, math.ceil(len(waveform) / (LONGEST_S * self.contract.sample_rate))):
            try:
                heard = self.hear(part)
                total += heard.embedding
                if heard.chroma is not None:
                    chroma.append(heard.chroma)
            except SilentAudio as error:
                silent = error
                if self.contract.chroma:
                    chroma.append(np.zeros((self._n_frames(len(part)), self.chroma_channels), dtype=np.float32))
            mapped = getattr(part, "_mmap", None)  # of a memmap; not of one that astype made
            if mapped is not None:  # what was read of the file would count as memory of this process
                mapped.madvise(mmap.MADV_DONTNEED)
        if silent and not total.any():
            raise silent
        return Heard(total / np.linalg.norm(total), np.concatenate(chroma) if chroma else None)

    def _run(self, waveforms: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """(B, n_samples) -> embeddings (B, D), and chroma (B, n_frames, channels) where the bundle has it."""
        from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

        outputs = [OUTPUT, OUTPUT_CHROMA] if self.contract.chroma else [OUTPUT]
        try:
            embeddings, *chroma = run_interruptibly(self._session, outputs, {INPUT: waveforms})
        except (EPFail, Fail, RuntimeException, MemoryError) as error:
            seconds = waveforms.size / self.contract.sample_rate
            raise DeviceError(
                f"{self.provider}: ONNX Runtime failed on {seconds:.0f} s of audio ({shorten(error)}); if memory is "
                "short, free some or choose another device"
            ) from error
        except onnx_runtime_errors() as error:
            raise BundleError(f"{self._model}: ONNX Runtime cannot run it ({shorten(error)}); {COPY_AGAIN}") from error
        if embeddings.shape != (len(waveforms), self.dim):
            raise BundleError(f"{self._model}: gives {embeddings.shape}, not {self.dim} values; {COPY_AGAIN}")
        if not np.isfinite(embeddings).all():
            raise AudioError("waveform too loud for float32: its embedding is not finite; export it again")
        return embeddings, chroma[0] if chroma else None


_embedders: WeakSet[Embedder] = WeakSet()


def _leave_sessions() -> None:
    """Take the sessions from all embedders, in a process that was just forked: their threads are not there.

    They are never freed: that would wait for their threads, for ever.
    """
    for embedder in list(_embedders):
        if session := vars(embedder).pop("_session", None):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_sessions)


def _reopen(model_id: str, bundle: str | None, device: str, threads: int | None) -> Embedder:
    """An embedder with the settings of another, of a bundle that must hold the same model still."""
    embedder = Embedder(bundle, device, threads)
    if embedder.model_id != model_id:
        raise BundleError(
            f"{bundle or default_bundle()}: holds model {embedder.model_id} now, not {model_id} that was pickled; "
            "make the Embedder anew"
        )
    return embedder
