"""The leads of the sung validation set are recorded syllables at the pitch of the notes, over the band."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from benchmarks.held_out import SUNG, works_of
from benchmarks.quality.sung import Take, pitch_marks, sing, sing_part, voices
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.arrange.arrangement import Part
from bytecover2_milvus.songs.arrange.performance import NOTE_DTYPE


def syllable(hz: float, seconds: float = 0.6) -> NDArray[np.float32]:
    """A hiss of a tenth of a second, then a voice of twelve harmonics."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    voice = sum(np.cos(2 * np.pi * hz * k * time_s) / k for k in range(1, 13))
    hiss = 0.3 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 10)
    return (0.2 * np.concatenate([hiss, voice])).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [("low.wav", "low", 130.0), ("high.wav", "high", 350.0), ("silent.wav", "high", 350.0)]
    for name, _, hz in rows:
        soundfile.write(tmp_path / name, syllable(hz) * (name != "silent.wav"), SAMPLE_RATE)
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "voice", "f0_hz"), *rows])
    return tmp_path


def frequency(sound: NDArray[np.float32], near_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**17))
    hz = np.fft.rfftfreq(2**17, 1 / SAMPLE_RATE)
    around = np.abs(hz - near_hz) < 0.3 * near_hz
    return float(hz[around][spectrum[around].argmax()])


def test_a_mark_stands_in_every_period_of_the_voice_and_none_in_the_hiss() -> None:
    waveform = syllable(130.0)
    marks = pitch_marks(waveform, SAMPLE_RATE / 130)
    assert abs(marks[0] / SAMPLE_RATE - 0.1) < 0.02
    assert len(marks) > 0.5 * 130 and np.abs(np.diff(marks) - SAMPLE_RATE / 130).max() <= 1
    assert not len(pitch_marks(np.zeros(5000, dtype=np.float32), 100.0))


@pytest.mark.parametrize("pitch", [43, 48, 52, 57])
def test_a_syllable_is_sung_at_its_pitch_and_as_long_as_its_note(folder: Path, pitch: int) -> None:
    [take] = voices(folder)["low"]
    sound = sing(take, pitch, 2 * SAMPLE_RATE)  # longer than the recording
    hz = 440 * 2 ** ((pitch - 69) / 12)
    for second in (sound[4000:20_000], sound[22_000:40_000]):
        assert abs(1200 * np.log2(frequency(second, hz) / hz)) < 10  # cents
    assert np.abs(sound[-2000:-1200]).max() > 0.1 and abs(sound[-1]) < 1e-6
    for short in (1, 50, 1000):
        assert sing(take, pitch, short).shape == (short,)


def test_the_voice_that_suits_a_line_sings_it_an_octave_off_if_need_be(folder: Path) -> None:
    pitches = [65.0, 67.0]  # F4 and G4, near 350 Hz; an octave lower is further from 130 Hz
    notes = np.array([(0.5 + i, 0.9, pitch, 1.0, 0.0) for i, pitch in enumerate(pitches)], dtype=NOTE_DTYPE)
    takes = voices(folder)
    for octave, expected in ((0, 0), (1, 0)):  # written an octave higher, it is sung where the voice is
        raised = notes.copy()
        raised["pitch"] += 12 * octave
        line = sing_part(Part("lead", "voice", "", raised, 1.0), 3 * SAMPLE_RATE, takes, 0)
        assert not line[: SAMPLE_RATE // 2].any()
        for i, pitch in enumerate(pitches):
            hz = 440 * 2 ** ((pitch + 12 * expected - 69) / 12)
            held = line[round((0.8 + i) * SAMPLE_RATE) : round((1.3 + i) * SAMPLE_RATE)]
            assert abs(1200 * np.log2(frequency(held, hz) / hz)) < 15


def test_the_sung_set_needs_voices(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SongError, match=r"voices/index\.csv: not there; leave the set sung out"):
        works_of(SUNG, tmp_path / "none", 2, 2)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "voices").symlink_to(folder)
    [one, _] = works_of(SUNG, tmp_path / "scores", 2, 2)
    assert one.voices == tmp_path / "scores" / "voices" and isinstance(voices(one.voices)["low"][0], Take)
