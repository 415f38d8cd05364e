"""What an ingest did, in the text format of Prometheus.

The file is for the textfile collector of the node exporter, or to be pushed to a gateway: every value is a gauge of the
last run. It replaces the one before as a whole, so nobody ever reads half of it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .storing import IngestRecord
from .writing import whole_file

STATUSES = ("added", "updated", "skipped", "failed")


@dataclass
class IngestRun:
    """A run in progress: `count` its records, set `rows` at its end, then `write`."""

    collection: str
    tracks: Counter[str] = field(default_factory=Counter)  # by status
    audio_s: Counter[str] = field(default_factory=Counter)  # seconds by status, where the duration is known
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
        with whole_file(Path(path)) as part:
            part.write_text(self.text(time.time()), encoding="utf-8")

    def text(self, now: float) -> str:
        """The metrics at the Unix time `now`, in seconds."""
        by_status = {status: {"status": status} for status in STATUSES}
        samples = [
            ("tracks", "Tracks by what became of them.", [(by_status[s], self.tracks[s]) for s in STATUSES]),
            ("audio_seconds", "Duration of these tracks.", [(by_status[s], self.audio_s[s]) for s in STATUSES]),
            ("duration_seconds", "How long the run took.", [({}, time.monotonic() - self.started)]),
            (
                "completed",
                "1 if the run got to its end, even with failed tracks; else 0.",
                [({}, self.rows is not None)],
            ),
            ("end_timestamp_seconds", "When the run ended, in Unix time.", [({}, now)]),
        ]
        if self.rows is not None:
            samples.append(("rows", "Rows in the collection after the run.", [({}, self.rows)]))
        lines = []
        for name, told, values in samples:
            lines += [f"# HELP bytecover2_ingest_{name} {told}", f"# TYPE bytecover2_ingest_{name} gauge"]
            lines += [
                f"bytecover2_ingest_{name}{_labels({'collection': self.collection} | labels)} {float(value)!r}"
                for labels, value in values
            ]
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    """Names and values in braces."""
    escaped = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return "{" + ",".join(f'{name}="{value.translate(escaped)}"' for name, value in labels.items()) + "}"
