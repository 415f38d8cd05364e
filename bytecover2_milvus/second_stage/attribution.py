"""The network's own view of a similarity: by how much it falls when a part of the query is taken away.

The query is embedded again without each of its stretches in turn, and without each of the octaves that the network
hears (occlusion, after M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014).
A stretch is cut out, as silence in its place would be a thing of its own to the network; the cuts keep to the grid that
the network pools over. An octave is filtered out.

The *contribution* of a part is the similarity of the whole less that without it: above 0 where the part makes the two
recordings alike, below 0 where it sets them apart. Contributions do not add up to the similarity: a passage
that is repeated is hardly missed when one of its repetitions is cut out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..config import FrontEnd
    from ..embedding.embedder import Heard

LONGEST_S = 1800.0  # of a query; each part costs another embedding of it
MOST_STRETCHES = 24
CELLS_PER_STRETCH = 4  # of the grid that the network pools over, at least: 3.7 s
_FADE = 256  # samples, from before a cut to behind it: 12 ms
_EDGE = 1 / 12  # octaves over which a filter opens


class Ear(Protocol):
    """The part of an `Embedder` that contributions need."""

    @property
    def contract(self) -> Any: ...

    def hear(self, waveform: NDArray[np.float32]) -> Heard: ...


@dataclass(frozen=True)
class Part:
    """A stretch or a band of the query."""

    start: float  # seconds of a stretch, Hz of a band
    end: float
    contribution: float


@dataclass(frozen=True)
class Contributions:
    """The similarity of two embeddings, split over stretches and octaves."""

    similarity: float  # of the whole
    times: tuple[Part, ...]  # all of the query, in order
    bands: tuple[Part, ...]  # octaves, from the lowest


def contributions(
    query: NDArray[np.float32], whole: NDArray[np.float32], other: NDArray[np.float32], ear: Ear
) -> Contributions | None:
    """Contributions of the stretches and octaves of a query to the similarity with another recording.

    Parameters
    ----------
    query : np.ndarray [shape=(n_samples,)] of float32
        Mono, at the contract's sample rate.
    whole, other : np.ndarray [shape=(D,)]
        Unit embeddings of the query and of the other recording.
    ear : Embedder

    Returns
    -------
    contributions : Contributions or None
        None for a query of more than `LONGEST_S`.

    Raises
    ------
    AudioError, DeviceError
        As `Embedder.hear`.
    """
    contract = ear.contract
    rate, front_end = contract.sample_rate, contract.front_end
    if len(query) > LONGEST_S * rate:
        return None
    similarity = float(whole @ other)

    def contribution(rest: NDArray[np.float32]) -> float:
        silent = np.abs(rest).max(initial=0) < contract.silence_peak
        return similarity if silent else similarity - float(ear.hear(rest).embedding @ other)

    edges = _edges(len(query), front_end.hop_length * front_end.time_pooling)
    times = tuple(
        Part(start / rate, end / rate, contribution(without_stretch(query, start, end)))
        for start, end in pairwise(edges)
    )
    bands = tuple(Part(low, high, contribution(rest)) for low, high, rest in without_octaves(query, front_end, rate))
    return Contributions(similarity, times, bands)


def _edges(n_samples: int, cell: int) -> list[int]:
    """Begins and ends of stretches, in samples: as even as whole cells allow."""
    count = int(np.clip(n_samples // (CELLS_PER_STRETCH * cell), 2, MOST_STRETCHES))
    inner = np.round(np.linspace(0, n_samples, count + 1)[1:-1] / cell).astype(int) * cell
    return [0, *sorted({int(edge) for edge in inner if 0 < edge < n_samples}), n_samples]


def without_stretch(waveform: NDArray[np.float32], start: int, end: int) -> NDArray[np.float32]:
    """The waveform without the samples from `start` to `end`; what leads into the rest is blended into it."""
    left, fade = waveform[:start], min(_FADE, start, end - start)
    if end < len(waveform) and fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        blended = (1 - ramp) * left[-fade:] + ramp * waveform[end - fade : end]
        left = np.concatenate([left[:-fade], blended])
    return np.concatenate([left, waveform[end:]])


def without_octaves(
    waveform: NDArray[np.float32], front_end: FrontEnd, rate: int
) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    """The limits in Hz of each octave that the front end hears, and the waveform without it, phases kept."""
    n_fft = 1 << (len(waveform) + rate // 4 - 1).bit_length()
    spectrum = np.fft.rfft(waveform, n_fft)
    octave = np.log2(np.maximum(np.fft.rfftfreq(n_fft, 1 / rate), 1.0) / front_end.fmin)
    for number in range(front_end.n_octaves):
        outside = np.maximum(number - octave, octave - (number + 1))  # octaves from the band
        gain = np.clip(outside / _EDGE, 0, 1)
        rest = np.fft.irfft(spectrum * gain, n_fft)[: len(waveform)].astype(np.float32)
        yield front_end.fmin * 2**number, front_end.fmin * 2 ** (number + 1), rest
