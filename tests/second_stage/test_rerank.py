"""The second stage of a query on tunes whose covers, keys and tempi are known, stored in a real collection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from band_embedder import ChromaEmbedder
from numpy.typing import NDArray
from strangers_and_covers import COHORT, COVER, QUERY, STRANGERS, VERDICT, N, chroma, near_query, row
from written_tune import FRAME_S, slower, tune

from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.alignment.qmax import ALIGNMENT, qmax_scores
from bytecover2_milvus.alignment.verdict import SAME_RECORDING, probability
from bytecover2_milvus.embedding.embedder import Heard
from bytecover2_milvus.errors import ChromaError
from bytecover2_milvus.milvus.cohort import Cohort
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.search import Match
from bytecover2_milvus.second_stage import candidates as candidates_module
from bytecover2_milvus.second_stage import rerank
from bytecover2_milvus.second_stage.rerank import Reranker, covers_among


def store(collection: TrackCollection, tracks: Sequence[tuple[str, NDArray[np.float32], NDArray[np.uint8]]]) -> None:
    """Whole tracks with their chroma and the statistics of a cohort of the first 20 strangers."""
    texts = [encode(levels) if len(levels) else "" for _, _, levels in tracks]
    statistics = [COHORT.statistics(vector, levels, name) if len(levels) else {} for name, vector, levels in tracks]
    rows = [row(name, max(len(levels), 9) * FRAME_S) for name, _, levels in tracks]
    collection.upsert(rows, np.stack([vector for _, vector, _ in tracks]), texts, statistics)


HEARD = Heard(near_query(1.0, 0), chroma(QUERY, 100))
COVER_TRACK = ("cover", near_query(0.155, 50), to_levels(chroma(COVER, 101)))


@pytest.fixture(scope="module")
def milvus_uri(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("lite") / "milvus.db")


@pytest.fixture(scope="module")
def collection(client) -> Iterator[TrackCollection]:
    made = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", ChromaEmbedder())
    store(made, [*STRANGERS, COVER_TRACK])
    yield made
    client.drop_collection(made.name)


@pytest.fixture
def second(collection) -> Reranker:
    return Reranker(collection, VERDICT, FRAME_S)


def first_stage(collection: TrackCollection, limit: int = 100) -> list[Match]:
    return collection.search(HEARD.embedding, limit)[0]


def test_the_cover_that_the_vector_ranks_low_comes_first(collection, second):
    found = first_stage(collection)
    assert [match.track_id for match in found].index("cover") > 10
    ranked = second.rerank(HEARD, found)
    assert ranked[0].track_id == "cover" and ranked[0].probability > 0.9
    assert [match.rank for match in ranked] == list(range(1, N + 2))
    assert sorted(match.track_id for match in ranked) == sorted(match.track_id for match in found)
    assert all(match.probability < 0.5 for match in ranked[1:])
    assert [match.score for match in ranked] == sorted((match.score for match in ranked), reverse=True)
    for match in ranked:
        assert match.probability == probability(match.score)
    assert covers_among(ranked, 0.5) == ranked[:1]
    assert len(covers_among(ranked, 0.0)) == N + 1


def test_the_score_is_that_of_the_stored_numbers(collection, second):
    """The cover is aligned by all groups: its score follows from its cohort, the query's, and the calibration."""
    cohort = Cohort(collection.cohort()[: rerank.QUERY_COHORT], VERDICT.backgrounds)
    levels = to_levels(HEARD.chroma)
    statistics = [
        VERDICT.statistics(known, "")
        for known in (cohort.statistics(HEARD.embedding, levels), COHORT.statistics(*COVER_TRACK[1:], "cover"))
    ]
    features = VERDICT.features(HEARD.embedding @ COVER_TRACK[1], qmax_scores(levels, [COVER_TRACK[2]])[0], *statistics)
    (cover, *_) = second.rerank(HEARD, first_stage(collection))
    assert cover.score == pytest.approx(float(VERDICT.scores(features)), abs=1e-4)


