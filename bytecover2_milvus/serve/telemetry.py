"""Numbers for Prometheus and lines of JSON for a log; neither holds tokens, names of files or what was found."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # edges of the histograms

log = logging.getLogger(__name__)


class Metrics:
    """The metrics of this process, as ``/metrics`` gives them."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        name = "bytecover2_serve_"
        self._requests = Counter(
            f"{name}requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self._request_s = Histogram(
            f"{name}request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._stage_s = Histogram(
            f"{name}stage_seconds", "Of the stages of a request.", ("stage",), buckets=SECONDS, registry=registry
        )
        self.audio_s = Counter(f"{name}audio_seconds", "Duration of what was decoded.", registry=registry)
        self.admitted = Gauge(f"{name}admitted", "Recordings that are worked on or wait.", registry=registry)
        self.ready = Gauge(f"{name}ready", "1 if the last look found the catalogue ready.", registry=registry)

    def count(self, route: str, method: str, status: int, seconds: float, stages: Mapping[str, float]) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)
        for stage, spent in stages.items():
            self._stage_s.labels(stage).observe(spent)

    def text(self) -> bytes:
        """All of them in the text format."""
        return generate_latest(self._registry)


class Stages:
    """Seconds that the stages of a request took; threads add to it one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - start


class JsonLines(logging.Formatter):
    """One object of JSON for each record, with what `extra={"facts": {...}}` gives."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage().strip(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: nothing that a terminal would obey


def log_as_json() -> None:
    """Let all loggers, and warnings, write lines of JSON to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(__package__).setLevel(logging.INFO)
    logging.captureWarnings(True)
