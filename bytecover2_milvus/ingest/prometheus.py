"""Metrics of an ingest, in the text format of Prometheus.

The file is for the textfile collector of the node exporter, or to be pushed to a gateway: every value is a gauge of the
last run. It replaces the one before as a whole, so nobody ever reads half of it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..atomic import atomic_write
from .batch import IngestRecord

STATUSES = ("added", "updated", "skipped", "failed")


@dataclass
class IngestRun:
    """A run in progress: `count` its records, set `rows` at its end, then `write`."""

    collection: str
    tracks: Counter[str] = field(default_factory=Counter)  # by status
    audio_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(STATUSES, 0.0)
    )  # seconds by status, where the duration is known
    rows: int | None = None  # in the collection after the run; None: the run did not get to its end
    started: float = field(default_factory=time.monotonic)

    def count(self, record: IngestRecord) -> None:
        self.tracks[record.status] += 1
        self.audio_s[record.status] += record.duration_s or 0.0

    def write(self, path: str | Path) -> None:
        """Write the metrics as of now.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with atomic_write(Path(path)) as part:
            part.write_text(self.text(time.time()), encoding="utf-8")

    def text(self, now: float) -> str:
        """The metrics at the Unix time `now`, in seconds."""
        from prometheus_client import CollectorRegistry, Gauge, generate_latest

        registry = CollectorRegistry()

        def gauge(name: str, told: str, *labels: str) -> Gauge:
            return Gauge(f"bytecover2_ingest_{name}", told, ("collection", *labels), registry=registry)

        tracks = gauge("tracks", "Tracks by what became of them.", "status")
        audio_seconds = gauge("audio_seconds", "Duration of these tracks.", "status")
        for status in STATUSES:
            tracks.labels(self.collection, status).set(self.tracks[status])
            audio_seconds.labels(self.collection, status).set(self.audio_s[status])
        whole_run = {
            gauge("duration_seconds", "How long the run took."): time.monotonic() - self.started,
            gauge("completed", "1 if the run got to its end, even with failed tracks; else 0."): self.rows is not None,
            gauge("end_timestamp_seconds", "When the run ended, in Unix time."): now,
        }
        if self.rows is not None:
            whole_run[gauge("rows", "Rows in the collection after the run.")] = self.rows
        for metric, value in whole_run.items():
            metric.labels(self.collection).set(value)
        return generate_latest(registry).decode()
