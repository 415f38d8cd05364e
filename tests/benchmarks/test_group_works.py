"""How right groups are, counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.quality.group_works import judged

WORK_OF = dict(zip("abcdefg", ("x", "x", "x", "y", "y", "z", "v"), strict=True))


def test_groups_by_hand():
    """Of abc|d e|f|g, found are a b, and c d f: one right pair of four, and four pairs are of one work."""
    found = judged([["a", "b"], ["c", "d", "f"]], WORK_OF)
    assert found == {
        "grouped": 5,
        "precision": 1 / 4,
        "recall": 1 / 4,
        "purity": pytest.approx(3 / 5),
        "whole": 0,
        "works": 2,
    }
    assert judged(["abc", "de"], WORK_OF) | {"grouped": 5} == {
        "grouped": 5, "precision": 1, "recall": 1, "purity": 1, "whole": 2, "works": 2
    }  # fmt: skip


def test_no_groups_are_pure_and_find_nothing():
    found = judged([], WORK_OF)
    assert (found["precision"], found["recall"], found["purity"], found["whole"]) == (1, 0, 1, 0)
