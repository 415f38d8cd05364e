"""Similarities normalised by a cohort of other tracks, and calibrated to a probability.

A similarity of 0.4 is much for one track and little for another that resembles everything. The s-norm of speaker
verification says by how many standard deviations it exceeds what each of the two tracks has with a random cohort of
others. Normalised similarities of several kinds are features of a logistic regression, whose output is the probability
that the two tracks are of one work: as far as pairs are drawn as those that it was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_OUTLIERS = 4.0  # standard deviations
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_STEPS = 100  # of Newton's method; it takes about ten


@dataclass(frozen=True)
class Background:
    """Mean and deviation of one kind of similarity between different works, before any has been measured.

    It counts like `weight` tracks in every cohort, so that statistics change gradually as a collection grows, and
    that no standard deviation becomes 0.
    """

    mean: float
    sd: float
    weight: float = 5.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and 0 < self.sd < np.inf and 0 < self.weight < np.inf):
            raise ValueError(f"{self}: a finite mean, and sd and weight above 0 needed")


def cohort_statistics(similarities: ArrayLike, background: Background) -> NDArray[np.float64]:
    """Mean and standard deviation of the similarities of tracks with their cohort, the background among them.

    Covers of a track should not count, but are not known, and in a small collection they may be many. So similarities
    are left out that are above the median by more than `_OUTLIERS` standard deviations, which are estimated from the
    median of the absolute deviations and are at least that of the background.

    Parameters
    ----------
    similarities : array_like [shape=(..., n_cohort)]
        Of each track with each track of its cohort. NaN where there is none to count, as for the track itself. The
        cohort may be empty; the background is left then.
    background : Background

    Returns
    -------
    statistics : np.ndarray [shape=(..., 2)] of float64
    """
    similarities = np.asarray(similarities, dtype=np.float64)
    similarities = np.where(similarities > _highest(similarities, background), np.nan, similarities)
    counted = ~np.isnan(similarities)
    n = counted.sum(axis=-1) + background.weight
    mean = (np.where(counted, similarities, 0).sum(axis=-1) + background.weight * background.mean) / n
    squares = np.where(counted, similarities - mean[..., None], 0) ** 2
    spread = background.sd**2 + (background.mean - mean) ** 2
    return np.stack([mean, np.sqrt((squares.sum(axis=-1) + background.weight * spread) / n)], axis=-1)


def _highest(similarities: NDArray[np.float64], background: Background) -> NDArray[np.float64]:
    """The highest similarity (..., 1) that is not taken for a cover's; the background counts in both medians."""
    shape = (*similarities.shape[:-1], round(background.weight))
    values = np.concatenate([similarities, np.full(shape, background.mean)], axis=-1)
    centre = np.nanmedian(values, axis=-1, keepdims=True)
    deviations = np.abs(similarities - centre)
    deviations = np.concatenate([deviations, np.full(shape, background.sd / _NORMAL)], axis=-1)
    sd = _NORMAL * np.nanmedian(deviations, axis=-1, keepdims=True)
    return centre + _OUTLIERS * np.maximum(sd, background.sd)


