"""Bundles with a calibration by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

from bytecover2_milvus.alignment.score import Background, Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.embedding.bundle import CALIBRATION, write_sums
from bytecover2_milvus.milvus.cohort import BACKGROUNDS


def with_calibration(bundle: Path, folder: Path, text: str) -> Path:
    """A copy of the bundle with this ``calibration.json``."""
    shutil.copytree(bundle, folder)
    (folder / CALIBRATION).write_text(text, encoding="utf-8")
    write_sums(folder)
    return folder


# The bundle is untrained: copies are alike, and nothing else is known. Only what is as good as a copy is a cover.
VERDICT = Verdict(
    BACKGROUNDS | {"vector": Background(0.9, 0.1)}, Calibration((0.0, 1.0), -8.0), Calibration((0.0,), -5.0), "nothing"
)
