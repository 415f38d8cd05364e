"""A run's log of its validations: one JSON object a line, with what had gone into the weights by then."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ..atomic import atomic_write
from ..errors import OutputError

JOURNAL = "log.jsonl"  # in the folder of a run


class Journal:
    """Counts the samples and the time of a run, over all its continuations, and writes a line for each validation.

    Parameters
    ----------
    path : Path
        A line that a run wrote and then lost, as it was killed before it saved, is taken out: it comes again.
    samples, seconds : int
        What had gone in when the run was saved.
    """

    def __init__(self, path: Path, samples: int = 0, seconds: int = 0) -> None:
        self.path, self.samples = path, samples
        self._before_s, self._started = seconds, time.perf_counter()
        written = path.read_bytes() if path.exists() else b""
        kept = b"".join(line for line in written.splitlines(keepends=True) if _is_of(line, samples))
        if kept != written:
            with atomic_write(path) as part:
                part.write_bytes(kept)

    @property
    def seconds(self) -> int:
        """Seconds of the run, with its validations and without what comes before the first step."""
        return self._before_s + int(time.perf_counter() - self._started)

    def write(self, step: int, **scores: float) -> None:
        """Add a line.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        facts = {"step": step, "hours": round(self.seconds / 3600, 3), "samples": self.samples}
        line = json.dumps(facts | {name: round(score, 4) for name, score in scores.items()})
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error


def _is_of(line: bytes, samples: int) -> bool:
    """True of a whole line that was written before more than `samples` had gone in."""
    try:
        return line.endswith(b"\n") and int(json.loads(line)["samples"]) <= samples
    except (ValueError, KeyError, TypeError):
        return False
