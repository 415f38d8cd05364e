"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 300  # of a busy machine; what is waited for never comes where it is broken


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition is true; it fails in five minutes."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
