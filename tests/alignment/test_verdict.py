"""The verdict on pairs, by numbers one can compute, and calibration files that are damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log

import jsonschema
import numpy as np
import pytest
from calibrated import with_calibration

from bytecover2_milvus.alignment.qmax import ALIGNMENT
from bytecover2_milvus.alignment.score import Background, Calibration
from bytecover2_milvus.alignment.verdict import Verdict, probability
from bytecover2_milvus.embedding.bundle import CALIBRATION, open_bundle
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import BundleError, ChromaError

GROUPS = ("notes", "lead")
VERDICT = Verdict(
    {"vector": Background(0.0, 0.1), "notes": Background(2.0, 0.5), "lead": Background(3.0, 1.0)},
    both=Calibration((0.5, 1.0), -6.0),
    vector_alone=Calibration((1.0,), -5.0),
    fitted_on="nothing",
)
TABLE = json.loads(VERDICT.to_json())
QUERY = np.array([[0.1, 0.1], [2.0, 1.0], [3.0, 0.5]])
TRACK = np.array([[0.0, 0.2], [1.0, 0.5], [2.0, 1.0]])


def test_features_and_scores_by_hand():
    features = VERDICT.features([0.4, 0.4, 0.4], [[3.0, 5.0], [3.0, np.nan], [np.nan, np.nan]], QUERY, TRACK)
    vector = 0.3 / 0.1 + 0.4 / 0.2
    notes, lead = 1 / 1 + 2 / 0.5, 2 / 0.5 + 3 / 1
    np.testing.assert_allclose(features[:, :2], [[vector, (notes + lead) / 2], [vector, notes], [vector, np.nan]])
    np.testing.assert_allclose(features[:2, 2:], np.zeros((2, 2)))  # as no length was told
    np.testing.assert_allclose(VERDICT.scores(features), [0.5 * vector + 6 - 6, 0.5 * vector + 5 - 6, vector - 5])


def test_of_a_short_pair_less_is_much():
    frames = np.array([10, 40, 100, 260, 9_000])
    features = VERDICT.features(np.full(5, 0.4), np.full((5, 2), 3.0), QUERY, TRACK, frames)
    lengths = np.log(np.array([40, 40, 100, 260, 260]) / 200)
    np.testing.assert_allclose(features[:, 2], lengths)
    np.testing.assert_allclose(features[:, 3], lengths * features[:, 1])
    np.testing.assert_allclose(features[:, 0], [0, *[0.3 / 0.1 + 0.4 / 0.2] * 4])  # the vector of a jingle says nothing
    by_length = replace(VERDICT, both=Calibration((0.5, 1.0, -2.0, -0.25), -6.0))
    scores = VERDICT.scores(features) - 2 * lengths - 0.25 * lengths * features[:, 1]
    np.testing.assert_allclose(by_length.scores(features), scores)
    assert Verdict.read(by_length.to_json(), GROUPS) == by_length


def test_features_take_a_statistic_for_each_pair():
    both = VERDICT.features([0.4, 0.4], np.full((2, 2), 3.0), QUERY, np.stack([TRACK, QUERY]))
    for pair, statistics in zip(both, (TRACK, QUERY), strict=True):
        np.testing.assert_allclose(pair, VERDICT.features(0.4, [3.0, 3.0], QUERY, statistics))


def test_a_score_is_the_log_odds_of_its_probability():
    for p in (0.01, 0.5, 0.9):
        assert probability(log(p / (1 - p))) == pytest.approx(p)
    assert probability(-1e4) == 0 and probability(1e4) == 1


def test_what_is_written_is_read_and_fits_its_schema():
    from bytecover2_milvus.alignment.verdict import _validator

    assert Verdict.read(VERDICT.to_json(), GROUPS) == VERDICT
    assert VERDICT.groups == GROUPS
    _validator().validate(TABLE)
    with pytest.raises(jsonschema.ValidationError):
        _validator().validate(TABLE | {"bias": "low"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "not JSON"),
        ("[]", r"its content: \[\] is not of type 'object'"),
        ("[" * 100_000, "not JSON"),
        (json.dumps(TABLE | {"bias": 1e6}), "bias: 1000000.0 is greater than the maximum of 1000"),
        (json.dumps(TABLE).replace("-6.0", "NaN"), "not JSON .NaN is no number of JSON"),
        (json.dumps(TABLE | {"weights": [1.0]}), "weights: .* is (too short|not valid under)"),
        (json.dumps(TABLE | {"weights": [1.0, 1.0, 1.0]}), "weights: "),
        (json.dumps({key: TABLE[key] for key in TABLE if key != "bias"}), "'bias' is a required property"),
        (json.dumps(TABLE | {"extra": 1}), "'extra' was unexpected"),
        (json.dumps(TABLE | {"backgrounds": {"vector": [0, 0.1]}}), "backgrounds of vector, where the contract names"),
        (json.dumps(TABLE | {"backgrounds": TABLE["backgrounds"] | {"lead": [3.0, 0.0]}}), r"backgrounds.lead\[1\]"),
        (json.dumps(TABLE | {"backgrounds": TABLE["backgrounds"] | {"lead": [True, 1.0]}}), r"backgrounds.lead\[0\]"),
    ],
)
def test_a_calibration_that_is_none_is_refused(text, reason):
    with pytest.raises(BundleError, match=reason) as refusal:
        Verdict.read(text, GROUPS)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def test_a_track_without_statistics_has_the_backgrounds():
    np.testing.assert_array_equal(VERDICT.statistics({}, "t"), [[0.0, 0.1], [2.0, 0.5], [3.0, 1.0]])
    stored = {"n": 9, "alignment": ALIGNMENT, "vector": [0.1, 0.2], "notes": [1.0, 2.0], "lead": [3.0, 4.0]}
    np.testing.assert_array_equal(VERDICT.statistics(stored, "t"), [[0.1, 0.2], [1.0, 2.0], [3.0, 4.0]])
    older = stored | {"alignment": ALIGNMENT - 1}
    np.testing.assert_array_equal(VERDICT.statistics(older, "t"), VERDICT.statistics({}, "t"))


@pytest.mark.parametrize(
    "wrong", [{"lead": [3.0, 0.0]}, {"lead": [float("nan"), 1.0]}, {"lead": [1.0]}, {"lead": "high"}, {"lead": None}]
)
def test_damaged_statistics_are_an_error_that_names_the_track(wrong):
    stored = {"alignment": ALIGNMENT, "vector": [0.1, 0.2], "notes": [1.0, 2.0], "lead": [3.0, 4.0]} | wrong
    with pytest.raises(ChromaError, match=r"^song 1: its stored statistics are damaged"):
        VERDICT.statistics(stored, "song 1")
    del stored["lead"]
    with pytest.raises(ChromaError, match=r"^song 1: "):
        VERDICT.statistics(stored, "song 1")


def test_a_bundle_has_a_verdict_if_it_was_calibrated(tiny_bundle, tiny_notes_bundle, tmp_path):
    assert open_bundle(tiny_notes_bundle).calibration is None
    groups = open_bundle(tiny_notes_bundle).contract.chroma.groups
    verdict = Verdict(
        {kind: Background(0.0, 1.0) for kind in ("vector", *groups)}, VERDICT.both, VERDICT.vector_alone, "x"
    )
    calibrated = with_calibration(tiny_notes_bundle, tmp_path / "notes", verdict.to_json())
    assert open_bundle(calibrated).calibration == verdict
    assert Embedder(calibrated, "cpu", 1).verdict == verdict
    older = with_calibration(tiny_notes_bundle, tmp_path / "older", replace(verdict, alignment=1).to_json())
    assert open_bundle(older).calibration is None  # its weights are of other scores
    one_stage = with_calibration(tiny_bundle, tmp_path / "plain", verdict.to_json())
    assert open_bundle(one_stage).calibration is None
    damaged = with_calibration(tiny_notes_bundle, tmp_path / "damaged", "{")
    with pytest.raises(BundleError, match=rf"{CALIBRATION}: not JSON .*copy the bundle again"):
        Embedder(damaged, "cpu", 1)