def test_evidence_says_where_how_much_higher_and_how_fast(collection, second):
    ranked = second.rerank(HEARD, first_stage(collection), limit=2)
    cover, window_s = ranked[0], 9 * FRAME_S
    starts_s = sum(duration for _, duration in tune(2, 15)), sum(duration for _, duration in tune(4, 10))
    assert (cover.query_start_s, cover.start_s) == pytest.approx(starts_s, abs=2 * window_s)
    assert cover.query_end_s - cover.query_start_s > 40
    assert cover.end_s <= cover.duration_s
    assert cover.transposition == 3 and cover.tempo_ratio == pytest.approx(1.25, abs=0.05)
    assert ranked[1].transposition is not None
    assert all(match.transposition is None and match.query_start_s is None for match in ranked[2:])
    likely = second.rerank(HEARD, first_stage(collection), limit=10, min_probability=0.5)
    assert likely[0] == cover and all(match.transposition is None for match in likely[1:])


def test_a_track_without_chroma_is_placed_by_its_vector_and_has_no_probability(collection, second):
    store(collection, [("silent twin", near_query(0.99, 60), np.zeros((0, 24), np.uint8))])
    try:
        ranked = second.rerank(HEARD, first_stage(collection))
    finally:
        collection.delete_tracks(["silent twin"])
    twin = next(match for match in ranked if match.track_id == "silent twin")
    own = VERDICT.statistics(
        Cohort(collection.cohort()[: rerank.QUERY_COHORT], VERDICT.backgrounds).statistics(
            HEARD.embedding, to_levels(HEARD.chroma)
        ),
        "",
    )
    normalised = (twin.similarity - own[0, 0]) / own[0, 1] + (twin.similarity - 0.02) / 0.11
    assert twin.score == pytest.approx(0.8 * normalised - 6.9, abs=1e-3)
    assert twin.probability is None and twin.transposition is None
    assert twin in ranked[:2]  # a similarity of 0.99 says that it is the same work
    assert twin in covers_among(ranked, 0.5)


def test_jingles_that_resemble_a_query_by_their_vector_are_no_covers(collection, second):
    """One of 1.4 s, which cannot be aligned, and one of nine seconds."""
    jingles = [
        (f"jingle {n_frames}", near_query(0.9, n_frames), to_levels(chroma(tune(600, 30), n_frames))[:n_frames])
        for n_frames in (3, 20)
    ]
    store(collection, jingles)
    try:
        ranked = second.rerank(HEARD, first_stage(collection))
    finally:
        collection.delete_tracks([name for name, _, _ in jingles])
    assert ranked[0].track_id == "cover"
    of_jingles = {match.track_id: match for match in ranked if match.track_id.startswith("jingle")}
    assert len(of_jingles) == 2 and all(probability(match.score) < 0.05 for match in of_jingles.values())
    assert of_jingles["jingle 3"].probability is None
    assert {match.track_id for match in ranked[-2:]} == set(of_jingles)


def test_damaged_chroma_is_an_error_that_names_the_track(collection, second):
    name, vector, levels = STRANGERS[7]
    text = encode(levels)
    damaged = text[:200] + ("0" if text[200] != "0" else "1") + text[201:]
    try:
        collection.upsert([row(name, 70.0)], vector[None], [damaged], [COHORT.statistics(vector, levels, name)])
        with pytest.raises(ChromaError, match=r"^stranger 07: its stored chroma is damaged"):
            second.rerank(HEARD, first_stage(collection))
        collection.upsert(
            [row(name, 70.0)], vector[None], [text], [{"n": 3, "alignment": ALIGNMENT, "vector": [0.0, 0.0]}]
        )
        with pytest.raises(ChromaError, match=r"^stranger 07: its stored statistics are damaged"):
            second.rerank(HEARD, first_stage(collection))
    finally:
        store(collection, [STRANGERS[7]])


def test_a_query_too_short_to_be_aligned_keeps_its_order_and_says_why(collection, second):
    found = first_stage(collection)
    for short in (Heard(HEARD.embedding, HEARD.chroma[:3]), Heard(HEARD.embedding)):
        assert second.rerank(short, found) == found
        assert "too short to be aligned, 1.9 s are needed" in second.why_not(short)
    assert second.why_not(Heard(HEARD.embedding, HEARD.chroma[:4])) == ""
    assert second.rerank(HEARD, []) == []


