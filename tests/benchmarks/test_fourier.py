"""The floor knows neither key nor tempo nor where a song begins, but tells one song from another."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quality.fourier import fourier_embedding, fourier_magnitude
from bytecover2_milvus.config import SAMPLE_RATE

FOLK = [(0, 4, 7), (5, 9, 0), (7, 11, 2), (0, 4, 7)]  # I IV V I, pitch classes
POP = [(9, 0, 4), (5, 9, 0), (0, 4, 7), (7, 11, 2), (2, 5, 9), (4, 7, 11), (9, 0, 4), (4, 8, 11)]


def play(
    chords: list[tuple[int, ...]], transpose: int = 0, bpm: float = 120.0, n_beats: int = 120
) -> NDArray[np.float32]:
    """Two beats a chord, each beat struck anew."""
    length = round(60 / bpm * SAMPLE_RATE)
    time_s = np.arange(length) / SAMPLE_RATE
    envelope = np.exp(-5 * time_s)
    beats = []
    for beat in range(n_beats):
        pitches = [60 + transpose + pitch_class for pitch_class in chords[beat // 2 % len(chords)]]
        tones = [np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time_s) for pitch in pitches]
        beats.append(envelope * np.sum(tones, axis=0) / 4)
    return np.concatenate(beats).astype(np.float32)


def random_chroma(n_beats: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((12, n_beats)) ** 4


def test_key_tempo_and_start_hardly_count_and_the_song_does() -> None:
    folk = fourier_embedding(play(FOLK))
    assert folk.shape == (456,)
    assert folk.dtype == np.float32
    assert np.linalg.norm(folk) == pytest.approx(1)
    same = {
        "a semitone up": fourier_embedding(play(FOLK, transpose=1)),
        "a fourth down": fourier_embedding(play(FOLK, transpose=-5)),
        "faster": fourier_embedding(play(FOLK, bpm=140)),
        "from the second chord": fourier_embedding(play(FOLK[1:] + FOLK[:1])),
    }
    other = fourier_embedding(play(POP))
    for change, embedding in same.items():
        assert folk @ embedding > 0.99, change
        assert folk @ embedding > folk @ other + 0.3, change


def test_transposition_is_an_exact_invariance() -> None:
    chroma = random_chroma(100)
    np.testing.assert_allclose(fourier_magnitude(np.roll(chroma, 5, axis=0)), fourier_magnitude(chroma), atol=1e-6)


def test_where_a_pattern_starts_does_not_count() -> None:
    pattern = random_chroma(75)
    np.testing.assert_allclose(fourier_magnitude(np.roll(pattern, 20, axis=1)), fourier_magnitude(pattern), atol=1e-6)


def test_loudness_does_not_count() -> None:
    chroma = random_chroma(100)
    swell = np.linspace(0.1, 1, 100)
    np.testing.assert_allclose(fourier_magnitude(swell * chroma), fourier_magnitude(chroma), atol=1e-6)


def test_cosines_are_those_of_the_whole_plane() -> None:
    chromas = random_chroma(75), random_chroma(75, seed=1)
    planes = []
    for chroma in chromas:
        plane = np.abs(np.fft.fft2(chroma / chroma.max(axis=0)))
        plane[0, 0] = 0
        planes.append(plane.ravel() / np.linalg.norm(plane))
    assert fourier_magnitude(chromas[0]) @ fourier_magnitude(chromas[1]) == pytest.approx(planes[0] @ planes[1])


def test_short_audio_is_repeated() -> None:
    chroma = random_chroma(25)
    np.testing.assert_allclose(fourier_magnitude(chroma), fourier_magnitude(np.tile(chroma, (1, 3))), atol=1e-6)
    assert np.linalg.norm(fourier_embedding(play(FOLK, n_beats=8))) == pytest.approx(1)


def test_music_without_a_beat_has_an_embedding() -> None:
    drone = np.sin(2 * np.pi * 220 * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    assert np.linalg.norm(fourier_embedding(drone)) == pytest.approx(1)
