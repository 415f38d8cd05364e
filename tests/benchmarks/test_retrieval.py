"""The retrieval benchmark at toy size, and the vectors it draws: what is exact is found, what is compared is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.quality.neighbourhood import Neighbourhood, shape
from benchmarks.speed.catalogue import ARRANGEMENTS, LIMIT, closest, made_row
from benchmarks.speed.retrieval import EFS, main
from benchmarks.speed.search_speed import SHARES, recall
from bytecover2_milvus.milvus.schema import check_row

DIM = 128


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings (N, 128) of works that lie in sixteen of the dimensions, and of `ARRANGEMENTS` tracks of each."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((DIM, 16)))[0]
    works = rng.standard_normal((150, 16)) @ axes.T
    tracks = np.repeat(works, ARRANGEMENTS, axis=0) + 0.1 * rng.standard_normal((150 * ARRANGEMENTS, DIM))
    path = tmp_path_factory.mktemp("songs") / "songs.npy"
    np.save(path, (tracks / np.linalg.norm(tracks, axis=1, keepdims=True)).astype(np.float32))
    return path


def test_drawn_vectors_lie_as_those_they_are_fitted_to(songs):
    embeddings = np.load(songs)
    work_ids = np.arange(len(embeddings)) // ARRANGEMENTS
    drawn, drawn_ids = Neighbourhood.fit(embeddings, work_ids).draw_like(
        np.full(150, ARRANGEMENTS), np.random.default_rng(1)
    )
    real, made = shape(embeddings, work_ids), shape(drawn, drawn_ids)
    assert made.within_works == pytest.approx(real.within_works, abs=0.05)
    assert made.between_works == pytest.approx(real.between_works, abs=0.05)
    assert made.near_works == pytest.approx(real.near_works, abs=0.1)
    assert made.effective_dimension == pytest.approx(real.effective_dimension, rel=0.25)
    assert made.dimension < 0.5 * DIM  # no noise ball


def test_draws_are_unit_vectors_decided_by_the_seed_and_most_have_a_work_in_common_with_others(songs):
    embeddings = np.load(songs)
    like = Neighbourhood.fit(embeddings, np.arange(len(embeddings)) // ARRANGEMENTS)
    drawn = like.draw(2_000, np.random.default_rng(0), copies=2)
    assert drawn.shape == (2_000, 2 * DIM) and drawn.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(drawn, like.draw(2_000, np.random.default_rng(0), copies=2))
    similarity = drawn @ drawn.T - 2 * np.eye(2_000, dtype=np.float32)
    assert (
        similarity.max(axis=1) > shape(embeddings, np.arange(len(embeddings)) // ARRANGEMENTS).near_works
    ).mean() > 0.5


def test_closest_is_a_sorted_scan_of_the_rows_that_pass():
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((300, 8)).astype("f4"), rng.standard_normal((40, 8)).astype("f4")
    passes = rng.random(300) < 0.3
    similarity = np.where(passes, queries @ vectors.T, -np.inf)
    np.testing.assert_array_equal(closest(vectors, queries, passes), np.argsort(-similarity, axis=1)[:, :LIMIT])


def test_recall_counts_what_stands_among_the_first():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = [np.array([2, 1, 9, 9]), np.array([5])]
    assert recall(found, exact, 2) == pytest.approx((1 + 0.5) / 2)
    assert recall(found, exact, 4) == pytest.approx((0.5 + 0.25) / 2)


def test_rows_of_the_benchmark_are_rows_of_ours_and_their_keys_hold_their_numbers():
    rows = [made_row(number, size=0) for number in (0, 1, 999_999)]
    for row in rows:
        check_row(row)
    assert [int(row.id[16:], 16) for row in rows] == [0, 1, 999_999]


@pytest.mark.parametrize("system", ["lite", pytest.param("server-hnsw", marks=pytest.mark.milvus)])
def test_measures_milvus_and_faiss_in_one_run(songs, system):
    if system.startswith("server"):
        pytest.importorskip("milvus", reason="no Milvus server here; pip install milvus==2.3.5 (Linux, x86-64)")
    arguments = [
        "--tracks",
        "3000",
        "--queries",
        "64",
        "--clients",
        "2",
        "--seconds",
        "0.1",
        "--embeddings",
        str(songs),
    ]
    result = CliRunner().invoke(main, [*arguments, "--system", system])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert all(line["tracks"] == 3_000 and line["dim"] == DIM for line in lines)
    assert set(lines[0]["neighbourhood"]) == {"real", "drawn"}
    flat, *measured = [line for line in lines if "system" in line]
    assert (
        flat["system"] == "faiss FLAT" and min(flat["recall_at_5"], flat["recall_at_10"]) > 0.995
    )  # or equal to six digits
    if system == "lite":
        assert len(measured) == 1 and measured[0]["recall_at_10"] > 0.995
    else:
        assert [line["setting"] for line in measured] == [{"ef": ef} for ef in EFS]
        assert measured[-1]["recall_at_10"] > 0.95
    for line in measured:
        assert line["times_faster_than_flat"] == pytest.approx(line["one"]["flat_p50_ms"] / line["one"]["p50_ms"])
        assert line["one"]["clients"] == 1 and line["many"]["clients"] == 2
        assert line["many"]["queries_per_s"] > 0 and line["one"]["cpu_ms"] > 0
    (ours,) = [line for line in lines if "ours" in line]
    assert ours["ours_p50_ms"] > 0 and {"overhead_ms", "overhead_cpu_ms"} < set(ours)
    filters = [line for line in lines if "filter" in line]
    assert [line["share"] for line in filters] == list(SHARES)
    assert all(line["ours_recall_at_10"] > 0.95 for line in filters)
