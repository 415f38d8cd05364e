"""Normalised similarities by hand, calibration against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from bytecover2_milvus.alignment.score import (
    Background,
    Calibration,
    cohort_statistics,
    expected_calibration_error,
    fit_calibration,
    reliability,
    s_norm,
)


def test_statistics_are_those_of_the_cohort_and_the_background_together():
    similarities = np.array([[0.1, 0.2, 0.6], [0.3, np.nan, 0.5], [np.nan] * 3])
    background = Background(mean=0.2, sd=0.1, weight=2)
    # Two further tracks at 0.1 and 0.3 have the mean and the standard deviation of the background.
    expected = [[np.mean(a), np.std(a)] for a in ([0.1, 0.2, 0.6, 0.1, 0.3], [0.3, 0.5, 0.1, 0.3], [0.1, 0.3])]
    np.testing.assert_allclose(cohort_statistics(similarities, background), expected)
    np.testing.assert_allclose(cohort_statistics(np.empty((2, 0)), background), [[0.2, 0.1]] * 2)


def test_a_larger_cohort_leaves_less_of_the_background():
    draws = np.random.default_rng(0).normal(0.5, 0.05, 4000)
    off = [abs(cohort_statistics(draws[:n], Background(0.0, 0.2))[0] - 0.5) for n in (1, 10, 100, 4000)]
    assert sorted(off, reverse=True) == off and off[-1] < 0.002


def test_a_cohort_of_equals_has_a_deviation_above_zero():
    _, sd = cohort_statistics(np.full(1000, 0.3), Background(0.3, 0.1))
    assert 0 < sd < 0.1


def test_covers_among_a_cohort_change_nothing():
    """In a small collection some of the cohort are covers of the track: they are far above all others, and left out."""
    strangers, background = [0.0, 0.1, -0.1, 0.05, 0.02], Background(0.0, 0.1)
    alone = cohort_statistics(strangers, background)
    np.testing.assert_allclose(cohort_statistics([0.9, *strangers, 0.6, 1.0], background), alone)
    assert cohort_statistics([0.35, *strangers], background)[0] > alone[0]
    np.testing.assert_allclose(cohort_statistics([0.9, 0.8], background), [0.0, 0.1])


@pytest.mark.parametrize("wrong", [{"sd": 0.0}, {"sd": np.nan}, {"mean": np.inf}, {"weight": 0.0}])
def test_a_background_without_spread_or_weight_is_refused(wrong):
    with pytest.raises(ValueError, match="needed"):
        Background(**{"mean": 0.0, "sd": 1.0} | wrong)


def test_s_norm_by_hand():
    assert s_norm(0.5, [0.1, 0.2], [0.3, 0.1]) == pytest.approx(2 + 2)
    query, candidates = [0.0, 0.5], np.array([[0.0, 1.0], [0.5, 0.25]])
    np.testing.assert_allclose(s_norm([1.0, 1.0], query, candidates), [2 + 1, 2 + 2])
    with pytest.raises(ValueError, match="not above 0"):
        s_norm(0.5, [0.1, 0.0], [0.3, 0.1])


def test_s_norm_ranks_a_track_that_resembles_everything_below_a_cover():
    """A jingle is nearer to the query than the cover, but no nearer than to anything else."""
    background = Background(0.0, 0.1)
    query = cohort_statistics([0.0, 0.1, -0.1, 0.05], background)
    jingle = cohort_statistics(2 * [0.6, 0.5, 0.7, 0.6], background)
    cover = cohort_statistics([0.0, -0.1, 0.1, 0.0], background)
    assert s_norm(0.6, query, jingle) < s_norm(0.5, query, cover)


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.2
    features = rng.normal(size=(400, 3)) + same[:, None] * [2.0, 1.0, 0.0]
    return features, same, rng.uniform(0.5, 3, 400)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_calibration_is_scikit_learns(pairs, weighted, ridge):
    from sklearn.linear_model import LogisticRegression

    features, same, weights = pairs
    weights = weights if weighted else None
    reference = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(features, same, weights)
    fitted = fit_calibration(features, same, weights, ridge)
    np.testing.assert_allclose(fitted.weights, reference.coef_[0], atol=1e-4)
    assert fitted.bias == pytest.approx(reference.intercept_[0], abs=1e-4)
    np.testing.assert_allclose(fitted.probability(features), reference.predict_proba(features)[:, 1], atol=1e-5)


def test_pairs_that_a_feature_separates_get_finite_weights():
    features = np.array([[-30.0], [-20.0], [25.0], [40.0]])
    fitted = fit_calibration(features, [False, False, True, True])
    probability = fitted.probability(features)
    assert np.isfinite([*fitted.weights, fitted.bias]).all()
    assert (probability[:2] < 0.01).all() and (probability[2:] > 0.99).all()


def test_probabilities_of_extreme_features_are_no_warnings():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(Calibration((1.0,), 0.0).probability([[-600.0], [0.0], [600.0]]) > 0.4, [0, 1, 1])


@pytest.mark.parametrize(
    ("features", "same", "reason"),
    [
        ([[1.0], [2.0]], [True, True], "both"),
        ([[1.0], [np.nan]], [True, False], "not finite"),
        ([1.0, 2.0], [True, False], "a row"),
        ([[1.0], [2.0]], [True, False, True], "a row"),
    ],
)
def test_pairs_that_say_nothing_are_refused(features, same, reason):
    with pytest.raises(ValueError, match=reason):
        fit_calibration(features, same)
    with pytest.raises(ValueError, match="2 for each pair needed"):
        Calibration((1.0, 2.0), 0.0).log_odds([1.0])


def test_reliability_by_hand():
    table = reliability([0.05, 0.15, 0.95, 1.0], [False, True, True, True], bins=5)
    assert [(b.lower, b.upper, b.pairs, b.share) for b in table] == [(0.0, 0.2, 2, 0.5), (0.8, 1.0, 2, 1.0)]
    assert [b.probability for b in table] == pytest.approx([0.1, 0.975])
    error = expected_calibration_error([0.05, 0.15, 0.95, 1.0], [False, True, True, True], bins=5)
    assert error == pytest.approx((0.4 + 0.025) / 2)
    weighted = expected_calibration_error([0.05, 0.15, 0.95, 1.0], [False, True, True, True], [1, 1, 6, 0], bins=5)
    assert weighted == pytest.approx((2 * 0.4 + 6 * 0.05) / 8)


def test_what_is_drawn_by_its_probability_is_calibrated():
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    same = rng.random(20_000) < probabilities
    assert expected_calibration_error(probabilities, same) < 0.02
    assert expected_calibration_error(probabilities**3, same) > 0.1


def test_impossible_probabilities_are_refused():
    for wrong in ([1.1], [np.nan]):
        with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
            reliability(wrong, [True])
    with pytest.raises(ValueError, match="one length"):
        reliability([0.5, 0.5], [True])
    with pytest.raises(ValueError, match="no pairs"):
        expected_calibration_error([], [])
