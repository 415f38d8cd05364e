"""Degradations: each does what it says, none leaves anything else behind."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bytecover2_milvus.audio.codec import encode_decode
from bytecover2_milvus.audio.degrade import DEGRADATIONS, LONGEST_CHAIN, _read_at, degrade, retune
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render


@pytest.fixture(scope="module")
def music() -> np.ndarray:
    return render(arrange(compose(5), seed=4), max_duration_s=22)


def tone(hz: float, duration_s: float = 10.0) -> np.ndarray:
    time_s = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def power(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Energy between two frequencies."""
    hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return float(np.sum(np.abs(np.fft.rfft(waveform)[(hz >= low_hz) & (hz < high_hz)]) ** 2))


def frequency(waveform: np.ndarray) -> float:
    """Hz of a lone tone, from the phase by which its spectral peak advances in ten samples."""
    window = np.hanning(len(waveform) - 10)
    early, late = (np.fft.rfft(window * waveform[at : at + len(window)]) for at in (0, 10))
    peak = np.abs(early).argmax()
    return float(np.angle(late[peak] / early[peak]) * SAMPLE_RATE / (2 * np.pi * 10))


def lag(late: np.ndarray, early: np.ndarray) -> int:
    """Samples by which `late` is behind, at the largest cross-correlation."""
    n_fft = 2 ** (len(late) + len(early)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(late, n_fft) * np.conj(np.fft.rfft(early, n_fft)))
    at = int(correlation.argmax())
    return at - n_fft if at > n_fft // 2 else at


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_same_generator_same_samples_and_the_input_is_left_alone(kind, music):
    before = music.copy()
    one, again, other = (DEGRADATIONS[kind](music, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(music, before)
    assert np.array_equal(one, again) and one.dtype == np.float32 and np.isfinite(one).all()
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, music)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_one_second_and_silence_pass(kind, music):
    for waveform in (music[:SAMPLE_RATE], np.zeros(SAMPLE_RATE, dtype=np.float32)):
        for seed in range(12):
            degraded = DEGRADATIONS[kind](waveform, np.random.default_rng(seed))
            assert degraded.ndim == 1 and len(degraded) > 0.9 * SAMPLE_RATE and np.isfinite(degraded).all()


@pytest.mark.parametrize("kind", sorted(DEGRADATIONS.keys() - {"tuning", "tape", "excerpt", "silence"}))
def test_most_keep_length_and_alignment(kind, music):
    for seed in range(3):
        degraded = DEGRADATIONS[kind](music, np.random.default_rng(seed))
        assert len(degraded) == len(music)
        if kind != "room":  # whose echoes may outweigh the direct sound
            assert abs(lag(degraded[: 2**17], music[: 2**17])) <= (20 if kind == "band" else 1)


@pytest.mark.parametrize(("name", "bit_rate"), [("libmp3lame", 96_000), ("aac", 96_000), ("libopus", 64_000)])
def test_codecs_align_to_the_sample_and_lose_more_at_low_rates(name, bit_rate, music):
    good, bad = encode_decode(music, name, bit_rate), encode_decode(music, name, bit_rate // 6)
    assert len(good) == len(bad) == len(music)
    assert lag(good, music) == 0 and abs(lag(bad, music)) <= 1
    assert rms(good - music) < 0.2 * rms(music)
    assert rms(bad - music) > 1.5 * rms(good - music)


def test_level_does_not_matter_to_codecs(music):
    np.testing.assert_allclose(encode_decode(16 * music, "aac", 32_000), 16 * encode_decode(music, "aac", 32_000))


@pytest.mark.parametrize("cents", [-50, -7, 0, 31, 50])
def test_retuning_moves_a_tone_by_the_cents(cents):
    tuned = retune(tone(440), cents)
    assert 1200 * np.log2(frequency(tuned) / 440) == pytest.approx(cents, abs=0.1)
    assert len(tuned) == pytest.approx(10 * SAMPLE_RATE / 2 ** (cents / 1200), abs=1)


def test_tuning_stays_within_half_a_semitone_and_tape_within_one():
    drawn = {
        kind: [
            1200 * np.log2(10 * SAMPLE_RATE / len(DEGRADATIONS[kind](tone(440), np.random.default_rng(seed))))
            for seed in range(30)
        ]
        for kind in ("tuning", "tape")
    }
    assert 35 < np.max(np.abs(drawn["tuning"])) <= 50.1
    assert 70 < np.max(np.abs(drawn["tape"])) <= 100.1


def test_tape_reads_between_the_samples():
    position = np.linspace(10, 20_000, 12_345)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * position / SAMPLE_RATE)
    assert np.abs(_read_at(tone(1000), position) - expected).max() < 2e-3  # -48 dB at 1 kHz


def test_tape_wavers():
    """The pitch of half-second pieces, which in a steady tone is the same to a thousandth of a cent."""
    for seed in range(4):
        wavering = DEGRADATIONS["tape"](tone(1000), np.random.default_rng(seed))
        pieces = [frequency(wavering[at : at + 11_000]) for at in range(0, len(wavering) - 11_000, 3000)]
        assert 1 < 1200 * np.log2(max(pieces) / min(pieces)) < 40  # cents


def test_clipping_never_exceeds_and_softens_what_it_cuts(music):
    for seed in range(8):
        clipped = DEGRADATIONS["clipping"](music, np.random.default_rng(seed))
        assert np.abs(clipped).max() < np.abs(music).max()
        assert (np.abs(clipped) <= np.abs(music) + 1e-6).all()


def test_silence_is_silent_and_only_at_the_ends(music):
    padded = DEGRADATIONS["silence"](music, np.random.default_rng(2))
    start = lag(padded, music)
    assert 0 < start <= 5 * SAMPLE_RATE and len(padded) - start - len(music) <= 5 * SAMPLE_RATE
    assert not padded[:start].any() and not padded[start + len(music) :].any()
    assert np.array_equal(padded[start : start + len(music)], music)


def test_an_excerpt_is_a_stretch_of_at_least_20_s(music):
    for seed in range(5):
        part = DEGRADATIONS["excerpt"](music, np.random.default_rng(seed))
        assert 20 * SAMPLE_RATE <= len(part) <= len(music)
        assert np.array_equal(part, music[(at := lag(part, music) * -1) : at + len(part)])


def test_noise_is_5_to_35_db_below_the_music(music):
    for seed in range(12):
        added = DEGRADATIONS["noise"](music, np.random.default_rng(seed)) - music
        assert 4.9 < 20 * np.log10(rms(music) / rms(added)) < 35.1


def test_a_room_goes_on_sounding_after_a_click():
    click = np.zeros(SAMPLE_RATE, dtype=np.float32)
    click[1000] = 1
    for seed in range(8):
        heard = DEGRADATIONS["room"](click, np.random.default_rng(seed))
        assert np.abs(heard[:1000]).max() < 1e-4  # nothing before the click
        assert heard[1000] == pytest.approx(1, abs=1e-3)
        energy = [np.sum(heard[at : at + 2000] ** 2) for at in (1001, 7001, 13001)]
        assert energy[0] > energy[1] > energy[2]  # it decays


def test_a_compressor_narrows_the_range_and_keeps_the_loudness(music):
    swelling = music * np.linspace(0.05, 1, len(music), dtype=np.float32)
    for seed in range(6):
        compressed = DEGRADATIONS["compression"](swelling, np.random.default_rng(seed))
        third = len(music) // 3
        assert rms(compressed[:third]) / rms(compressed[-third:]) > 1.2 * rms(swelling[:third]) / rms(swelling[-third:])
        assert rms(compressed) == pytest.approx(rms(swelling), rel=1e-3)


def test_bands_cut_both_ends(music):
    hiss = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE, dtype=np.float32)
    for seed in range(8):
        heard = DEGRADATIONS["band"](hiss, np.random.default_rng(seed))
        middle = power(heard, 500, 600)
        assert power(heard, 0, 15) / 15 < 0.3 * middle / 100
        assert middle > 0.1 * power(hiss, 500, 600)


