"""Music drawn straight to a CQT is what the real path, a waveform heard by the front end, makes of the same notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.config import FrontEnd
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, arrange
from bytecover2_milvus.songs.arrange.performance import DRUM_DTYPE, NOTE_DTYPE
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.instruments import INSTRUMENTS
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.training.data.rendering import Rendering, analyse
from bytecover2_milvus.training.data.spectral import SpectralRenderer
from bytecover2_milvus.training.data.tone_bank import FRAME_S, SUNG, ToneBank, factorise, loudness_weight

FRONT_END = FrontEnd(time_pooling=20)
POOLING = 20
SECONDS = 40.0


@pytest.fixture(scope="module")
def renderer(tone_folder) -> SpectralRenderer:
    return SpectralRenderer(ToneBank.open(tone_folder, FRONT_END), loudness_weight(FRONT_END))


def one_note(pitch: float, onset_s: float = 4.0, duration_s: float = 2.0, instrument: str = "organ") -> Arrangement:
    notes = np.array([(onset_s, duration_s, pitch, 1.0, 0.0)], dtype=NOTE_DTYPE)
    return replace(
        arrange(compose(0), 0),
        duration_s=10.0,
        parts=(Part("lead", instrument, "", notes, 1.0),),
        drums=np.zeros(0, dtype=DRUM_DTYPE),
        tuning_cents=0.0,
        fade_out_s=0.0,
    )


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation of the square roots of two magnitudes over their maximum: what the network sees."""
    n = min(one.shape[1], other.shape[1])
    return float(np.corrcoef(*(np.sqrt(cqt[:, :n] / cqt[:, :n].max()).ravel() for cqt in (one, other)))[0, 1])


@pytest.mark.parametrize("pitch", [36, 47, 60, 61, 62, 63, 75])
def test_a_tone_is_drawn_at_its_pitch_while_it_sounds(renderer, pitch):
    cqt = renderer.render(one_note(pitch), POOLING, 10.0)
    assert cqt.shape == (84, int(10.0 / FRAME_S) // 4)
    column_s = 4 * FRAME_S
    inside = cqt[:, int(4.5 / column_s) : int(5.8 / column_s)].mean(axis=1)
    assert inside[pitch - 24] > 0.5 * inside.max()  # C1 is MIDI 24; an overtone of an organ may be stronger
    assert cqt[:, : int(3.2 / column_s)].max() < 0.05 * cqt.max()
    assert cqt[:, int(7.5 / column_s) :].max() < 0.2 * cqt.max()  # the room rings on


@pytest.mark.parametrize("instrument", ["voice", "piano", "steel guitar", "strings", "electric bass"])
def test_a_tone_has_the_spectrum_that_the_real_path_gives_it(renderer, instrument):
    plays = INSTRUMENTS[instrument]
    note = one_note((plays.lowest + plays.highest) // 2, instrument=instrument)
    assert likeness(renderer.render(note, POOLING, 10.0), analyse(render(note), FRONT_END, POOLING)) > 0.6


def test_music_drawn_straight_is_like_the_same_music_played_and_like_no_other(renderer):
    """Other players, room and equaliser are drawn, so the two are alike as two takes of one arrangement are."""
    arrangements = [arrange(compose(seed), 1) for seed in range(6)]
    drawn = [renderer.render(arrangement, POOLING, SECONDS) for arrangement in arrangements]
    played = [analyse(render(arrangement, SECONDS), FRONT_END, POOLING) for arrangement in arrangements]
    alike = np.array([[likeness(one, other) for other in played] for one in drawn])
    assert np.median(np.diag(alike)) > 0.75
    assert (alike.argmax(axis=1) == np.arange(6)).all()


def test_the_same_arrangement_gives_the_same_cqt(renderer):
    arrangement = arrange(compose(1), 2)
    one, two = (renderer.render(arrangement, POOLING, SECONDS) for _ in range(2))
    assert (one == two).all() and np.isfinite(one).all() and (one >= 0).all() and one.dtype == np.float32


def test_the_bank_is_measured_once_and_the_same_for_the_same_instruments(renderer, tone_folder):
    before = {path: path.stat().st_mtime_ns for path in tone_folder.iterdir()}
    again = ToneBank.open(tone_folder, FRONT_END)
    assert before and {path: path.stat().st_mtime_ns for path in tone_folder.iterdir()} == before
    assert (again.spectra == renderer.bank.spectra).all()
    singers = {f"{name}{SUNG}" for name, instrument in INSTRUMENTS.items() if instrument.lyrics}
    assert singers and set(again.names) == INSTRUMENTS.keys() | singers


def test_a_front_end_of_other_frames_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="hop_length 512"):
        ToneBank.open(tmp_path, FrontEnd(hop_length=256))


def test_two_components_are_found_again():
    rng = np.random.default_rng(0)
    spectra, envelopes = rng.random((3, 84, 2)) + 0.01, rng.random((3, 2, 28)) + 0.01
    power = (spectra @ envelopes).astype(np.float32)
    found = np.matmul(*factorise(power))
    assert np.median(np.abs(np.log(found / power))) < 0.05


def test_shares_decide_which_tracks_are_drawn(tone_folder):
    song = compose(3)
    drawn, played = Rendering(spectral=1.0, folder=tone_folder), Rendering(folder=tone_folder)
    one, other = (way.cqt(song, 0, FRONT_END, POOLING) for way in (drawn, played))
    assert one.shape[1] == pytest.approx(other.shape[1], abs=1)
    assert likeness(one, other) > 0.5 and not np.allclose(one[:, :5], other[:, :5])
    degraded = Rendering(degraded=1.0, folder=tone_folder).cqt(song, 0, FRONT_END, POOLING)
    assert degraded.shape[0] == 84 and not np.array_equal(degraded, other)
    room = Rendering(degraded=1.0, kinds=("room",))
    assert not np.array_equal(room.cqt(song, 0, FRONT_END, POOLING), degraded)
    renderings = (drawn, played, Rendering(degraded=1.0), room)
    assert len({rendering.fingerprint for rendering in renderings}) == 4


def test_a_singer_who_sings_words_has_another_spectrum_from_note_to_note(renderer):
    """The partials of middle C stand out each time, but not the same ones."""
    notes = np.array([(1.0 + 2 * i, 1.8, 60.0, 1.0, 0.0) for i in range(8)], dtype=NOTE_DTYPE)
    kinds = []
    for seed in range(6):
        line = replace(one_note(60), seed=seed, duration_s=20.0, parts=(Part("lead", "voice", "", notes, 1.0),))
        cqt = renderer.render(line, POOLING, 20.0)
        held = np.sqrt(np.stack([cqt[:, int((1.7 + 2 * i) / FRAME_S / 4)] for i in range(8)]))  # (8, n_bins)
        assert set((held.argmax(axis=1) + 24).tolist()) <= {60, 72, 79, 84, 88}  # the first five partials
        kinds.append(len(np.unique((np.corrcoef(held) > 0.995).argmax(axis=1))))
    assert 1 in kinds and max(kinds) > 3
