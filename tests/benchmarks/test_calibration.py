"""The calibration of a second stage on tunes whose works are known."""

from __future__ import annotations

import numpy as np
import pytest
from strangers_and_covers import chroma, near_query
from written_tune import slower, tune

from benchmarks.quality.calibration import fitted
from benchmarks.quality.calibration_figures import Judged, by_size, plot, told_of
from benchmarks.quality.calibration_pairs import Catalogue, Pairs, Sound, backgrounds_of, pairs_of
from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.alignment.score import reliability
from bytecover2_milvus.alignment.verdict import Verdict

GROUPS = ("notes", "lead")


def sounds(first_seed: int) -> list[Sound]:
    """Ten works of two tracks, whose vectors say little."""
    made = []
    for work in range(10):
        notes = tune(first_seed + work, 40)
        for number, played in enumerate((notes, slower(notes, 0.9))):
            levels = to_levels(chroma(played, first_seed + 10 * work + number))
            made.append(Sound(f"{work} {number}", f"w{work}", near_query(0.1, first_seed + 2 * work + number), levels))
    return made


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(sounds(700))


def test_pairs_are_what_a_query_would_be_judged_by(catalogue):
    short = Sound("short", "w0", catalogue.tracks[0].embedding, catalogue.tracks[0].levels[:3])
    pairs = pairs_of([*catalogue.tracks, short], catalogue)
    assert pairs.similarities.shape == (20, 19, 3)  # the short one cannot be aligned, its own track is none
    assert pairs.same.sum(axis=1).tolist() == [1] * 20
    track, found = catalogue.tracks[3], catalogue.candidates(catalogue.tracks[3])
    assert 3 not in found
    aligned = qmax_scores(track.levels, [catalogue.tracks[i].levels for i in found])
    np.testing.assert_allclose(pairs.similarities[3, :, 1:], aligned)
    np.testing.assert_allclose(pairs.similarities[3, :, 0], catalogue.vectors[found] @ track.embedding, rtol=1e-5)
    assert np.isnan(pairs.of_query[3]).all(axis=1).sum() == 1  # itself


def test_what_is_fitted_holds_for_works_that_fitted_nothing(catalogue):
    verdict = fitted(pairs_of(catalogue.tracks, catalogue), backgrounds_of(catalogue, GROUPS), "ten tunes")
    assert Verdict.read(verdict.to_json(), GROUPS) == verdict
    other = Catalogue(sounds(800))
    pairs = pairs_of(other.tracks, other)
    told = told_of(verdict.both.probability(pairs.features(verdict)), pairs.same)
    assert (told["nearest_accepted_right"], told["nearest_accepted_wrong"]) == (20, 0)
    assert told["pairs"]["ece"] < 0.01 and told["with_cover"] == 20
    strangers = pairs_of(catalogue.tracks, other).features(verdict)
    assert verdict.both.probability(strangers).max() < 0.5


def test_the_nearest_of_each_query_is_told_by_itself():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.6], [0.3, 0.1]])
    told = told_of(probabilities, np.array([[True, False], [False, False], [True, True]]))
    assert told["pairs"]["count"] == 6 and told["nearest"]["count"] == 3
    assert told["nearest"]["ece"] == pytest.approx((0.1 + 0.6 + 0.7) / 3, abs=1e-5)
    assert (told["nearest_accepted_right"], told["nearest_accepted_wrong"], told["with_cover"]) == (1, 1, 2)


def judged(probabilities: list[list[float]], same: list[list[bool]]) -> Judged:
    """Of candidates of the works a and b."""
    nothing = np.zeros((len(same), 2))
    return Judged(np.array(probabilities), Pairs(*[nothing] * 4, np.array(same), np.array([["a", "b"]] * len(same))))


def test_fewer_works_leave_fewer_wrong_matches():
    there = judged([[0.9, 0.6], [0.4, 0.8]], [[True, False], [False, True]])
    absent = judged([[0.3, 0.55], [0.1, 0.2]], [[False, False]] * 2)
    all_of_them = by_size(there, absent, 2, 0.5)
    assert all_of_them == {"recall": 1.0, "precision": 0.6667, "nearest_right": 1.0, "absent_shown": 0.5}
    one = by_size(there, absent, 1, 0.5)
    assert (one["recall"], one["precision"], one["nearest_right"]) == (1.0, 1.0, 1.0)
    assert 0 < one["absent_shown"] < 0.5  # only where b was drawn
    assert by_size(there, absent, 2, 0.85)["recall"] == 0.5


def test_a_plot_is_drawn(tmp_path):
    plot(tmp_path / "reliability.png", {"pairs": reliability([0.1, 0.9], [False, True])})
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