def test_a_remix_changes_the_balance_of_tone_and_click():
    """A steady tone and a click every half second: their ratio moves by 2 to 12 dB, up or down."""
    clicks = np.zeros(10 * SAMPLE_RATE, dtype=np.float32)
    clicks[5000 :: SAMPLE_RATE // 2] = 3.0
    both = tone(440) + clicks
    moved = []
    for seed in range(8):
        mixed = DEGRADATIONS["remix"](both, np.random.default_rng(seed))
        tones, struck = (10 * np.log10(power(mixed, *hz) / power(both, *hz)) for hz in ((430, 450), (3000, 9000)))
        moved.append(tones - struck)
    assert all(2 < abs(db) < 12.5 for db in moved) and min(moved) < 0 < max(moved)


def test_a_crowd_is_loudest_at_an_end_or_talks_below_the_music(music):
    for seed in range(8):
        added = DEGRADATIONS["crowd"](music, np.random.default_rng(seed)) - music
        assert 1e-3 * rms(music) < rms(added) < 2 * rms(music)


def test_a_chain_is_drawn_from_the_kinds_alone_and_follows_the_seed(music):
    assert np.array_equal(degrade(music, 7), degrade(music, np.random.default_rng(7)))
    assert not np.array_equal(degrade(music, 7), degrade(music, 8))
    padded = degrade(music, 1, kinds=["silence"])
    assert np.isin(music[:1000], padded).all() and len(padded) > len(music)
    for seed in range(10):
        assert np.abs(degrade(music, seed)).max() <= 1
    with pytest.raises(ConfigError, match=r"degradations: reverb; choose from .*room"):
        degrade(music, 0, kinds=["reverb"])
    with pytest.raises(ConfigError, match="choose from"):
        degrade(music, 0, kinds=[])


def test_a_chain_has_one_to_five_links_in_their_order(music, monkeypatch):
    met: list[str] = []
    for kind in list(DEGRADATIONS):
        monkeypatch.setitem(DEGRADATIONS, kind, lambda waveform, rng, kind=kind: met.append(kind) or waveform)
    lengths = set()
    for seed in range(60):
        met.clear()
        degrade(music, seed)
        lengths.add(len(met))
        assert met == [kind for kind in DEGRADATIONS if kind in met]
    assert lengths == set(range(1, LONGEST_CHAIN + 1))


def test_a_minute_takes_well_below_a_second_of_one_core(music):
    minute = np.tile(music, 3)[: 60 * SAMPLE_RATE]
    started = time.process_time()
    for seed in range(4):
        degrade(minute, seed)
    assert (time.process_time() - started) / 4 < 1.0
