"""The metrics by hand, against scikit-learn and against a plain loop, and the conventions that others got wrong."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from bytecover2_milvus import metrics
from bytecover2_milvus.metrics import (
    average_precision,
    bootstrap_interval,
    evaluate,
    mean_difference,
    mr1,
    precision_at,
    rank_of_first,
)


def at(*degrees: float) -> NDArray[np.float64]:
    """Unit vectors of the plane: what lies closer on the circle is more similar."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def random_rows(n_rows: int, dim: int = 8, seed: int = 0) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).standard_normal((n_rows, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def letters(text: str) -> list[str]:
    """Works by letter, "." standing for an unknown work."""
    return ["" if letter == "." else letter for letter in text]


def ids(n_tracks: int) -> list[str]:
    return [f"{number:04d}" for number in range(n_tracks)]


def by_sorting(embeddings: NDArray[np.float64], works: list[str], tracks: list[str]) -> tuple[float, float, float]:
    """MAP, MR1 and P@10 as one would write them down, a full sort per query."""
    values = []
    for query in sorted(set(tracks)):
        own = [row for row, track in enumerate(tracks) if track == query]
        candidates: dict[str, float] = {}
        for row, track in enumerate(tracks):
            if track != query:
                best = max(np.float32(embeddings[row] @ embeddings[segment]) for segment in own)
                candidates[track] = max(best, candidates.get(track, -2.0))
        ranking = sorted(candidates, key=lambda track: (-candidates[track], track))
        work = works[own[0]]
        hits = [rank for rank, track in enumerate(ranking, start=1) if works[tracks.index(track)] == work]
        if work and hits:
            precision = [number / rank for number, rank in enumerate(hits, start=1)]
            values.append((np.mean(precision), hits[0], sum(rank <= 10 for rank in hits) / 10))
    return tuple(np.mean(values, axis=0))


def test_average_precision_by_hand() -> None:
    similarity = np.array([0.9, 0.1, 0.8, 0.3, 0.5])
    relevant = np.array([False, True, True, False, True])
    # ranking: 0.9 no, 0.8 yes (1/2), 0.5 yes (2/3), 0.3 no, 0.1 yes (3/5)
    assert average_precision(similarity, relevant) == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


def test_average_precision_equals_scikit_learn_where_nothing_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        similarity = rng.permutation(200) / 200
        relevant = rng.random(200) < rng.uniform(0.01, 0.9)
        relevant[0] = True
        assert average_precision(similarity, relevant) == pytest.approx(average_precision_score(relevant, similarity))


def test_average_precision_ranks_equals_in_their_order() -> None:
    relevant = np.array([False, True, False])
    assert average_precision(np.array([0.5, 0.5, 0.5]), relevant) == 1 / 2
    assert average_precision(np.array([0.5, 0.6, 0.5]), relevant) == 1


@pytest.mark.parametrize(
    ("similarity", "relevant", "message"),
    [
        ([0.1, 0.2], [False, False], "no candidate is relevant"),
        ([], [], "no candidate is relevant"),
        ([0.1, 0.2], [True], r"\(2,\) and relevant \(1,\)"),
        ([0.1, math.nan], [True, False], "NaN"),
    ],
)
def test_average_precision_refuses(similarity: list[float], relevant: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_precision(np.array(similarity), np.array(relevant, dtype=bool))


def test_evaluation_by_hand() -> None:
    result = evaluate(at(0, 10, 25, 60, 90), letters("ABAB."), ids(5))
    # query 0 deg A: B 10, A 25 <- rank 2              AP 1/2
    # query 10 deg B: A 0, A 25, B 60 <- rank 3        AP 1/3
    # query 25 deg A: B 10, A 0 <- rank 2 (B 60 is 35 away)   AP 1/2
    # query 60 deg B: . 90, A 25, B 10 <- rank 3       AP 1/3
    # the unknown work at 90 deg is a candidate and no query
    assert result.average_precisions == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 3])
    assert result.map == pytest.approx(5 / 12)
    assert list(result.first_ranks) == [2, 3, 2, 3]
    assert result.mr1 == 2.5
    assert result.precision_at_10 == pytest.approx(0.1)  # one cover among the first ten, divided by ten
    assert (result.queries, result.tracks, result.works) == (4, 5, 2)
    assert list(result.query_work_ids) == ["A", "B", "A", "B"]


