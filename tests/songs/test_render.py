"""What is rendered is what is written: pitches, lengths, keys, in a waveform that is fit to be heard."""

from __future__ import annotations

from dataclasses import replace

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, arrange
from bytecover2_milvus.songs.arrange.performance import DRUM_DTYPE, NOTE_DTYPE
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.instruments import INSTRUMENTS, Instrument
from bytecover2_milvus.songs.render.renderer import PEAK, render


def _one_note(instrument: str, pitch: float, tuning_cents: float = 0.0) -> Arrangement:
    """Two seconds of one tone after half a second of silence."""
    notes = np.array([(0.5, 2.0, pitch, 1.0, 0.0)], dtype=NOTE_DTYPE)
    part = Part("lead", instrument, "", notes, 1.0)
    return replace(
        arrange(compose(0), 0),
        duration_s=3.0,
        parts=(part,),
        drums=np.zeros(0, dtype=DRUM_DTYPE),
        tuning_cents=tuning_cents,
        fade_out_s=0.0,
    )


def _median_hz(waveform: NDArray[np.float32]) -> float:
    """Of the fundamental, over several turns of a vibrato."""
    return float(np.median(librosa.yin(waveform, fmin=330, fmax=1320, sr=SAMPLE_RATE)))


def test_the_same_arrangement_gives_the_same_samples() -> None:
    arrangement = arrange(compose(1), 2)
    assert np.array_equal(render(arrangement, 20.0), render(arrangement, 20.0))


@pytest.mark.parametrize("seed", range(6))
def test_a_track_is_finite_full_and_as_long_as_written(seed: int) -> None:
    arrangement = arrange(compose(seed), seed)
    waveform = render(arrangement)
    assert waveform.dtype == np.float32
    assert waveform.shape == (round(arrangement.duration_s * SAMPLE_RATE),)
    assert np.all(np.isfinite(waveform))
    assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-4)
    assert abs(waveform.mean()) < 1e-2
    assert np.abs(waveform[-10:]).max() < 0.05  # it has died away


@pytest.fixture
def synthesised(monkeypatch) -> list[int]:
    """Grows by the length, in samples, of every tone that an instrument makes."""
    lengths = []
    tone = Instrument.tone

    def counted(self: Instrument, pitch: float, n_samples: int, *rest: object) -> NDArray[np.float32]:
        lengths.append(n_samples)
        return tone(self, pitch, n_samples, *rest)

    monkeypatch.setattr(Instrument, "tone", counted)
    return lengths


def test_max_duration_cuts_the_track_and_the_work(synthesised) -> None:
    arrangement = arrange(compose(2), 3)
    whole = render(arrangement)
    in_all = sum(synthesised)
    synthesised.clear()
    beginning = render(arrangement, 12.0)
    assert len(beginning) == 12 * SAMPLE_RATE
    assert sum(synthesised) < 0.5 * in_all and max(synthesised) <= 12 * SAMPLE_RATE
    # The balance is not quite the same: how loud a part is, is taken over what is rendered of it.
    assert np.corrcoef(beginning[: 11 * SAMPLE_RATE], whole[: 11 * SAMPLE_RATE])[0, 1] > 0.95


@pytest.mark.parametrize("instrument", ["flute", "harp", "square lead", "vibraphone", "whistle"])
@pytest.mark.parametrize("tuning_cents", [0.0, 35.0])
def test_a_note_is_heard_at_its_pitch(instrument: str, tuning_cents: float) -> None:
    waveform = render(_one_note(instrument, 76, tuning_cents))
    heard = _median_hz(waveform[int(0.7 * SAMPLE_RATE) : int(2.4 * SAMPLE_RATE)])
    written = 440 * 2 ** ((76 - 69 + tuning_cents / 100) / 12)
    assert 1200 * abs(np.log2(heard / written)) < 12  # cents


