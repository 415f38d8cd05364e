"""The benchmark of excerpts counts by hand what it counts, and asks a real collection."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from band_embedder import ChromaEmbedder
from written_tune import FRAME_S, played, tune

from benchmarks.held_out import Recording
from benchmarks.quality.excerpts import BOTH, CUTS, VECTOR, markdown, measure, precision, ranks_of
from bytecover2_milvus.alignment.score import Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.milvus.cohort import BACKGROUNDS
from bytecover2_milvus.milvus.search import Match


class Judge(ChromaEmbedder):
    """With a verdict by hand."""

    verdict = Verdict(BACKGROUNDS, Calibration((0.4, 0.9), -6.8), Calibration((0.8,), -6.9), "nothing")
    frame_s = FRAME_S


def test_a_track_that_was_not_proposed_is_never_found() -> None:
    matches = [Match(rank, name, "", "", "", "", 0.5, 0.0, 9.0, 9.0) for rank, name in enumerate("abcd", start=1)]
    assert ranks_of(matches, {"b", "d", "z"}) == [2, 4]
    assert precision([2, 4], 2) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert precision([2, 4], 4) == pytest.approx((1 / 2 + 2 / 4) / 4)
    assert precision([], 2) == 0


def test_excerpts_ask_collections_with_and_without_segments() -> None:
    rng = np.random.default_rng(0)
    recordings = [
        Recording(f"cre/{seed}/{number}", f"cre/{seed}", noisy.astype(np.float32))
        for seed in range(4)
        for number in range(2)
        for clean in [played(tune(seed, 50))]
        for noisy in [clean + 0.002 * rng.standard_normal(len(clean))]
    ]
    scores = measure(recordings, [20.0], Judge())
    assert [(score.query_s, score.stored, score.system) for score in scores] == [
        (length, stored, system) for stored in CUTS for length in (None, 20.0) for system in (VECTOR, BOTH)
    ]
    for score in scores:
        assert (score.queries, score.candidates, score.proposed) == (4, 7, 1)
        assert score.rows_per_track == (1 if score.stored == "whole" else pytest.approx(4, abs=0.5))
        assert score.sets == {"cre": pytest.approx(score.map, abs=1e-4)}
    of = {(score.query_s, score.stored, score.system): score for score in scores}
    assert of[None, "whole", BOTH].map == of[None, "whole", BOTH].share == 1  # the same tune, nearly the same samples
    assert of[20.0, "whole", BOTH].share == of[20.0, "whole", BOTH].map
    assert all(value is not None for value in asdict(of[20.0, "whole", BOTH]).values())
    assert markdown(scores).count("\n| 20 s |") == 4
