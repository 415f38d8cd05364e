"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recordings and scores that lies beside the repository, in ``../shared/data``."""
    if not DATA.is_dir():
        pytest.skip(f"needs the recordings and scores of {DATA}; there is no such folder")
    return DATA