@pytest.mark.parametrize("name", sorted(INSTRUMENTS))
def test_tones_are_harmonic(name: str) -> None:
    """Nine tenths of a steady tone's energy lies within half a semitone of the harmonics of its pitch."""
    instrument = INSTRUMENTS[name]
    pitch = (instrument.lowest + instrument.highest) // 2
    tone = instrument.tone(pitch, SAMPLE_RATE, 0.0, np.random.default_rng(0))[1000:]
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)))) ** 2
    hz = np.fft.rfftfreq(len(tone), 1 / SAMPLE_RATE)[1:]
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    number = np.maximum(1, np.round(hz / frequency))
    near = np.abs(12 * np.log2(hz / (number * frequency))) < 0.5
    assert power[1:][near].sum() > 0.9 * power[1:].sum()


def test_silence_comes_before_the_first_note() -> None:
    waveform = render(_one_note("piano", 60))
    before = np.abs(waveform[: int(0.4 * SAMPLE_RATE)]).max()
    assert before < 1e-3


@pytest.mark.parametrize("instrument", ["voice", "organ", "violin", "piano", "synth pad"])
def test_no_tone_ends_with_a_click(instrument: str) -> None:
    """After the release the largest step between samples is no larger than within the tone."""
    waveform = render(_one_note(instrument, 64))
    steps = np.abs(np.diff(waveform))
    assert steps[int(2.5 * SAMPLE_RATE) :].max() <= 1.1 * steps[int(0.6 * SAMPLE_RATE) : int(2.4 * SAMPLE_RATE)].max()


@pytest.mark.parametrize("semitones", [-4, 3, 6])
def test_transposing_the_notes_turns_the_chroma(semitones: int) -> None:
    """The chroma of the transposed arrangement, through librosa's CQT, is the chroma turned by that many semitones."""
    arrangement = arrange(compose(6), 0)
    clean = tuple(replace(part, instrument="electric piano") for part in arrangement.parts)
    arrangement = replace(arrangement, parts=clean, drums=np.zeros(0, dtype=DRUM_DTYPE))
    parts = []
    for part in arrangement.parts:
        notes = part.notes.copy()
        notes["pitch"] += semitones
        parts.append(replace(part, notes=notes))
    chroma = _mean_chroma(arrangement)
    moved = _mean_chroma(replace(arrangement, parts=tuple(parts)))
    agreement = [np.corrcoef(np.roll(chroma, shift), moved)[0, 1] for shift in range(12)]
    assert np.argmax(agreement) == semitones % 12
    assert max(agreement) > 0.6  # the room and its equaliser stay where they are


def _mean_chroma(arrangement: Arrangement) -> NDArray[np.float64]:
    cqt = np.abs(librosa.cqt(render(arrangement, 30.0), sr=SAMPLE_RATE))  # (84, n_frames)
    return cqt.mean(axis=1).reshape(7, 12).sum(axis=0)


def test_the_melody_can_be_heard_over_the_band() -> None:
    """While a lead note sounds, its pitch class is nearly always louder in the CQT than half of all pitch classes."""
    louder = []
    for seed in range(10, 16):
        arrangement = replace(arrange(compose(seed), 1), tuning_cents=0.0)
        cqt = np.abs(librosa.cqt(render(arrangement, 40.0), sr=SAMPLE_RATE))
        chroma = cqt.reshape(7, 12, -1).sum(axis=0)  # (12, n_frames)
        lead = next(part for part in arrangement.parts if part.role == "lead").notes
        for note in lead[(lead["onset_s"] < 38) & (lead["duration_s"] > 0.2)]:
            frames = slice(*(int(t * SAMPLE_RATE / 512) for t in (note["onset_s"] + 0.05, note["onset_s"] + 0.2)))
            now = chroma[:, frames].mean(axis=1)
            louder.append(now[round(float(note["pitch"])) % 12] > np.median(now))
    assert len(louder) > 100
    assert np.mean(louder) > 0.85


def test_every_pitch_of_a_part_is_synthesised_once(synthesised) -> None:
    """What makes rendering fast: a track has many more notes than tones. Singers of words sing most notes anew."""
    arrangement = arrange(compose(3), 0)
    parts = tuple(part for part in arrangement.parts if not INSTRUMENTS[part.instrument].lyrics)
    arrangement = replace(arrangement, parts=parts)
    render(arrangement)
    tones = sum(len(np.unique(part.notes[["pitch", "glide"]])) for part in arrangement.parts)
    assert len(synthesised) == tones < 0.5 * sum(len(part.notes) for part in arrangement.parts)
