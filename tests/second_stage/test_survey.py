"""What a survey sees of an evaluation, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.second_stage.survey import BINS, Candidate, Survey, WorkFound, precision_and_recall, works_found


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in a plane, (n, 2): their similarities are the cosines of the angles between them."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


# a and b are near each other, and so are y and x, which are of two works; u is of none that is known.
TRACKS, WORKS, PLACES = ["a", "b", "u", "x", "y", "z"], ["1", "1", "", "2", "3", "2"], at(0, 10, 100, 130, 150, 175)


@pytest.fixture(scope="module")
def surveyed() -> tuple[Survey, object]:
    survey = Survey()
    return survey, evaluate(PLACES, WORKS, TRACKS, judge=survey)


def test_a_survey_changes_no_rank(surveyed):
    _, evaluation = surveyed
    assert evaluation == evaluate(PLACES, WORKS, TRACKS)


def test_pairs_are_counted_by_their_similarity(surveyed):
    """Queries are a, b, x and z; u is nobody's pair, as its work is not known."""
    survey, _ = surveyed
    of_one, of_others = (
        np.cos(np.radians([10, 10, 45, 45])),
        np.cos(np.radians([130, 120, 150, 140, 175, 165] * 2 + [20, 25])),
    )

    def binned(values: np.ndarray) -> list[int]:
        return np.histogram(values, bins=BINS, range=(-1, 1))[0].tolist()

    assert survey.same.tolist() == binned(of_one)
    assert survey.other.sum() == 4 * 4 - 4 + 0 and survey.other.sum() + survey.same.sum() == 4 * 4
    assert set(np.flatnonzero(survey.other)) <= set(np.flatnonzero(binned(of_others)))


def test_the_worst_queries_name_who_was_ranked_above_whom(surveyed):
    survey, evaluation = surveyed
    first, second = survey.worst(evaluation, 5)  # a and b are perfect
    cosine = {degrees: float(np.float32(np.cos(np.radians(degrees)))) for degrees in (20, 25, 45)}
    # x is 20 degrees from y, 30 from u and 45 from z: z has rank 3.
    assert (first.track_id, first.work_id, first.average_precision) == ("x", "2", pytest.approx(1 / 3))
    assert first.wrong == Candidate("y", "3", 1, cosine[20], None) and first.right == Candidate(
        "z", "2", 3, cosine[45], None
    )
    assert (second.track_id, second.wrong.track_id, second.right) == (
        "z",
        "y",
        Candidate("x", "2", 2, cosine[45], None),
    )
    assert survey.worst(evaluation, 1) == [first]


def test_a_track_below_the_first_is_missed_too():
    """a finds b at once, but its third track behind one of another work."""
    survey = Survey()
    evaluation = evaluate(at(0, 1, 20, 10), ["1", "1", "1", "2"], ["a", "b", "c", "x"], judge=survey)
    of_a = next(one for one in survey.worst(evaluation, 9) if one.track_id == "a")
    assert (of_a.wrong.track_id, of_a.wrong.rank, of_a.right.track_id, of_a.right.rank) == ("x", 2, "c", 3)


def test_equals_are_ranked_as_the_metrics_rank_them():
    """Three copies of one vector: by track_id, so that x stands before y for w."""
    survey = Survey()
    evaluation = evaluate(at(0, 0, 0), ["1", "2", "1"], ["w", "x", "y"], judge=survey)
    of_w = survey.worst(evaluation, 1)[0]
    assert (of_w.track_id, of_w.wrong.rank, of_w.right.rank) == ("w", 1, 2)
    assert evaluation.first_ranks.tolist() == [2, 1] or evaluation.first_ranks.tolist() == [2, 2]


def test_works_by_what_their_queries_find(surveyed):
    _, evaluation = surveyed
    worst, best = works_found(evaluation)
    assert best == WorkFound("1", 2, 1.0, 1.0)
    assert worst == WorkFound("2", 2, pytest.approx((1 / 3 + 1 / 2) / 2), 2.5)


def test_precision_and_recall_from_each_bin_on():
    precision, recall = precision_and_recall([1, 1, 2, 0], [3, 1, 0, 0])
    np.testing.assert_allclose(precision, [4 / 8, 3 / 4, 1, np.nan])
    np.testing.assert_allclose(recall, [1, 3 / 4, 2 / 4, 0])
