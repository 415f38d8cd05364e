"""The benchmark of robustness does to music what it says it does, and states losses that can be checked by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import held_out
from benchmarks.robustness.distortions import DISTORTIONS, MIDDLE, SEVERITIES, lowered
from benchmarks.robustness.severity import (
    BOTH,
    CLEAN,
    STORED,
    VECTOR,
    Heard,
    loss_interval,
    main,
    precisions,
    scores_of,
)
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont

CAN_PLAY = shutil.which("fluidsynth") and any(SOUNDFONTS.glob("*.sf2"))
HEARD_ALONE = [kind for kind, distortion in DISTORTIONS.items() if distortion.change]


def tone(hz: float, duration_s: float = 4.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def changed(kind: str, severity: str, waveform: np.ndarray, seed: int = 0) -> np.ndarray:
    distortion = DISTORTIONS[kind]
    assert distortion.change is not None
    return distortion.change(waveform, distortion.steps[SEVERITIES.index(severity)], np.random.default_rng(seed))


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def hz_of(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(waveform))


@pytest.mark.parametrize("kind", HEARD_ALONE)
def test_a_distortion_is_the_same_each_time_and_changes_the_samples(kind: str) -> None:
    waveform = tone(220) * np.linspace(0.5, 1, 4 * SAMPLE_RATE, dtype=np.float32)
    for severity in SEVERITIES:
        first, second = (changed(kind, severity, waveform) for _ in range(2))
        assert np.array_equal(first, second) and not np.array_equal(first, waveform)
        assert first.dtype == np.float32 and np.isfinite(first).all() and first.ndim == 1


@pytest.mark.parametrize("kind", ["room", "crowd", "noise"])
def test_what_is_added_has_the_level_that_is_stated(kind: str) -> None:
    waveform = tone(330)
    for severity, level_db in zip(SEVERITIES, DISTORTIONS[kind].steps, strict=True):
        added = changed(kind, severity, waveform) - waveform
        assert 20 * np.log10(rms(added) / rms(waveform)) == pytest.approx(level_db, abs=0.01)


def test_a_telephone_keeps_its_band_only() -> None:
    for severity, low_hz in zip(SEVERITIES, DISTORTIONS["telephone"].steps, strict=True):
        inside, below = (rms(changed("telephone", severity, tone(hz))) / rms(tone(hz)) for hz in (1000, low_hz / 2))
        assert inside == pytest.approx(1, abs=0.05) and below < 0.1


def test_opposite_channels_cancel_as_their_delay_says() -> None:
    late_s = round(0.0003 * SAMPLE_RATE) / SAMPLE_RATE
    for severity, level_db in zip(SEVERITIES, DISTORTIONS["antiphase"].steps, strict=True):
        for hz in (100.0, 1000.0):
            left = abs(1 - 10 ** (level_db / 20) * np.exp(-2j * np.pi * hz * late_s))
            assert rms(changed("antiphase", severity, tone(hz))) / rms(tone(hz)) == pytest.approx(left, rel=0.02)


def test_pitch_tempo_and_speed_change_what_they_say() -> None:
    for seed in (0, 1, 2):
        pitched, slower, faster = (changed(kind, "moderate", tone(440), seed) for kind in ("pitch", "tempo", "speed"))
        assert abs(12 * np.log2(hz_of(pitched) / 440)) == pytest.approx(3, abs=0.1)
        assert len(pitched) == pytest.approx(4 * SAMPLE_RATE, rel=1e-3)
        assert abs(np.log(len(slower) / (4 * SAMPLE_RATE))) == pytest.approx(np.log(1.15), rel=1e-3)
        assert hz_of(slower) == pytest.approx(440, abs=3)
        ratio = 4 * SAMPLE_RATE / len(faster)
        assert abs(np.log(ratio)) == pytest.approx(np.log(1.04), rel=1e-3)
        assert hz_of(faster) == pytest.approx(440 * ratio, abs=1)


def test_a_loud_master_is_cut_off_and_silence_is_silent() -> None:
    waveform = tone(440)
    shares = [np.mean(np.abs(changed("loudness", severity, waveform)) == 1) for severity in SEVERITIES]
    assert shares == sorted(shares) and shares[0] > 0.5  # a sine is above half its peak for two thirds of the time
    padded = changed("silence", "moderate", waveform)
    assert np.array_equal(padded[5 * SAMPLE_RATE : -5 * SAMPLE_RATE], waveform)
    assert not padded[: 5 * SAMPLE_RATE].any() and not padded[-5 * SAMPLE_RATE :].any()


def test_without_its_middle_a_band_plays_on_at_the_sides() -> None:
    band = next(a for a in map(lambda s: arrange(traditional_songs()[0], s), range(20)) if len(a.parts) > 2)
    sides = lowered(band, -20)
    assert {part.role for part in band.parts} & MIDDLE
    for before, after in zip(band.parts, sides.parts, strict=True):
        assert after.gain == pytest.approx(before.gain * (0.1 if before.role in MIDDLE else 1))
        assert np.array_equal(before.notes, after.notes)
    assert sides.drum_gain == pytest.approx(band.drum_gain / 10)


def unit(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def test_precisions_and_losses_are_those_of_a_hand() -> None:
    noise = ("noise", "moderate")
    heard = [
        Heard("cre", "v", "0", {STORED: (unit(0), None), (CLEAN, ""): (unit(0), None), noise: (unit(80), None)}),
        Heard("cre", "v", "1", {STORED: (unit(20), None)}),
        Heard("cre", "w", "2", {STORED: (unit(60), None), (CLEAN, ""): (unit(60), None), noise: (unit(50), None)}),
        Heard("cre", "w", "3", {STORED: (unit(95), None)}),
    ]
    found = precisions(heard)
    assert {system for _, system in found} == {VECTOR}  # no second stage without chroma
    # Clean, the query at 0 meets its cover at 20 first, and that at 60 its own at 95, which is 35 off.
    assert found[(CLEAN, ""), VECTOR] == {("v", "0"): 1.0, ("w", "2"): 1.0}
    # Noisy, at 80, the first meets 95 and 60 before 20; the second, at 50, meets 20 (30 off) before 95 (45 off).
    assert found[noise, VECTOR] == {("v", "0"): pytest.approx(1 / 3), ("w", "2"): 0.5}
    clean, noisy = scores_of(heard)
    assert (clean.map, clean.loss, clean.sets) == (1, 0, {"cre": 1.0})
    assert noisy.map == pytest.approx(5 / 12) and noisy.clean_map == 1
    assert noisy.loss == pytest.approx(7 / 12)
    assert (noisy.loss_low, noisy.loss_high) == pytest.approx((1 / 2, 2 / 3))


def test_the_interval_of_a_loss_draws_works() -> None:
    pairs = np.array([[0.5, 1.0], [0.5, 1.0], [0.25, 0.5]])
    assert loss_interval(pairs, ["a", "a", "b"], seed=0) == (0.5, 0.5)
    low, high = loss_interval(np.array([[0.0, 1.0], [1.0, 1.0]]), ["a", "b"], seed=0)
    assert (low, high) == (0, 1)


@pytest.mark.skipif(not CAN_PLAY, reason="needs apt-get install fluidsynth timgm6mb-soundfont")
def test_the_command_writes_json_a_table_and_a_plot(
    tiny_notes_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "LONGEST_S", 12.0)
    kinds = ("noise", "vocals removed")
    arguments = [*("--sets", "traditional", "--works", 2, "--tracks", 2, "--workers", 1, "--seconds", 10)]
    arguments += ["--bundle", tiny_notes_bundle, "--cache", tmp_path, "--soundfont", find_soundfont()]
    arguments += [word for kind in kinds for word in ("--distortions", kind)]
    arguments += ["--markdown", tmp_path / "table.md", "--plot", tmp_path / "plot.png"]
    done = CliRunner().invoke(main, [str(word) for word in arguments])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    what = [(row["distortion"], row["severity"]) for row in rows if row["system"] == BOTH]
    assert what == [(CLEAN, ""), *((kind, severity) for kind in kinds for severity in SEVERITIES)]
    assert [row for row in rows if row["system"] == VECTOR and row["queries"] == 2] and len(rows) == 2 * len(what)
    assert all(row["loss"] == pytest.approx(1 - row["map"] / row["clean_map"]) for row in rows)
    assert (tmp_path / "table.md").read_text().count("| vocals removed |") == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
