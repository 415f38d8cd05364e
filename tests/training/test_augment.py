"""Each augmentation does what its name says, keeps magnitudes magnitudes, and can be switched off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bytecover2_milvus.config import Training
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.training.data.augment import augment, compress, retune, reverberate, stretch, transpose

FRAME_S = 0.93
OFF = Training(transpose=0, tuning=0.0, tempo=1.0, mask_bins=0, equaliser_db=0.0, noise=0.0)
ON = {
    "transpose": 6,
    "tuning": 0.5,
    "mask_bins": 40,
    "mask_s": 20.0,
    "equaliser_db": 9.0,
    "compression": 0.8,
    "room_s": 2.0,
    "noise": 0.1,
    "crowd": 1.0,
    "silence": 1.0,
}


@pytest.fixture
def cqt() -> np.ndarray:
    return np.random.default_rng(0).random((84, 60), dtype=np.float32)


def test_all_off_leaves_the_music_alone(cqt):
    assert (augment(cqt, OFF, FRAME_S, np.random.default_rng(1)) == cqt).all()


@pytest.mark.parametrize("name", ON)
def test_each_changes_something_and_keeps_magnitudes_finite_and_not_negative(name, cqt):
    before = cqt.copy()
    changed = augment(cqt, replace(OFF, **{name: ON[name]}), FRAME_S, np.random.default_rng(2))
    assert changed.shape == cqt.shape and changed.dtype == np.float32
    assert (changed != cqt).any() and np.isfinite(changed).all() and (changed >= 0).all()
    assert (cqt == before).all()  # the cached track itself stays as it is


def test_a_generator_of_the_same_seed_gives_the_same_music(cqt):
    training = replace(OFF, **ON)
    one, two = (augment(cqt, training, FRAME_S, np.random.default_rng(3)) for _ in range(2))
    assert (one == two).all()


def test_transposition_fills_with_zeros_and_tempo_keeps_the_ends():
    cqt = np.arange(1.0, 13.0).reshape(4, 3)
    assert (transpose(cqt, 1) == [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]).all()
    assert (transpose(cqt, -2) == [[7, 8, 9], [10, 11, 12], [0, 0, 0], [0, 0, 0]]).all()
    assert (transpose(cqt, 0) == cqt).all()
    assert stretch(cqt, 5)[0].tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_tuning_moves_power_to_the_neighbour_and_loses_none():
    cqt = np.zeros((84, 1), dtype=np.float32)
    cqt[40] = 2.0
    moved = retune(cqt, -0.25)
    assert np.square(moved[39]) == pytest.approx(1.0) and np.square(moved[40]) == pytest.approx(3.0)
    assert np.square(moved).sum() == pytest.approx(4.0)


def test_a_tail_falls_to_1_over_e_within_its_decay():
    cqt = np.zeros((1, 40), dtype=np.float32)
    cqt[0, 5] = 1.0
    wet = reverberate(cqt, decay_frames=4.0, wet=0.5, rng=np.random.default_rng(0))[0]
    assert (wet[:5] == 0).all() and wet[5] > 0
    assert wet[10] / wet[6] == pytest.approx(np.exp(-1), rel=1e-5)


def test_reverberation_has_the_power_asked_for_and_a_gain_for_each_bin():
    """A steady sound, so long in the room that the tails of all that came before are there."""
    cqt = np.ones((20_000, 40), dtype=np.float32)
    heard = reverberate(cqt, decay_frames=2.0, wet=0.8, rng=np.random.default_rng(0))
    assert np.square(heard[:, -1]).mean() == pytest.approx(1 + 0.8**2, rel=0.02)
    short = reverberate(cqt, decay_frames=0.01, wet=2.0, rng=np.random.default_rng(0))
    assert (short == short[:, :1]).all()  # all of it within a frame, and for the whole track
    assert short.min() < 0.1 and short.max() > 5


def test_full_compression_makes_every_frame_equally_loud_and_leaves_silence_silent():
    cqt = np.array([[1.0, 0.1, 0.0], [1.0, 0.1, 0.0]], dtype=np.float32)
    even = compress(cqt, 1.0)
    assert even[:, 0] == pytest.approx(even[:, 1]) and (even[:, 2] == 0).all()
    assert (compress(cqt, 0.0) == cqt).all()


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match=r"crowd = 1\.5: between 0 and 1"):
        Training(crowd=1.5)
    with pytest.raises(ConfigError, match="at most 1 bin"):
        Training(tuning=2.0)
