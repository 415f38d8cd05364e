"""Vectors that lie as embeddings of a real catalogue do: works that are more or less like each other, several tracks
of each, near their work.

Fitted on real embeddings, then drawn in any number:

work
    One of the works seen, drawn at random, and from there a Gaussian step with the covariance that works have: a kernel
    density estimate of works, of which there may then be any number. The works seen are drawn in as much as the step
    widens them (and as much as the scatter of their few tracks had), so that the covariance stays that of real works.
track
    Its work and a Gaussian step with the covariance that the tracks of a work have around it, as wide as in one of the
    works seen, drawn at random: some works have look-alike tracks, some have tracks that are far apart.
number of tracks
    Of a work: n with a chance of 1 over n squared, up to a thousand. Most works have one recording; few have hundreds.
    This is assumed, not measured.

`compare` says how far drawn vectors are like the real ones, in what a search meets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

MOST_TRACKS = 1_000  # of a work
DRAWN_AT_ONCE = 100_000
NEIGHBOURS = 10  # that the intrinsic dimension looks at

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbourhood:
    """The parameters that vectors are drawn from; D is the length of an embedding."""

    mean: NDArray[np.float64]  # (D,)
    works: NDArray[np.float64]  # (n_works, D), around the mean
    works_root: NDArray[np.float64]  # (D, D), a root of the covariance of works, scaled to the step
    tracks_root: NDArray[np.float64]  # (D, D), a root of the covariance of tracks around their work
    spread: NDArray[np.float64]  # (n_works,), root mean square of a work's scatter over that of all

    @classmethod
    def fit(cls, embeddings: Embeddings, work_ids: NDArray[np.int64]) -> Neighbourhood:
        """Of embeddings (N, D) and the work (N,) of each; works with a single track are left out."""
        groups = [embeddings[work_ids == work].astype(np.float64) for work in np.unique(work_ids)]
        groups = [group for group in groups if len(group) > 1]
        centres = np.stack([group.mean(axis=0) for group in groups])
        n_works = len(centres)
        # A mean of n tracks takes a share of 1 / n of the scatter with it.
        scatter = [(group - group.mean(axis=0)) * np.sqrt(len(group) / (len(group) - 1)) for group in groups]
        within = np.cov(np.concatenate(scatter).T)
        mean_share = np.mean([1 / len(group) for group in groups])
        mean, of_centres = centres.mean(axis=0), np.cov(centres.T)
        between = _root(of_centres - mean_share * within)
        width = n_works ** (-1 / (_effective_dimension(of_centres) + 4))  # Scott's rule
        kept = np.sqrt(max(0.0, 1 - width**2) * np.sum(between**2) / np.trace(of_centres))
        rms = np.array([np.sqrt(np.mean(around**2)) for around in scatter])
        spread = rms / np.sqrt(np.mean(rms**2))
        return cls(mean, kept * (centres - mean), width * between, _root(within), spread)

    def draw(self, n_tracks: int, rng: np.random.Generator, copies: int = 1) -> Embeddings:
        """Unit vectors (n_tracks, copies * D) in random order.

        With `copies`, each is so many draws side by side, of tracks with the same works in the same spread: a stand-in
        for longer embeddings, of which there are none to fit.
        """
        counts = np.minimum(rng.zipf(2.0, n_tracks), MOST_TRACKS)  # more works than are needed
        work_of_track = np.repeat(np.arange(n_tracks), counts)[:n_tracks]
        n_works, dim = work_of_track[-1] + 1, len(self.mean)
        seen = rng.integers(len(self.works), size=n_works)  # which of the works seen each is drawn from
        spread = rng.choice(self.spread, n_works)
        order = rng.permutation(n_tracks)
        drawn = np.empty((n_tracks, copies * dim), dtype=np.float32)
        for copy in range(copies):
            works = (self.mean + self.works[seen]).astype(np.float32)
            works += rng.standard_normal((n_works, dim), dtype=np.float32) @ self.works_root.T.astype(np.float32)
            for start in range(0, n_tracks, DRAWN_AT_ONCE):
                some = work_of_track[start : start + DRAWN_AT_ONCE]
                step = rng.standard_normal((len(some), dim), dtype=np.float32) @ self.tracks_root.T.astype(np.float32)
                tracks = works[some] + step * spread[some, None].astype(np.float32)
                drawn[order[start : start + len(some)], copy * dim : (copy + 1) * dim] = tracks
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn

    def draw_like(self, counts: NDArray[np.int64], rng: np.random.Generator) -> tuple[Embeddings, NDArray[np.int64]]:
        """As many tracks of as many works as `counts` (n_works,) says: embeddings (N, D) and the work (N,) of each."""
        work_ids = np.repeat(np.arange(len(counts)), counts)
        seen = rng.integers(len(self.works), size=len(counts))
        works = self.mean + self.works[seen] + rng.standard_normal((len(counts), len(self.mean))) @ self.works_root.T
        step = rng.standard_normal((len(work_ids), len(self.mean))) @ self.tracks_root.T
        tracks = works[work_ids] + step * rng.choice(self.spread, len(counts))[work_ids, None]
        return (tracks / np.linalg.norm(tracks, axis=1, keepdims=True)).astype(np.float32), work_ids


@dataclass(frozen=True)
class Shape:
    """Similarities and dimensions that decide how hard embeddings are to search; similarities are cosines."""

    within_works: float  # median similarity of two tracks of a work
    between_works: float  # median similarity of tracks of different works
    near_works: float  # 99th percentile of that
    nearest: float  # median similarity of a track and the closest of another work
    dimension: float  # intrinsic, of the neighbourhood: maximum likelihood from the distances of the closest ten
    effective_dimension: float  # of the whole: participation ratio of the covariance's eigenvalues


def shape(embeddings: Embeddings, work_ids: NDArray[np.int64]) -> Shape:
    """Of embeddings (N, D) and the work (N,) of each; N squared similarities are held at once.

    References
    ----------
    E. Levina, P. Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004.
    """
    similarity = embeddings @ embeddings.T
    same = work_ids[:, None] == work_ids
    np.fill_diagonal(similarity, np.nan)
    others = np.where(same, -np.inf, similarity)
    distance = np.sqrt(np.maximum(2 - 2 * -np.sort(-others, axis=1)[:, :NEIGHBOURS], 1e-12))
    spans = np.log(distance[:, -1:] / distance[:, :-1])
    return Shape(
        within_works=float(np.nanmedian(similarity[same])),
        between_works=float(np.median(similarity[~same])),
        near_works=float(np.quantile(similarity[~same], 0.99)),
        nearest=float(np.median(others.max(axis=1))),
        dimension=float(1 / np.mean(spans)),
        effective_dimension=_effective_dimension(np.cov(embeddings.T)),
    )


def compare(
    embeddings: Embeddings, work_ids: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """The `Shape` of real embeddings and of as many that are drawn like them."""
    _, work_ids, counts = np.unique(work_ids, return_inverse=True, return_counts=True)
    drawn, drawn_ids = Neighbourhood.fit(embeddings, work_ids).draw_like(counts, rng)
    return {"real": asdict(shape(embeddings, work_ids)), "drawn": asdict(shape(drawn, drawn_ids))}


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with ``R R' = covariance``, of which what is negative, by estimation, is taken for zero."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _effective_dimension(covariance: NDArray[np.float64]) -> float:
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))
