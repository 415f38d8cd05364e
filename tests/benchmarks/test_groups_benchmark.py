"""The benchmark of groups at toy size: it finds the works, and its figures hang together."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks.speed import groups


def test_parts_make_the_estimates():
    result = CliRunner().invoke(groups.main, ["--tracks", "12", "--candidates", "5", "--search-ms", "7"])
    assert result.exit_code == 0, result.output
    parts, small, large = (json.loads(line) for line in result.stdout.splitlines())
    assert parts["links_per_track"] == 6 / 12  # two works of three tracks have three links each
    assert 30 / 12 <= parts["pairs_per_track"] <= 66 / 12  # five candidates of each of twelve tracks
    assert min(value for name, value in parts.items() if "_ms_" in name) > 0
    hours = large["core_hours"]
    assert large["core_hours_in_all"] == pytest.approx(sum(hours.values()))
    assert hours["align"] == pytest.approx(1e6 * 5 * parts["align_ms_per_pair"] / 3.6e6)
    assert hours["search"] == pytest.approx(1e6 * 7 / 3.6e6)
    assert small["core_hours"]["search"] == pytest.approx(1e4 * parts["search_ms_per_track"] * (1e4 / 12) / 3.6e6)
    assert large["state_gb"] == pytest.approx(1e6 * parts["state_bytes_per_track"] / 1e9)


def test_works_that_are_not_found_stop_the_benchmark(monkeypatch):
    monkeypatch.setattr(groups, "VERDICT", groups.Verdict(
        groups.BACKGROUNDS, groups.Calibration((0.25, 0.5), -1e6), groups.Calibration((0.5,), -4.0), "nothing"
    ))  # fmt: skip
    result = CliRunner().invoke(groups.main, ["--tracks", "12", "--candidates", "5"])
    assert result.exit_code == 1 and "not the 2 works that there are" in result.stderr
