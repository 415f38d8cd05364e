"""Golden vectors: waveforms with the outputs that every consumer of a bundle has to reproduce."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..config import SAMPLE_RATE
from ..embedding.contract import INPUT, Contract
from ..model.note_map import CHROMA_FRAME_HOPS
from .fold import InferenceModel
from .parity import melody, reference_session

GOLDEN_S = {"long": 20.0, "short": 3.0}  # seconds; the short one is repeated before it is embedded


def golden_vectors(model: bytes, contract: Contract) -> dict[str, np.ndarray]:
    """Waveforms as int16 (full scale 32768), and embeddings and chroma as ONNX Runtime gives them on the CPU."""
    session = reference_session(model)
    golden = {}
    for seed, (name, duration_s) in enumerate(GOLDEN_S.items()):
        pcm = np.round(melody(round(duration_s * SAMPLE_RATE), seed) * 32767).astype(np.int16)
        waveform = _long_enough(pcm, contract.minimum_samples)
        golden[f"{name}_waveform"] = pcm
        golden[f"{name}_embedding"], *chroma = (rows[0] for rows in session.run(None, {INPUT: waveform[None]}))
        for frames in chroma:  # one array with a second stage, else none
            n_frames = (1 + len(pcm) // contract.front_end.hop_length) // CHROMA_FRAME_HOPS
            golden[f"{name}_chroma"] = frames[:n_frames]
    return golden


def golden_cqts(shipped: InferenceModel, golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The pooled CQT (n_bins, T) of every golden waveform: ``model_cqt.onnx`` gives the same embeddings for them."""
    cqts = {}
    for name in GOLDEN_S:
        waveform = _long_enough(golden[f"{name}_waveform"], shipped.config.minimum_samples)
        with torch.inference_mode():
            cqts[f"{name}_cqt"] = shipped.pool_cqt(torch.from_numpy(waveform)[None])[0].numpy()
    return cqts


def _long_enough(pcm: np.ndarray, minimum_samples: int) -> np.ndarray:
    """A waveform of int16 as float32, repeated in whole copies if it is short."""
    return np.tile(pcm.astype(np.float32) / 32768, -(-minimum_samples // len(pcm)))