def test_a_perfect_ranking_scores_one() -> None:
    centres = random_rows(20, dim=64)
    rows = np.repeat(centres, 3, axis=0) + 1e-3 * random_rows(60, dim=64, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result = evaluate(rows, [str(row // 3) for row in range(60)], ids(60))
    assert (result.map, result.mr1, result.precision_at_10) == (1, 1, pytest.approx(0.2))


def test_chance_is_the_harmonic_mean_that_theory_gives() -> None:
    n_tracks = 400
    result = evaluate(random_rows(n_tracks, dim=64), [str(row // 2) for row in range(n_tracks)], ids(n_tracks))
    n_candidates = n_tracks - 1
    expected = sum(1 / rank for rank in range(1, n_candidates + 1)) / n_candidates  # one relevant, at any rank alike
    assert result.map == pytest.approx(expected, rel=0.5)
    assert result.mr1 == pytest.approx((n_candidates + 1) / 2, rel=0.1)


@pytest.mark.parametrize("n_segments", [1, 3])
def test_equals_a_plain_sort(n_segments: int) -> None:
    rng = np.random.default_rng(n_segments)
    tracks = [track for track in ids(60) for _ in range(rng.integers(1, n_segments + 1))]
    rows = random_rows(len(tracks), dim=3)
    works = [letters("ABCDE..")[int(track) % 7] if int(track) < 57 else f"single {track}" for track in tracks]
    result = evaluate(rows, works, tracks)
    assert (result.map, result.mr1, result.precision_at_10) == pytest.approx(by_sorting(rows, works, tracks))


def test_the_result_does_not_depend_on_the_order_of_rows_or_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = [track for track in ids(50) for _ in range(1 + int(track) % 4)]
    works = [str(int(track) % 9) for track in tracks]
    rows = random_rows(len(tracks), dim=4).astype(np.float32)
    rows[::5] = rows[0]  # with ties
    result = evaluate(rows, works, tracks)
    order = np.random.default_rng(1).permutation(len(rows))
    assert evaluate(rows[order], [works[row] for row in order], [tracks[row] for row in order]) == result
    for block in (1, 500, 10**9):
        monkeypatch.setattr("bytecover2_milvus.rows_by_track._BLOCK", block)
        assert evaluate(rows, works, tracks) == result


def test_only_the_order_of_similarities_counts() -> None:
    similarity, relevant = np.random.default_rng(0).uniform(-1, 1, 100), np.arange(100) % 7 == 0
    for monotone in (np.exp, np.tanh, lambda values: 3 * values - 8):
        assert average_precision(monotone(similarity), relevant) == average_precision(similarity, relevant)


def test_a_query_is_removed_by_identity_not_by_similarity() -> None:
    # a cover identical to the query stays a candidate and is found at rank 1
    assert evaluate(at(0, 0, 5), letters("AAB"), ids(3)).mr1 == 1
    # of three identical tracks the stranger comes before the cover if its track_id does, and after it if not
    assert list(evaluate(at(0, 0, 0), letters("ABA"), ["1", "2", "3"]).first_ranks) == [2, 1]
    assert list(evaluate(at(0, 0, 0), letters("ABA"), ["1", "3", "2"]).first_ranks) == [1, 1]


def test_identical_tracks_tie_in_a_large_collection() -> None:
    rows = np.tile(random_rows(1, dim=128).astype(np.float32), (301, 1))
    result = evaluate(rows, ["A" if row in (0, 300) else "" for row in range(301)], ids(301))
    assert list(result.first_ranks) == [300, 1]  # track 300 has 299 strangers before it, track 0 none


def test_the_precision_divides_by_what_there_is_to_find() -> None:
    # the second cover, farthest of all, counts although it comes last: AP = (1/1 + 2/12) / 2
    result = evaluate(at(0, 1, *range(20, 130, 11), 180), ["A", "A", *[""] * 10, "A"], ids(13))
    assert result.average_precisions[0] == pytest.approx((1 / 1 + 2 / 12) / 2)


def test_tracks_alone_in_their_work_stay_in_the_gallery_and_never_query() -> None:
    alone = evaluate(at(0, 40), letters("AA"), ids(2))
    crowded = evaluate(at(0, 40, 15), letters("AAB"), ids(3))
    assert (alone.queries, alone.mr1) == (2, 1)
    assert (crowded.queries, crowded.mr1, crowded.works) == (2, 2, 2)


def test_two_tracks_are_as_similar_as_their_closest_segments() -> None:
    rows = at(0, 90, 91, 10, 45, 180)
    result = evaluate(rows, letters("AAABCC"), ["a1", "a1", "a2", "b", "c1", "c2"])
    # a1 has segments at 0 and 90 deg, 1 deg from a2; b is 10 deg away: the cover comes first
    assert list(result.first_ranks[:2]) == [1, 1]
    assert (result.tracks, result.queries) == (5, 4)


def test_excerpts_query_the_whole_tracks_without_their_own() -> None:
    tracks, excerpts = at(0, 30, 100, 140), at(95, 35, 40, 150)
    result = evaluate(tracks, letters("AABB"), ids(4), excerpts)
    # excerpt at 95 of A at 0, candidates without it: B 100, B 140, A 30 <- rank 3   AP 1/3
    # excerpt at 35 of A at 30: A 0 <- rank 1, although its own track is closer        AP 1
    # excerpt at 40 of B at 100: A 30, A 0, B 140 <- rank 3                              AP 1/3
    # excerpt at 150 of B at 140: B 100 <- rank 1                                        AP 1
    assert result.average_precisions == pytest.approx([1 / 3, 1, 1 / 3, 1])
    assert list(result.first_ranks) == [3, 1, 3, 1]


def test_tracks_as_their_own_queries_are_the_plain_evaluation() -> None:
    rows, tracks = random_rows(60, dim=4), [track for track in ids(20) for _ in range(3)]
    works = [str(int(track) % 7) for track in tracks]
    assert evaluate(rows, works, tracks, rows) == evaluate(rows, works, tracks)


@pytest.mark.parametrize(
    ("queries", "message"),
    [(at(0, 1, 2), r"queries \(3, 2\), embeddings \(2, 2\)"), (2 * at(0, 1), "queries: every row must be finite")],
)
def test_queries_that_fit_no_track_are_refused(queries: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(at(0, 1), letters("AA"), ids(2), queries)


@pytest.mark.parametrize(
    ("embeddings", "works", "message"),
    [
        (at(0, 1), "AB", "no query: no work has two tracks"),
        (at(0, 1), "..", "no query"),
        (np.zeros((0, 4)), "", "no query"),
        (2 * at(0, 1), "AA", "unit norm"),
        (np.full((2, 2), np.nan), "AA", "finite"),
        (at(0, 1, 2), "AA", r"embeddings \(3, 2\), 2 work_ids"),
        (np.ones(2), "AA", r"embeddings \(2,\)"),
    ],
)
def test_evaluate_refuses(embeddings: NDArray[np.float64], works: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(embeddings, letters(works), ids(len(works)))


def test_a_track_of_two_works_is_refused() -> None:
    with pytest.raises(ValueError, match="track 't' has segments of two works"):
        evaluate(at(0, 1, 2), letters("ABA"), ["t", "t", "u"])


def test_the_interval_covers_the_mean_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    values, works = rng.random(300), [str(query // 3) for query in range(300)]
    low, high = bootstrap_interval(values, works, seed=0)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, works, seed=0)
    # 300 independent values of a uniform distribution: mean +- 1.96 x sqrt(1/12) / sqrt(300)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 300), rel=0.15)


def test_queries_of_one_work_count_as_one_piece_of_evidence() -> None:
    values = np.random.default_rng(0).random(100)
    narrow = bootstrap_interval(np.repeat(values, 9), [str(query) for query in range(900)], seed=0)
    wide = bootstrap_interval(np.repeat(values, 9), [str(query // 9) for query in range(900)], seed=0)
    assert wide[1] - wide[0] == pytest.approx(3 * (narrow[1] - narrow[0]), rel=0.15)  # sqrt(9)


@pytest.mark.parametrize("n_values", [0, 3])
def test_the_interval_needs_a_work_per_value(n_values: int) -> None:
    with pytest.raises(ValueError, match=f"{n_values} values and {n_values // 2} work_ids"):
        bootstrap_interval(np.zeros(n_values), ["A"] * (n_values // 2), seed=0)


def test_a_difference_that_every_query_shares_has_no_width() -> None:
    values = np.random.default_rng(0).uniform(size=40)
    works = [str(query // 4) for query in range(40)]
    difference, low, high = mean_difference(values + 0.1, values, works, seed=0)
    assert difference == pytest.approx(0.1) and low == pytest.approx(0.1) and high == pytest.approx(0.1)
    others = np.random.default_rng(1).uniform(size=40)
    assert mean_difference(values, others, works, seed=0)[1:] == bootstrap_interval(values - others, works, seed=0)


def test_examples_in_the_documentation_are_true() -> None:
    result = doctest.testmod(metrics)
    assert result.failed == 0 and result.attempted >= 4


def test_single_metrics_have_the_means_that_evaluate_gives() -> None:
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(24, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    works = np.array([f"w{i % 5}" for i in range(24)])
    result = evaluate(embeddings, works.tolist(), [f"t{i:02}" for i in range(24)])
    others = [np.delete(np.arange(24), query) for query in range(24)]
    lists = [embeddings[rest] @ embeddings[query] for query, rest in enumerate(others)]
    relevant = [works[rest] == works[query] for query, rest in enumerate(others)]
    assert result.map == pytest.approx(np.mean(list(map(average_precision, lists, relevant))))
    assert result.mr1 == pytest.approx(mr1(lists, relevant))
    assert result.precision_at_10 == pytest.approx(np.mean(list(map(precision_at, lists, relevant))))
    assert result.first_ranks.tolist() == list(map(rank_of_first, lists, relevant))


def test_metrics_that_are_not_defined_are_refused() -> None:
    with pytest.raises(ValueError, match="no query"):
        mr1([], [])
    with pytest.raises(ValueError, match="n = 0"):
        precision_at([1.0], [True], n=0)
    for metric in (average_precision, rank_of_first, precision_at):
        with pytest.raises(ValueError, match="no candidate is relevant"):
            metric([0.5, 0.1], [False, False])
        with pytest.raises(ValueError, match="one length"):
            metric([0.5, 0.1], [True])
        with pytest.raises(ValueError, match="NaN"):
            metric([0.5, np.nan], [True, False])


def test_queries_rank_the_gallery_and_nothing_else():
    angles = np.radians([0, 10, 20, 40, 90])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    works, names = ["w", "v", "w", "w", "v"], list("abcde")
    everyone = evaluate(rows, works, names)
    assert evaluate(rows, works, names, roles=[""] * 5) == everyone
    asked = evaluate(rows, works, names, roles=["query", "query", "gallery", "gallery", "gallery"])
    assert asked.query_work_ids.tolist() == ["w", "v"] and asked.tracks == 5
    assert asked.average_precisions.tolist() == [1.0, 1 / 3] and asked.first_ranks.tolist() == [1, 3]
    singleton = evaluate(rows, works, names, roles=["", "gallery", "", "", "gallery"])
    assert singleton.queries == 3 and singleton.average_precisions[0] == (1 / 2 + 2 / 3) / 2
    with pytest.raises(ValueError, match="roles"):
        evaluate(rows, works, names, roles=["noise"] * 5)
    with pytest.raises(ValueError, match="no query"):
        evaluate(rows, works, names, roles=["query"] * 5)


def test_a_judge_meets_the_candidates_only():
    rows, met = np.eye(4), []

    def judge(query, similarity, track_ids, work_ids):
        met.append((str(track_ids[query]), track_ids.tolist()))
        return similarity

    evaluate(rows, ["w"] * 4, list("abcd"), judge=judge, roles=["query", "query", "", "gallery"])
    assert met == [("a", ["a", "c", "d"]), ("b", ["b", "c", "d"]), ("c", ["c", "d"])]
