"""The bundle that ships, on real recordings among rendered tracks: what a catalogue engineer would try first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.tracks import render_tracks


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(device="cpu")


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> list[Path]:
    """Five recordings in high quality; each has a twin of low bitrate without ".hq" in its name."""
    return sorted((shared_data / "audio").glob("*.hq.ogg"))


@pytest.fixture(scope="module")
def covers(recordings, embedder, tmp_path_factory) -> Iterator[TrackCollection]:
    """What ingest stored of the recordings and of 62 arrangements of other songs."""
    folder = tmp_path_factory.mktemp("recordings")
    rendered = list(render_tracks(traditional_songs()[:31], (0, 1), folder, workers=1, max_duration_s=45.0))
    tracks = [Track(path, path.name.removesuffix(".hq.ogg"), path.name.removesuffix(".hq.ogg")) for path in recordings]
    client = connect(folder / "covers.db")
    collection = TrackCollection.create(client, "covers", embedder)
    statuses = [record.status for record in ingest(tracks + rendered, embedder, collection, workers=0)]
    assert statuses == ["added"] * 67
    yield collection
    close(client)


def low_bitrate(path: Path) -> NDArray[np.float32]:
    return load_audio(path.with_name(path.name.replace(".hq.ogg", ".ogg")))


def excerpt_45_s(path: Path) -> NDArray[np.float32]:
    """45 seconds from the middle, or all of a shorter recording."""
    waveform = load_audio(path)
    start = max(0, len(waveform) - 45 * SAMPLE_RATE) // 2
    return waveform[start : start + 45 * SAMPLE_RATE]


def semitone_up(path: Path) -> NDArray[np.float32]:
    return librosa.effects.pitch_shift(load_audio(path), sr=SAMPLE_RATE, n_steps=1).astype(np.float32)


CHANGES = (low_bitrate, excerpt_45_s, semitone_up)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_recording_finds_the_recording_first(change, recordings, embedder, covers):
    assert len(recordings) == 5
    found = {}
    asked = np.stack([embedder.embed(change(path)) for path in recordings])
    for path, matches in zip(recordings, covers.search(asked, limit=3), strict=True):
        found[path.name.removesuffix(".hq.ogg")] = [(match.track_id, round(match.similarity, 3)) for match in matches]
    wrong = {query: matches for query, matches in found.items() if matches[0][0] != query}
    assert not wrong
