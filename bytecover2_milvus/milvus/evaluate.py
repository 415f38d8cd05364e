"""The rows of a collection, read out to be evaluated."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..metrics import Evaluation, Judge, evaluate

if TYPE_CHECKING:
    from ..manifest import Track


@dataclass(frozen=True)
class StoredTracks:
    """The rows of a collection, to be evaluated: in no particular order, and a track may have several."""

    track_ids: list[str]
    work_ids: list[str]  # "" where the work is not known
    paths: list[str]  # absolute
    embeddings: NDArray[np.float32]  # (N, D)
    whole: NDArray[np.bool_]  # (N,): the row is a whole track, not a part of one
    roles: list[str] | None = None  # as `metrics.evaluate` takes them

    def asking(self) -> NDArray[np.float32]:
        """The query of the track of each row, (N, D): the embedding of the whole, or the row's if there is none."""
        row_of = {self.track_ids[row]: row for row in np.flatnonzero(self.whole).tolist()}
        return self.embeddings[[row_of.get(track_id, row) for row, track_id in enumerate(self.track_ids)]]

    def only(self, tracks: Iterable[Track]) -> StoredTracks:
        """The rows of these tracks only, with the work_id and role that these have.

        A row is of the track with its path, or else of the one with its track_id.
        """
        at = {os.path.abspath(track.path): track for track in tracks}
        there = set(at) & set(self.paths)
        called = {track.track_id: track for path, track in at.items() if path not in there}
        found = [at.get(path) or called.get(name) for path, name in zip(self.paths, self.track_ids, strict=True)]
        rows = [row for row, track in enumerate(found) if track]
        chosen = [track for track in found if track]
        return StoredTracks(
            [self.track_ids[row] for row in rows],
            [track.work_id or "" for track in chosen],
            [self.paths[row] for row in rows],
            self.embeddings[rows],
            self.whole[rows],
            [track.role for track in chosen],
        )

    def evaluate(self, judge: Judge | None = None) -> Evaluation:
        """Exact metrics; every track whose work is known, and has another track here, is a query, or as `roles` say.

        With `judge`, of a second stage, as `metrics.evaluate` takes it.

        Raises
        ------
        ValueError
            If there is no query.
        """
        return evaluate(self.embeddings, self.work_ids, self.track_ids, self.asking(), judge, self.roles)
