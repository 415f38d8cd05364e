"""Pairs of queries and candidates, with all that a verdict on them is computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytecover2_milvus.alignment.qmax import Qmax, qmax_scores
from bytecover2_milvus.alignment.score import Background, cohort_statistics
from bytecover2_milvus.alignment.verdict import VECTOR, Verdict
from bytecover2_milvus.milvus.cohort import SIZE
from bytecover2_milvus.second_stage.rerank import CANDIDATES, QUERY_COHORT


@dataclass(frozen=True, eq=False)
class Sound:
    """The embedding and chroma of a query."""

    track_id: str  # of the track that it was made from
    work_id: str
    embedding: NDArray[np.float32]  # (D,)
    levels: NDArray[np.uint8]  # (n_frames, channels)


class Catalogue:
    """Clean tracks, and their similarities with a cohort of them."""

    def __init__(self, tracks: Sequence[Sound]) -> None:
        self.tracks = tracks
        self.vectors = np.stack([track.embedding for track in tracks])
        order = sorted(range(len(tracks)), key=lambda i: hashlib.sha256(tracks[i].track_id.encode()).digest())
        self.cohort = [tracks[i] for i in order[:SIZE]]
        self.with_cohort = np.stack([self.cohort_similarities(track) for track in tracks])  # (n, SIZE, kinds)

    def cohort_similarities(self, sound: Sound, size: int = SIZE) -> NDArray[np.float64]:
        """(size, kinds) with the first tracks of the cohort; NaN with the track that the sound is of."""
        similarities = _similarities(sound, self.cohort[:size])
        similarities[[track.track_id == sound.track_id for track in self.cohort[:size]]] = np.nan
        return similarities

    def candidates(self, sound: Sound) -> list[int]:
        """The closest tracks by the vector, without the sound's own."""
        order = np.argsort(-(self.vectors @ sound.embedding), kind="stable")
        return [i for i in order.tolist() if self.tracks[i].track_id != sound.track_id][:CANDIDATES]


def _similarities(sound: Sound, tracks: Sequence[Sound]) -> NDArray[np.float64]:
    """(n, kinds): cosines, and the scores of the alignments."""
    aligned = qmax_scores(sound.levels, [track.levels for track in tracks])
    return np.column_stack([[float(track.embedding @ sound.embedding) for track in tracks], aligned])


@dataclass(frozen=True, eq=False)
class Pairs:
    """The candidates of queries."""

    similarities: NDArray[np.float64]  # (queries, candidates, kinds)
    of_query: NDArray[np.float64]  # (queries, cohort, kinds): similarities
    of_candidate: NDArray[np.float64]  # (queries, candidates, SIZE, kinds)
    frames: NDArray[np.int64]  # (queries, candidates): of the shorter of both
    same: NDArray[np.bool_]  # (queries, candidates)
    work_ids: NDArray[np.str_]  # (queries, candidates): of the candidates

    def features(self, verdict: Verdict) -> NDArray[np.float64]:
        """(queries, candidates, `N_FEATURES`)"""
        query, candidate = (
            np.stack(
                [
                    cohort_statistics(similarities[..., kind], background)
                    for kind, background in enumerate(verdict.backgrounds.values())
                ],
                axis=-2,
            )
            for similarities in (self.of_query, self.of_candidate)
        )
        statistics = query[:, None], candidate
        return verdict.features(self.similarities[..., 0], self.similarities[..., 1:], *statistics, self.frames)


def pairs_of(queries: Sequence[Sound], catalogue: Catalogue) -> Pairs:
    """Every query with its candidates; those that are too short to be aligned are left out."""
    similarities, of_query, of_candidate, frames, same, work_ids = [], [], [], [], [], []
    for query in queries:
        if len(query.levels) < Qmax().embedding:
            continue
        found = catalogue.candidates(query)
        similarities.append(_similarities(query, [catalogue.tracks[i] for i in found]))
        of_query.append(catalogue.cohort_similarities(query, QUERY_COHORT))
        of_candidate.append(catalogue.with_cohort[found])
        frames.append([min(len(query.levels), len(catalogue.tracks[i].levels)) for i in found])
        same.append([bool(query.work_id) and catalogue.tracks[i].work_id == query.work_id for i in found])
        work_ids.append([catalogue.tracks[i].work_id for i in found])
    return Pairs(*map(np.array, (similarities, of_query, of_candidate, frames, same, work_ids)))


def backgrounds_of(catalogue: Catalogue, groups: Sequence[str]) -> dict[str, Background]:
    """Mean and standard deviation of tracks of different works."""
    other = np.array([[a.work_id != b.work_id for b in catalogue.cohort] for a in catalogue.tracks])
    values = catalogue.with_cohort[other]
    found = zip(values.mean(axis=0).tolist(), values.std(axis=0).tolist(), strict=True)
    return {kind: Background(*known) for kind, known in zip((VECTOR, *groups), found, strict=True)}
