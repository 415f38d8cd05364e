"""The floor: covers found without any training, by the 2-D Fourier magnitude of beat-synchronous chroma.

The representation of T. Bertin-Mahieux and D. P. W. Ellis, "Large-scale cover song recognition using the 2D Fourier
transform magnitude", ISMIR 2012: chroma per beat does not depend on tempo, and the magnitude of its 2-D Fourier
transform depends neither on the key, a circular shift along pitch, nor on where a pattern stands, a shift along time.

Theirs goes on with a PCA fitted on data; here nothing is fitted. What the PCA does about the offset that all songs
share is done by setting the zero frequency, the mean of the patch, to 0. Their power of 1.96 on the chroma is left out.
Both find more of the rendered covers.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE

PATCH = 75  # beats
_HOP_LENGTH = 512  # samples
_STEP = 22  # chroma frames, half a second: a beat for music without one


def fourier_embedding(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The floor's embedding of a waveform; two minutes of audio take about a second on one core, most of it for chroma.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono, 22 050 Hz, not silent.

    Returns
    -------
    embedding : np.ndarray [shape=(456,)] of float32
        Unit norm.
    """
    import librosa

    chroma = librosa.feature.chroma_cqt(y=waveform, sr=SAMPLE_RATE, hop_length=_HOP_LENGTH)  # (12, n_frames)
    _, beats = librosa.beat.beat_track(y=waveform, sr=SAMPLE_RATE, hop_length=_HOP_LENGTH)  # frames
    if len(beats) < 2:
        beats = np.arange(0, chroma.shape[1], _STEP)
    return fourier_magnitude(librosa.util.sync(chroma, beats))


def fourier_magnitude(chroma: NDArray[np.floating]) -> NDArray[np.float32]:
    """The median 2-D Fourier magnitude of all patches of 75 beats, as a unit vector.

    Parameters
    ----------
    chroma : np.ndarray [shape=(12, n_beats)]
        Not negative. Fewer than 75 beats are repeated.

    Returns
    -------
    magnitude : np.ndarray [shape=(456,)] of float32
        One half of the plane, 12 x 38: the other is its mirror image.
    """
    chroma = chroma / np.maximum(chroma.max(axis=0), 1e-9)  # loudness does not count
    chroma = np.tile(chroma, (1, -(-PATCH // chroma.shape[1])))
    patches = sliding_window_view(chroma, PATCH, axis=1).transpose(1, 0, 2)  # (n_patches, 12, 75)
    magnitude = np.median(np.abs(np.fft.rfft2(patches)), axis=0)  # (12, 38)
    magnitude[:, 1:] *= np.sqrt(2)  # so that cosines are those of the whole plane, where these stand twice
    magnitude[0, 0] = 0
    return (magnitude / np.linalg.norm(magnitude)).ravel().astype(np.float32)
