"""The benchmark of the service at toy size: a real service and the library answer alike, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.speed import serve


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, to see memory")
def test_service_and_library_are_measured_side_by_side_and_all_requests_are_answered(monkeypatch) -> None:
    monkeypatch.setattr(serve, "CLIENTS", (1, 3))
    sizes = {"tracks": 3, "track-seconds": 6, "seconds": 5, "turns": 2, "queries": 3, "requests": 8}
    arguments = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    result = CliRunner().invoke(serve.main, arguments)
    assert result.exit_code == 0, result.output
    machine, overhead, one, three, load = (json.loads(line) for line in result.stdout.splitlines())
    assert machine["tracks"] == 3 and machine["cores"] >= 1
    assert overhead["difference_ms"] == pytest.approx(
        overhead["service"]["p50_ms"] - overhead["library"]["p50_ms"], abs=0.11
    )
    assert min(overhead["cpu_ms"].values()) >= 0 and overhead["healthz_ms"] > 0
    assert (one["clients"], three["clients"]) == (1, 3)
    assert all(line[who]["per_s"] > 0 for line in (one, three) for who in ("service", "library"))
    assert (load["requests"], load["statuses"], load["lost"]) == (8, {"200": 8}, 0)
    assert min(load["mib_after_the_last"].values()) > 0
