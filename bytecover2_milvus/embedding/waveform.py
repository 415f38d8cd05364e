"""Waveforms checked, and made long enough, before they are embedded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, EmptyAudio, ShortAudio, SilentAudio
from .contract import Contract


def prepare(waveform: NDArray[np.float32], contract: Contract) -> NDArray[np.float32]:
    """A waveform that a bundle can embed: `waveform` itself, or whole copies of it if it is short.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)] of float32
    contract : Contract
        Of the bundle.

    Returns
    -------
    prepared : np.ndarray [shape=(n_samples,)] of float32
        Of at least `contract.minimum_samples`.

    Raises
    ------
    EmptyAudio, ShortAudio, SilentAudio
        If there are no samples, too few, or none above the silence floor.
    AudioError
        If the array is not one-dimensional, not float32, or holds NaN or infinity.
    """
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        raise AudioError(
            f"waveform of {waveform.dtype}, shape {waveform.shape}: one dimension of float32 is needed, mono at "
            f"{contract.sample_rate} Hz; load_audio gives that"
        )
    if not waveform.size:
        raise EmptyAudio("waveform of 0 samples: nothing to embed")
    peak = max(waveform.max(), -waveform.min())
    if not np.isfinite(peak):
        raise AudioError("waveform with NaN or infinite samples: decode the file again")
    if waveform.size < contract.shortest_samples:
        raise ShortAudio(
            f"waveform of {waveform.size} samples: at least {contract.shortest_samples} are needed "
            f"({contract.shortest_samples / contract.sample_rate:g} s at {contract.sample_rate} Hz)"
        )
    if peak < contract.silence_peak:
        raise SilentAudio(f"silent waveform: its peak {peak:.1e} is below {contract.silence_peak:g} of full scale")
    if waveform.size >= contract.minimum_samples:
        return waveform
    return np.tile(waveform, -(-contract.minimum_samples // waveform.size))  # whole copies, rounded up
