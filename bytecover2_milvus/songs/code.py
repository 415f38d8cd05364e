"""What makes songs and tracks: a digest of the code, in the name of everything that is kept of what it made."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_ANALYSIS = ("audio.py", "model/cqt.py")
_MAKERS = (
    *("songs", "degrade.py", *_ANALYSIS),
    *("training/rendering.py", "training/spectral.py", "training/tone_bank.py"),
)


@cache
def code_digest() -> str:
    """Changes whenever a line of what reads, composes, arranges, plays, draws or degrades changes."""
    return _digest(_MAKERS)


@cache
def analysis_digest() -> str:
    """Changes whenever a line of what makes a CQT of an audio file changes."""
    return _digest(_ANALYSIS)


def _digest(places: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for place in (_PACKAGE / name for name in places):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
