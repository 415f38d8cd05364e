"""Does the graph reproduce the network? And what does rounding its weights cost?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import SAMPLE_RATE
from ..embedding.contract import INPUT, INPUT_CQT, OUTPUT
from ..errors import ExportError
from .fold import InferenceModel

TOLERANCE = 1e-4  # of any component of a unit embedding
ROUNDING_COSINE = 0.99  # of the network and its rounded self: catches weights beyond half precision


@dataclass(frozen=True)
class Parity:
    """The differences that were measured at export."""

    largest_difference: float  # of any component of embedding or chroma, torch against ONNX Runtime
    rounding_cosine: float  # smallest cosine of the network in float32 and the network that ships


def check_parity(
    embed: Callable[[Tensor], Tensor], shipped: InferenceModel, model: bytes, probes: list[NDArray[np.float32]]
) -> Parity:
    """Compare, on all `probes` (batch, samples), the outputs of ONNX Runtime with those of torch.

    Parameters
    ----------
    embed : callable
        The network as trained, from waveform to unit embedding: what rounding is measured against.
    shipped : InferenceModel
        The network that `model` must reproduce.
    model : bytes
        The file ``model.onnx``.
    probes : list of np.ndarray [shape=(batch, samples)]

    Raises
    ------
    ExportError
        If ONNX Runtime differs from `shipped` by more than `TOLERANCE`, or `shipped` from `embed` by a cosine below
        `ROUNDING_COSINE`, or any embedding is not finite.
    """
    session = reference_session(model)
    difference, cosine = 0.0, 1.0
    for probe in probes:
        with torch.inference_mode():
            exact = embed(torch.from_numpy(probe)).numpy()
            rounded, *chroma = (output.numpy() for output in shipped.outputs(torch.from_numpy(probe)))
        exported, *exported_chroma = session.run(None, {INPUT: probe})
        difference = np.maximum(difference, np.abs(exported - rounded).max())  # np, not max(): NaN must stay NaN
        for ours, theirs in zip(chroma, exported_chroma, strict=True):
            difference = np.maximum(difference, np.abs(ours - theirs).max())
        cosine = np.minimum(cosine, (exact * rounded).sum(axis=1).min())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"ONNX Runtime differs from torch by {difference:.1e} on waveforms {probe.shape}, "
                f"more than {TOLERANCE:g}: nothing was written"
            )
        if not cosine >= ROUNDING_COSINE:
            raise ExportError(
                f"weights in half precision change embeddings to a cosine of {cosine:.5f}, below {ROUNDING_COSINE:g}: "
                "nothing was written; are the weights trained, and finite?"
            )
    return Parity(float(difference), float(cosine))


def check_cqt_parity(shipped: InferenceModel, model_cqt: bytes, probes: list[NDArray[np.float32]]) -> None:
    """Compare, on all `probes` (batch, samples), ``model_cqt.onnx`` after our front end with `shipped` on the waveform.

    Raises
    ------
    ExportError
        If any component of an embedding differs by more than `TOLERANCE`, or is not finite.
    """
    session = reference_session(model_cqt)
    for probe in probes:
        with torch.inference_mode():
            waveform = torch.from_numpy(probe)
            expected, cqt = shipped.outputs(waveform)[0].numpy(), shipped.pool_cqt(waveform).numpy()
        difference = np.abs(session.run([OUTPUT], {INPUT_CQT: cqt})[0] - expected).max()
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the form that takes the CQT differs by {difference:.1e} on waveforms {probe.shape}, "
                f"more than {TOLERANCE:g}: nothing was written"
            )


def reference_session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def melody(n_samples: int, seed: int) -> NDArray[np.float32]:
    """A waveform to compare embeddings on: plucked notes with overtones at random pitches, and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / SAMPLE_RATE
    waveform = 0.001 * rng.standard_normal(n_samples)
    for onset in np.arange(0, t[-1], 0.25):
        first = round(onset * SAMPLE_RATE)
        since = t[first : first + 2 * SAMPLE_RATE] - onset  # s; a note rings for two seconds
        frequency = 440 * 2 ** (rng.integers(-24, 24) / 12)
        for partial in (1, 2, 3, 4):
            note = np.sin(2 * np.pi * partial * frequency * since) * np.exp(-3 * since)
            waveform[first : first + len(since)] += 0.1 / partial * note
    return waveform.astype(np.float32)


def probes(minimum_samples: int) -> list[NDArray[np.float32]]:
    """Waveforms (batch, samples) of several batch sizes and lengths: the shortest, odd ones, over a minute."""
    lengths = {1: minimum_samples, 2: minimum_samples + 1, 5: minimum_samples * 5 // 4 + 3}
    batches = [np.stack([melody(samples, seed) for seed in range(batch)]) for batch, samples in lengths.items()]
    return [*batches, melody(61 * SAMPLE_RATE + 7, seed=0)[None]]
