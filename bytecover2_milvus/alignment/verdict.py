"""The verdict on a pair of tracks: one score of both stages, and the probability that the two are of one work.

Conventions
-----------
Similarities come by kind: "vector", the cosine of two embeddings, and one kind for each group of chroma, the score of
its alignment. *Statistics* are, by kind, the mean and the standard deviation of a track's similarities with its cohort,
as `cohort_statistics` gives them. The *features* of a pair are

1. the s-norm of the vector; 0 where the shorter track has less than `SHORTEST` frames: a few seconds resemble others by
   their being repeated, not by their tune,
2. the mean over the groups of the s-norm of their alignments,
3. the *length*: the natural logarithm of the frames of the shorter track over `USUAL_FRAMES`, as a short one cannot
   have a long path, and what would be little of a long one is much of it,
4. the product of the two before.

The *score* is their logistic regression, in log odds; above 0, one work is likelier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BundleError, ChromaError
from ..untrusted import parse_json, shorten
from .qmax import ALIGNMENT
from .score import Background, Calibration, s_norm

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

VECTOR = "vector"
N_FEATURES = 4
USUAL_FRAMES = 200
SAME_RECORDING = 5.0  # least score (99 %) of another encoding of a recording: verdicts are fitted to covers
SHORTEST, LONGEST = 40, 260  # frames: 20 s to two minutes, which calibrations are fitted to; beyond, these count


@dataclass(frozen=True)
class Verdict:
    """The weights that make a score of similarities; `read` takes them from the ``calibration.json`` of a bundle."""

    backgrounds: Mapping[str, Background]  # by kind: the vector first, then the groups in the order of the channels
    both: Calibration  # of the features of a pair; of the first two if it has only two weights
    vector_alone: Calibration  # of the first of them, for a pair that cannot be aligned
    fitted_on: str
    alignment: int = ALIGNMENT  # version of the alignment whose scores these are

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of chroma channels."""
        return tuple(kind for kind in self.backgrounds if kind != VECTOR)

    @classmethod
    def read(cls, text: str, groups: Sequence[str]) -> Verdict:
        """The verdict in the text of a ``calibration.json``.

        Parameters
        ----------
        text : str
        groups : sequence of str
            Of chroma channels, as the contract of the bundle names them.

        Raises
        ------
        BundleError
            If the text is no JSON, is not within the bounds of ``schemas/calibration.schema.json``, or is of other
            groups.
        """
        from jsonschema.exceptions import best_match

        try:
            table = parse_json(text)
        except ValueError as error:
            raise BundleError(f"not JSON ({shorten(error)})") from error
        if fault := best_match(_validator().iter_errors(table)):
            raise BundleError(f"{fault.json_path[2:] or 'its content'}: {shorten(fault.message)}")
        kinds = (VECTOR, *groups)
        if set(table["backgrounds"]) != set(kinds):
            named = shorten(", ".join(sorted(table["backgrounds"])))
            raise BundleError(f"backgrounds of {named}, where the contract names {', '.join(kinds)}")
        return cls(
            {kind: Background(*table["backgrounds"][kind]) for kind in kinds},
            Calibration(tuple(map(float, table["weights"])), float(table["bias"])),
            Calibration((float(table["vector_alone"]["weight"]),), float(table["vector_alone"]["bias"])),
            table["fitted_on"],
            table.get("alignment", 1),
        )

    def to_json(self) -> str:
        """The text of a ``calibration.json``; `read` reads it."""
        table = {
            "backgrounds": {kind: [known.mean, known.sd] for kind, known in self.backgrounds.items()},
            "weights": list(self.both.weights),
            "bias": self.both.bias,
            "vector_alone": {"weight": self.vector_alone.weights[0], "bias": self.vector_alone.bias},
            "fitted_on": self.fitted_on,
            "alignment": self.alignment,
        }
        return json.dumps(table, indent=2) + "\n"

    def statistics(self, stored: Mapping[str, Any], track_id: str) -> NDArray[np.float64]:
        """The statistics of a track as an array (kinds, 2), in the order of `backgrounds`.

        Parameters
        ----------
        stored : mapping
            As a collection holds them. ``{}`` where there are none, and those of another version of the alignment, give
            the backgrounds.
        track_id : str
            For the message.

        Raises
        ------
        ChromaError
            If they are damaged.
        """
        if not stored or stored.get("alignment", 1) != self.alignment:
            return np.array([[known.mean, known.sd] for known in self.backgrounds.values()])
        try:
            statistics = np.array([stored[kind] for kind in self.backgrounds], dtype=np.float64)
            sound = statistics.shape == (len(self.backgrounds), 2) and np.isfinite(statistics).all()
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound or not (statistics[:, 1] > 0).all():
            raise ChromaError(f"{track_id}: its stored statistics are damaged; delete the track and ingest it again")
        return statistics

    def features(
        self,
        vector: ArrayLike,
        aligned: ArrayLike,
        query: NDArray[np.float64],
        candidates: NDArray[np.float64],
        frames: ArrayLike = USUAL_FRAMES,
    ) -> NDArray[np.float64]:
        """The features (..., `N_FEATURES`) of pairs.

        Parameters
        ----------
        vector : array_like [shape=(...)]
            Cosines of the embeddings.
        aligned : array_like [shape=(..., groups)]
            Scores of the alignments; NaN for a group that was not aligned. The second and the last feature of a pair
            without any are NaN.
        query, candidates : np.ndarray [shape=(..., kinds, 2)]
            The statistics of both tracks of each pair.
        frames : array_like [shape=(...)]
            Frames of the shorter track of each pair.
        """
        similarities = np.concatenate([np.asarray(vector)[..., None], np.asarray(aligned)], axis=-1)
        normalised = s_norm(similarities, query, candidates)  # (..., kinds)
        known = ~np.isnan(normalised[..., 1:])
        sums = np.where(known, normalised[..., 1:], 0).sum(axis=-1)
        means = np.divide(sums, known.sum(axis=-1), out=np.full(sums.shape, np.nan), where=known.any(axis=-1))
        frames = np.broadcast_to(np.asarray(frames), means.shape)
        length = np.log(np.clip(frames, SHORTEST, LONGEST) / USUAL_FRAMES)
        vector = np.where(frames < SHORTEST, 0.0, normalised[..., 0])
        return np.stack([vector, means, length, means * length], axis=-1)

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores (...) of features, in log odds; by the vector alone where nothing was aligned."""
        alone = np.isnan(features[..., 1])
        both = self.both.log_odds(np.where(alone[..., None], 0, features)[..., : len(self.both.weights)])
        return np.where(alone, self.vector_alone.log_odds(features[..., :1]), both)


def probability(score: float) -> float:
    """The probability that has these log odds."""
    return float(np.exp(-np.logaddexp(0, -score)))


@cache
def _validator() -> Validator:
    import jsonschema

    schema = json.loads((resources.files("bytecover2_milvus.schemas") / "calibration.schema.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(schema)