def s_norm(similarity: ArrayLike, query: ArrayLike, candidate: ArrayLike) -> NDArray[np.float64]:
    """The normalised similarity: its standard scores for the query and for the candidate, added.

    Parameters
    ----------
    similarity : array_like [shape=(...)]
    query, candidate : array_like [shape=(..., 2)]
        Of each of the two tracks, mean and standard deviation as `cohort_statistics` gives them.

    Raises
    ------
    ValueError
        If a standard deviation is not above 0.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    normalised = np.zeros(())
    for statistics in (np.asarray(query, dtype=np.float64), np.asarray(candidate, dtype=np.float64)):
        if not (statistics[..., 1] > 0).all():
            raise ValueError("a standard deviation of a cohort that is not above 0")
        normalised = normalised + (similarity - statistics[..., 0]) / statistics[..., 1]
    return normalised


@dataclass(frozen=True)
class Calibration:
    """The probability that two tracks are of one work, by a weight for each feature and a bias, in log odds."""

    weights: tuple[float, ...]
    bias: float

    def log_odds(self, features: ArrayLike) -> NDArray[np.float64]:
        """The log odds (...) of features (..., n_features)."""
        features = np.asarray(features, dtype=np.float64)
        if features.shape[-1:] != (len(self.weights),):
            raise ValueError(f"features of shape {features.shape}; {len(self.weights)} for each pair needed")
        return features @ np.array(self.weights) + self.bias

    def probability(self, features: ArrayLike) -> NDArray[np.float64]:
        """The probability (...) of features (..., n_features)."""
        return _logistic(self.log_odds(features))


def fit_calibration(
    features: ArrayLike, same: ArrayLike, pair_weights: ArrayLike | None = None, ridge: float = 1e-3
) -> Calibration:
    """The logistic regression of pairs, by Newton's method.

    Parameters
    ----------
    features : array_like [shape=(n_pairs, n_features)]
    same : array_like of bool [shape=(n_pairs,)]
        Whether the two tracks are of one work. Both kinds are needed.
    pair_weights : array_like, optional [shape=(n_pairs,)]
        How often each pair counts: 10 for a pair of different works where one in ten of these was kept.
    ridge : float
        Half of it times the squared weights (not the bias) is added to the negative log likelihood. It keeps them
        finite where a feature separates the two kinds without error.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, a kind is missing, or `ridge` is not above 0.
    """
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(same, dtype=bool)
    counts = np.ones(len(y)) if pair_weights is None else np.asarray(pair_weights, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or counts.shape != y.shape:
        raise ValueError(f"features {x.shape}, same {y.shape}, weights {counts.shape}: a row, two values for each pair")
    if not (np.isfinite(x).all() and np.isfinite(counts).all() and (counts >= 0).all() and ridge > 0):
        raise ValueError("a feature or weight that is not finite, a weight below 0, or a ridge that is not above 0")
    if not (counts[y].sum() > 0 and counts[~y].sum() > 0):
        raise ValueError("pairs of one work and pairs of different works are needed, both")
    x = np.column_stack([x, np.ones(len(x))])
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 0
    sign = np.where(y, -1.0, 1.0)

    def loss(w: NDArray[np.float64]) -> float:
        return float(counts @ np.logaddexp(0, sign * (x @ w)) + 0.5 * penalty @ w**2)

    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = _logistic(x @ w)
        gradient = x.T @ (counts * (p - y)) + penalty * w
        hessian = (x.T * (counts * p * (1 - p))) @ x + np.diag(penalty)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        before, length = loss(w), 1.0
        while loss(w - length * step) > before and length > 1e-9:  # too far: the curve is no parabola
            length /= 2
        w = w - length * step
        if gradient @ step < 1e-12 * (1 + before):
            break
    return Calibration(tuple(w[:-1].tolist()), float(w[-1]))


class ReliabilityBin(NamedTuple):
    """Pairs of about one probability."""

    lower: float
    upper: float  # included in the last bin alone
    pairs: float  # their weight
    probability: float  # mean
    share: float  # that are of one work; as large as the probability where it is calibrated


def reliability(
    probabilities: ArrayLike, same: ArrayLike, pair_weights: ArrayLike | None = None, bins: int = 10
) -> list[ReliabilityBin]:
    """The share of pairs of one work by their probability, in bins of equal width; empty bins are left out.

    Raises
    ------
    ValueError
        If lengths differ, or a probability is not in [0, 1].
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(same, dtype=bool)
    counts = np.ones(len(p)) if pair_weights is None else np.asarray(pair_weights, dtype=np.float64)
    if p.ndim != 1 or y.shape != p.shape or counts.shape != p.shape:
        raise ValueError(
            f"probabilities {p.shape}, same {y.shape}, weights {counts.shape}: vectors of one length needed"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability that is not in [0, 1]")
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    table = []
    for i in range(bins):
        weight = counts[bin_of == i]
        if weight.sum() > 0:
            mean, share = (weight @ values[bin_of == i] / weight.sum() for values in (p, y))
            table.append(ReliabilityBin(i / bins, (i + 1) / bins, float(weight.sum()), float(mean), float(share)))
    return table


def expected_calibration_error(
    probabilities: ArrayLike, same: ArrayLike, pair_weights: ArrayLike | None = None, bins: int = 10
) -> float:
    """The mean, over pairs, of the difference between probability and share of one work in their bin.

    Raises
    ------
    ValueError
        As `reliability`, or if there are no pairs.
    """
    table = reliability(probabilities, same, pair_weights, bins)
    if not table:
        raise ValueError("no pairs: the calibration error is not defined")
    return sum(b.pairs * abs(b.probability - b.share) for b in table) / sum(b.pairs for b in table)


def _logistic(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -log_odds))  # without overflow on either side
