"""The front end against librosa."""

from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import torch

from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.model.cqt import ConstantQ, WaveformToCQT, pool_time, scale_magnitude, skip_silence


def librosa_cqt(waveform: np.ndarray) -> np.ndarray:
    """librosa's magnitude without the 1 % of each filter that it drops for speed."""
    config = FrontEnd()
    return np.abs(
        librosa.cqt(
            waveform, sr=SAMPLE_RATE, hop_length=config.hop_length, fmin=config.fmin, n_bins=config.n_bins, sparsity=0
        )
    )


def constant_q(waveform: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return ConstantQ(FrontEnd())(torch.from_numpy(waveform)[None])[0].numpy()


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def music(shared_data) -> np.ndarray:
    path = next((shared_data / "audio").glob("*Lets_Go_Fishin.hq.ogg"))
    return librosa.load(path, sr=SAMPLE_RATE, duration=45)[0]


@pytest.mark.parametrize("material", ["noise", "music"])
def test_equals_librosa_within_one_percent_in_every_bin(material, request, record_property):
    waveform = noise(20) if material == "noise" else music(request.getfixturevalue("shared_data"))
    ours, reference = constant_q(waveform), librosa_cqt(waveform)
    assert ours.shape == reference.shape
    error = np.linalg.norm(ours - reference, axis=1) / np.linalg.norm(reference, axis=1)  # per bin
    record_property("largest_relative_error", float(error.max()))
    print(f"{material}: relative error per bin, largest {error.max():.2%}, mean {error.mean():.2%}")
    assert error.max() < 0.01


@pytest.mark.parametrize("n_samples", [22_050, 22_051, 100_003, 512 * 99, 512 * 99 - 1])
def test_frame_count_is_librosas(n_samples):
    assert constant_q(noise(6)[:n_samples]).shape == (84, 1 + n_samples // 512)


def test_a_tone_peaks_in_its_own_bin():
    t = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    for midi in (36, 57, 69, 93):  # C2, A3, A4, A6; bin 0 is C1 = 24
        tone = np.sin(2 * np.pi * librosa.midi_to_hz(midi) * t).astype(np.float32)
        assert constant_q(tone).mean(axis=1).argmax() == midi - 24


def test_two_waveforms_together_equal_each_alone():
    pair = torch.from_numpy(np.stack([noise(4), noise(8)[-4 * SAMPLE_RATE :]]))
    front_end = WaveformToCQT(FrontEnd(time_pooling=20))
    torch.testing.assert_close(front_end(pair), torch.cat([front_end(row[None]) for row in pair]))


def test_silence_at_both_ends_is_skipped_row_by_row_and_what_sounds_goes_on_from_its_beginning():
    waveform = torch.tensor([[0.0, 0.0009, 0.0, 1.0, 0.0, 0.0, -0.5, 0.0, 0.0, 0.0], [0.002] + [1.0] * 9])
    cqt = torch.arange(6.0).expand(2, 3, 6)  # frame 1 is of samples 2 and 3, frame 5 of what follows the last
    taken = skip_silence(cqt, waveform, hop_length=2)
    assert taken[0].tolist() == [[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]] * 3
    assert taken[1].tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 0.0]] * 3
    torch.testing.assert_close(skip_silence(cqt[:1], torch.zeros(1, 10), 2), cqt[:1])


def test_a_recording_begins_with_its_first_sound_where_silence_is_skipped():
    front_end, kept = (WaveformToCQT(FrontEnd(time_pooling=20, silence=silence)) for silence in ("skipped", "kept"))
    music, silence = torch.from_numpy(noise(6))[None], torch.zeros(1, 100 * 512)
    late, early = torch.cat([silence, music], dim=1), torch.cat([music, silence], dim=1)
    torch.testing.assert_close(front_end(late), front_end(early), atol=0.02, rtol=0)
    assert (kept(late) - kept(early)).abs().max() > 0.5
    torch.testing.assert_close(front_end(late)[:, :, :12], kept(music)[:, :, :12], atol=0.02, rtol=0)


def test_pooling_is_a_block_mean_that_drops_the_partial_block():
    cqt = torch.arange(7.0).expand(1, 84, 7)
    assert pool_time(cqt, 3)[0, 0].tolist() == [1.0, 4.0]  # (0+1+2)/3, (3+4+5)/3, 6 dropped


@pytest.mark.parametrize(
    ("scale", "half"), [("linear", 0.5), ("sqrt", math.sqrt(0.5)), ("log", math.log(51) / math.log(101))]
)
def test_scale_maps_the_maximum_to_one_and_is_gain_invariant(scale, half):
    cqt = torch.tensor([[[2.0, 1.0, 0.0]]])
    expected = torch.tensor([[[1.0, half, 0.0]]])
    torch.testing.assert_close(scale_magnitude(cqt, scale), expected)
    torch.testing.assert_close(scale_magnitude(cqt * 1e-3, scale), expected)


def test_silence_gives_zeros_not_nan():
    assert not WaveformToCQT(FrontEnd(time_pooling=20))(torch.zeros(1, 22_050)).any()