def test_of_encodings_of_one_recording_only_the_closest_is_shown(collection, second):
    """Another encoding differs in a few levels; another performance of the same notes is another recording."""
    _, vector, levels = COVER_TRACK
    noise = np.random.default_rng(0).integers(-1, 2, levels.shape)
    again = ("again", near_query(0.156, 50), np.clip(levels + noise, 0, 15).astype(np.uint8))
    faster = ("faster", vector, to_levels(chroma(slower(COVER, 0.9), 7)))
    store(collection, [again, faster])
    try:
        found = first_stage(collection)
        every, distinct = (second.rerank(HEARD, found, distinct=only) for only in (False, True))
    finally:
        collection.delete_tracks(["again", "faster"])
    assert {match.track_id for match in every[:3]} == {"cover", "again", "faster"}
    kept = next(match.track_id for match in every if match.track_id in ("cover", "again"))
    assert {match.track_id for match in distinct[:2]} == {kept, "faster"}
    assert len(distinct) == len(every) - 1
    assert [match.rank for match in distinct] == list(range(1, len(distinct) + 1))


def test_the_same_recording_is_certain_however_short_it_is(collection, second):
    """Of five seconds even an identical tune has a low score by alignment alone; a re-encoding has at least 99 %."""
    excerpt = to_levels(HEARD.chroma)[30:42]
    noise = np.random.default_rng(1).integers(-1, 2, excerpt.shape)
    store(collection, [("again", near_query(0.99, 70), np.clip(excerpt + noise, 0, 15).astype(np.uint8))])
    try:
        asked = Heard(HEARD.embedding, HEARD.chroma[30:42])
        (again, *others) = second.rerank(asked, collection.search(asked.embedding, 100)[0])
        other = second.rerank(Heard(HEARD.embedding, HEARD.chroma[:12]), collection.search(HEARD.embedding, 100)[0])
    finally:
        collection.delete_tracks(["again"])
    assert again.track_id == "again" and again.score == SAME_RECORDING and again.probability > 0.99
    assert not covers_among(others, 0.5) and not covers_among(other, 0.5)


def test_all_are_aligned_by_one_group_and_the_best_by_the_others(collection, monkeypatch):
    """What was left out changes the order of the first hardly, and of the cover not at all."""
    found = first_stage(collection)
    fully = {match.track_id: match for match in Reranker(collection, VERDICT, FRAME_S).rerank(HEARD, found)}
    monkeypatch.setattr(candidates_module, "ALL_GROUPS", 3)
    partly = Reranker(collection, VERDICT, FRAME_S).rerank(HEARD, found)
    assert replace(partly[0], rank=1) == replace(fully["cover"], rank=1)
    same = [match.score == fully[match.track_id].score for match in partly]
    assert 3 <= sum(same) < N


# Short queries


def test_a_short_query_is_aligned_with_more_candidates_in_the_same_time():
    def heard(n_frames: int) -> Heard:
        return Heard(HEARD.embedding, np.zeros((n_frames, 24), np.float32))

    assert rerank.candidates_for(Heard(HEARD.embedding)) == 100
    for n_frames, candidates in ((1000, 100), (200, 100), (100, 200), (64, 312), (43, 400), (9, 400), (0, 400)):
        assert rerank.candidates_for(heard(n_frames)) == candidates
        assert n_frames * candidates <= max(n_frames, rerank.FULL_FRAMES) * 100  # of an alignment


@pytest.mark.parametrize("n_frames", [60, 120])
def test_the_closest_segment_counts_half_where_a_query_is_short(collection, second, n_frames):
    """The first stage brings a stranger by a segment 0.4 nearer than the whole: 0.2 where the query is short."""
    heard = Heard(HEARD.embedding, HEARD.chroma[:n_frames])
    found = first_stage(collection)
    chosen = next(match for match in found if match.track_id == "stranger 05")
    nearer = [replace(m, similarity=m.similarity + 0.4) if m is chosen else m for m in found]
    (before, after) = (
        next(m for m in second.rerank(heard, matches) if m.track_id == "stranger 05") for matches in (found, nearer)
    )
    levels = to_levels(heard.chroma)
    cohort = Cohort(collection.cohort()[: rerank.QUERY_COHORT], VERDICT.backgrounds)
    spreads = [
        VERDICT.statistics(known, "")[0, 1]
        for known in (
            cohort.statistics(heard.embedding, levels),
            COHORT.statistics(*STRANGERS[5][1:], "stranger 05"),
        )
    ]
    gain = 0.2 * sum(1 / spread for spread in spreads) * VERDICT.both.weights[0]
    assert after.score - before.score == pytest.approx(gain if n_frames < rerank.SHORT else 0, abs=1e-3)
