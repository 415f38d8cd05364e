"""Results of checks: of an installation by ``doctor``, of a bundle by ``verify``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    check: str  # its name
    status: str  # ok, skipped (could not or need not be checked) or failed
    detail: str  # what was found, or what to do
