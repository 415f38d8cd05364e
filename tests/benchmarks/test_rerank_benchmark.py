"""The benchmark of the second stage at toy size: all ways give one score, and its figures hang together."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks.speed import rerank


def test_all_ways_give_one_score_and_their_costs_are_told(monkeypatch):
    monkeypatch.setattr(rerank, "HOUR", 100)
    arguments = ["--seconds", "0.05", "--candidates", "2", "--frames", "60"]
    result = CliRunner().invoke(rerank.main, arguments)
    assert result.exit_code == 0, result.output
    pair, query, evidence, memory, stored = (json.loads(line) for line in result.stdout.splitlines())
    assert pair["score"] > 0 and pair["times_ours"]["ours"] == 1
    for way, ms in pair["ms"].items():
        assert pair["times_ours"][way] == pytest.approx(ms / pair["ms"]["ours"])
    assert query["candidates"] == 2 and min(*query["ms_by_channels"].values(), evidence["ms"]) > 0
    assert memory["grown_mib"] >= 0
    assert stored == {
        "what": "bytes", "four_bits": {"12": 360, "24": 720}, "eight_bits": {"12": 720, "24": 1440}
    }  # fmt: skip


def test_a_way_with_another_score_stops_the_benchmark(monkeypatch):
    monkeypatch.setattr(rerank, "librosa_maximum", lambda recurrence, parameters: 0.0)
    result = CliRunner().invoke(rerank.main, ["--seconds", "0.05", "--frames", "60"])
    assert result.exit_code == 1 and "differ in their score" in result.stderr
