"""Thresholds on verdicts by hand, and a collection that is judged by its own labels."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from band_embedder import ChromaEmbedder
from calibrated import with_calibration
from click.testing import CliRunner
from strangers_and_covers import COHORT, VERDICT, chroma, near_query, row
from written_tune import FRAME_S, slower, tune

from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.alignment.qmax import ALIGNMENT
from bytecover2_milvus.alignment.verdict import probability
from bytecover2_milvus.cli import main
from bytecover2_milvus.embedding.bundle import open_bundle
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.second_stage.judgements import PROBABILITIES, Judgements, Point, thresholds
from bytecover2_milvus.second_stage.rerank import Reranker


def test_thresholds_by_hand():
    """Ten judged pairs, five of six of one work among them, and 90 others that nobody judged."""
    scores = [4, 3, 2, 1, 0.5, 0.5, -1, -2, -3, -4]
    same = [1, 1, 0, 1, 1, 0, 0, 1, 0, 0]
    found = thresholds(scores, same, n_same=6, n_different=95)
    at = {point.probability: point for point in found.points}
    assert list(at) == list(PROBABILITIES)
    assert at[0.5] == Point(0.5, 4 / 6, 4 / 6)
    assert at[0.9] == Point(0.9, 1.0, 2 / 6)  # log odds of 2.2
    assert at[0.99] == Point(0.99, None, 0.0)
    assert found.for_precision == {"0.9": Point(probability(3), 1.0, 2 / 6), "0.99": Point(probability(3), 1.0, 2 / 6)}
    # At -2, one of six is rejected and 3 of 95 accepted; below, the one that was not judged stays rejected.
    assert found.equal_error_rate == pytest.approx((1 / 6 + 3 / 95) / 2)


def test_a_precision_that_no_threshold_gives_is_none():
    found = thresholds([2.0, 1.0], [False, True], 1, 1)
    assert found.for_precision == {"0.9": None, "0.99": None}
    with pytest.raises(ValueError, match="judged pairs"):
        thresholds([1.0], [False], 1, 1)


@pytest.fixture(scope="module")
def milvus_uri(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("lite") / "milvus.db")


@pytest.fixture(scope="module")
def collection(client) -> Iterator[TrackCollection]:
    """Eight works of two tracks each, told apart by their tunes, not their vectors, and one of unknown work."""
    made = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", ChromaEmbedder())
    tracks = []
    for work in range(8):
        notes = tune(500 + work, 60)
        tracks.append((f"w{work}", f"{work} a", chroma(notes, work)))
        tracks.append((f"w{work}", f"{work} b", chroma(slower(notes, 0.9), 100 + work)))
    tracks.append(("", "unknown", chroma(tune(499, 60), 200)))
    levels = [to_levels(heard) for _, _, heard in tracks]
    vectors = np.stack([near_query(0.1, i) for i in range(len(tracks))])
    rows = [
        replace(row(name, len(own) * FRAME_S), work_id=work)
        for (work, name, _), own in zip(tracks, levels, strict=True)
    ]
    statistics = [COHORT.statistics(vector, own) for vector, own in zip(vectors, levels, strict=True)]
    made.upsert(rows, vectors, [encode(own) for own in levels], statistics)
    yield made
    client.drop_collection(made.name)


def test_the_second_stage_ranks_and_its_verdicts_are_counted(collection):
    judge = Judgements(Reranker(collection, VERDICT, FRAME_S), 16)
    first, both = collection.fetch().evaluate(), collection.fetch().evaluate(judge)
    assert both.map == 1.0 > first.map and both.queries == first.queries == 16
    assert (judge.n_same, judge.n_different) == (16, 16 * 14)
    found = judge.thresholds()
    assert found.equal_error_rate == 0 and found.for_precision["0.99"].recall == 1


def test_tracks_are_ranked_in_the_order_of_a_query(collection):
    """An improbable jingle of nine seconds comes last, as in a query, though others have a lower score."""
    stored = collection.fetch()
    jingle = to_levels(chroma(tune(600, 30), 7))[:20]
    resembling_nothing = {
        "n": 20,
        "alignment": ALIGNMENT,
        "vector": [0.0, 0.1],
        "notes": [-1.5, 0.8],
        "lead": [-1.5, 0.8],
    }
    collection.upsert([row("jingle", 20 * FRAME_S)], near_query(0.99, 0)[None], [encode(jingle)], [resembling_nothing])
    try:
        second = Reranker(collection, VERDICT, FRAME_S)
        judge, ids = Judgements(second, 100), np.array([*stored.track_ids, "jingle"])
        similarity = np.linspace(0, 1, len(ids))
        ranked = judge(0, similarity, ids, np.array([*stored.work_ids, ""]))
        scores, order = second.stored_scores(ids[0], ids[1:].tolist(), similarity[1:].tolist())
    finally:
        collection.delete_tracks(["jingle"])
    np.testing.assert_array_equal(np.argsort(-ranked)[:-1], np.array(order) + 1)
    assert ids[order[-1] + 1] == "jingle" and scores.min() < scores[-1] < 0


def test_what_is_not_judged_stays_behind_and_is_not_found(collection):
    """With one candidate each, only the track that the vector puts first is judged."""
    stored = collection.fetch()
    judge = Judgements(Reranker(collection, VERDICT, FRAME_S), 1)
    first, both = stored.evaluate(), stored.evaluate(judge)
    assert (both.map, both.mr1) == (first.map, first.mr1)
    right = np.count_nonzero(first.first_ranks == 1)
    points = judge.thresholds().points if right else []
    assert all(point.recall <= right / 16 for point in points)


def test_by_the_command_line(collection, tiny_notes_bundle, milvus_uri, tmp_path, client):
    form = json.loads(files("bytecover2_milvus.schemas").joinpath("evaluation.schema.json").read_text("utf-8"))
    bundle = with_calibration(tiny_notes_bundle, tmp_path / "bundle", VERDICT.to_json())
    contract = open_bundle(bundle).contract
    properties = {"bytecover2.model_id": contract.model_id, "bytecover2.chroma_id": contract.chroma_id}
    client.alter_collection_properties(collection.name, properties)
    options = ["evaluate", "--uri", milvus_uri, "--collection", collection.name]

    def run(*arguments: object):
        return CliRunner().invoke(main, [*options, *map(str, arguments)])

    plain = run("--json")
    result = run("--json", "--rerank", 16, "--bundle", bundle)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    jsonschema.validate(told, form)
    assert told["map"] == 1.0 and told["first_stage"] == json.loads(plain.stdout) and told["rerank"] == 16
    assert told["verdicts"]["for_precision"]["0.99"]["recall"] == 1
    table = run("--rerank", 16, "--bundle", bundle).stdout
    assert "both stages" in table and "equal error rate" in table and "0.99 or more" in table
    page = tmp_path / "page.html"
    assert run("--rerank", 16, "--bundle", bundle, "--html", page, "--json").stdout == result.stdout
    text = page.read_text(encoding="utf-8")
    assert "MAP 1.000 by both stages: 16 queries of 8 works among 17 tracks" in text
    assert "The second stage judged 240 pairs, 16 of the 16 of one work among them" in text
    assert "vector alone" in text and "Calibration" in text and "The worst queries" not in text
    assert run("--html", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "by the vector alone" in text and "Calibration" not in text and "The worst queries" in text
    assert run("--html", "/proc/none/page.html").exit_code == 1
    refused = run("--rerank", 16, "--bundle", tiny_notes_bundle)
    assert refused.exit_code == 1 and "no calibration.json for this alignment" in refused.stderr
