"""The comparison of learned and hand-made chroma, on what can be told without listening."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.chroma import AS_PUBLISHED, FRAME, HAND_MADE, LEARNED, aligned, by_system, hand_made, lines_of

N_TRACKS, N_FRAMES = 6, 60


def test_hand_made_chroma_hears_a_held_note_and_no_drum():
    cqt = np.full((84, 5 * FRAME), 0.01)
    cqt[45] = 1.0  # A4, held
    cqt[:, 50:54] += 5.0  # a drum of 0.1 s on all bins
    chroma = hand_made(cqt)
    assert chroma.shape == (5, 12)
    assert (chroma.argmax(axis=1) == 9).all() and np.all(np.delete(chroma, 9, axis=1) < 0.1)


def test_each_system_is_judged_by_its_own_channels():
    """Queries share the learned channels with the track before them, and the first twelve with none."""
    rng = np.random.default_rng(0)
    tracks = [rng.integers(0, 16, (N_FRAMES, 36)).astype(np.uint8) for _ in range(N_TRACKS)]
    queries = [rng.integers(0, 16, (N_FRAMES, 36)).astype(np.uint8) for _ in range(N_TRACKS)]
    for query, track in zip(queries, tracks, strict=True):
        query[:, 12:] = track[:, 12:]
    ids = [str(i) for i in range(N_TRACKS)]
    scores = by_system(aligned(queries, tracks), aligned(tracks, tracks), ("notes", "lead"), ids)
    assert list(scores) == [HAND_MADE, "notes", "lead", LEARNED, AS_PUBLISHED]
    own = np.eye(N_TRACKS, dtype=bool)
    lines = {line["system"]: line for line in lines_of("set", "whole", scores, own, np.zeros_like(own), ids)}
    for system in ("notes", "lead", LEARNED, AS_PUBLISHED):
        assert lines[system]["map"] == lines[system]["mr1"] == 1.0
        assert lines[system]["gain"][0] == pytest.approx(1.0 - lines[HAND_MADE]["map"])
    assert lines[HAND_MADE]["map"] < 0.8 and "gain" not in lines[HAND_MADE]
