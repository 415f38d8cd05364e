"""Singers sing words: measured syllables, another for every note, at the pitch that is written."""

from __future__ import annotations

from dataclasses import replace

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.songs.arrange.arrangement import Part, arrange
from bytecover2_milvus.songs.arrange.performance import NOTE_DTYPE
from bytecover2_milvus.songs.instruments import INSTRUMENTS, Instrument
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.render.renderer import _stem
from bytecover2_milvus.songs.syllables import BANDS_HZ, Syllable, syllables

VOICES = sorted(syllables())


def singer(voice: str, words: tuple[Syllable, ...] | None = None) -> Instrument:
    """One who shakes no tone."""
    return replace(INSTRUMENTS["voice"], words=words or syllables()[voice], vibrato_cents=0.0)


def named(voice: str, name: str) -> Syllable:
    [syllable] = [syllable for syllable in syllables()[voice] if syllable.name == name]
    return syllable


def level_db(voice: str, vowel: str, low_hz: float, high_hz: float) -> float:
    """Of the mean over all syllables that end in a vowel."""
    levels = np.mean([syllable.vowel[1] for syllable in syllables()[voice] if syllable.name.endswith(vowel)], axis=0)
    within = (low_hz <= BANDS_HZ) & (high_hz >= BANDS_HZ)
    return float(10 * np.log10(np.mean(10 ** (levels[within] / 10))))


@pytest.mark.parametrize("voice", VOICES)
def test_vowels_have_the_formants_of_vowels_and_sibilants_hiss(voice: str) -> None:
    for close in "iu":  # the first formant of open vowels is higher
        assert min(level_db(voice, vowel, 600, 1100) for vowel in "ao") > level_db(voice, close, 600, 1100) + 5
    for front in "ie":  # and so is the second of front vowels
        assert level_db(voice, front, 1900, 3500) > level_db(voice, "o", 1900, 3500) + 8
    assert named(voice, "sa").consonant_s > 0.05 and named(voice, "ma").consonant_s < 0.02
    hiss = named(voice, "shi").consonant
    assert hiss[BANDS_HZ > 2500].max() > hiss[BANDS_HZ < 1000].max() + 10


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("pitch", [48, 57, 64.5, 76])
def test_a_word_is_sung_at_its_pitch_as_long_as_its_note(voice: str, pitch: float) -> None:
    rng = np.random.default_rng(1)
    tones = [singer(voice).tone(pitch, SAMPLE_RATE, 0.0, rng) for _ in range(6)]
    for tone in tones:
        assert tone.shape == (SAMPLE_RATE,) and np.isfinite(tone).all()
        middle = tone[SAMPLE_RATE // 3 : -SAMPLE_RATE // 6] * np.hanning(
            SAMPLE_RATE - SAMPLE_RATE // 3 - SAMPLE_RATE // 6
        )
        spectrum = np.abs(np.fft.rfft(middle, 2**17))
        hz = np.fft.rfftfreq(2**17, 1 / SAMPLE_RATE)
        expected = librosa.midi_to_hz(pitch) * np.arange(1, 6)
        for harmonic in expected:
            near = np.abs(hz - harmonic) < 0.4 * expected[0]
            if spectrum[near].max() > 0.1 * spectrum.max():
                assert abs(1200 * np.log2(hz[near][spectrum[near].argmax()] / harmonic)) < 10  # cents
    for short in (1, 2, 30, 700):
        assert singer(voice).tone(pitch, short, 0.0, rng).shape == (short,)


def test_the_consonant_comes_before_the_vowel() -> None:
    syllable = named(VOICES[0], "sa")
    tone = singer(VOICES[0], (syllable,)).tone(57, SAMPLE_RATE, 0.0, np.random.default_rng(0))
    bands = [np.abs(np.fft.rfft(part)) ** 2 for part in (tone[200:1200], tone[8000:9000])]
    hz = np.fft.rfftfreq(1000, 1 / SAMPLE_RATE)
    shares = [power[hz > 2500].sum() / power.sum() for power in bands]
    assert shares[0] > 0.6 and shares[1] < 0.1


def test_every_note_of_a_singer_has_its_own_word_and_keeps_it_in_an_excerpt() -> None:
    notes = np.array([(0.5 * i, 0.4, 60.0, 1.0, 0.0) for i in range(8)], dtype=NOTE_DTYPE)
    seed = next(s for s in range(20) if INSTRUMENTS["voice"].played_by(np.random.default_rng(s)).words)
    plain = next(s for s in range(20) if not INSTRUMENTS["voice"].played_by(np.random.default_rng(s)).words)

    def played(seed: int, seconds: float) -> NDArray[np.float32]:
        part = Part("lead", "voice", "", notes, 1.0)
        return _stem(part, 0.0, int(seconds * SAMPLE_RATE), np.random.default_rng(seed))

    def distinct(stem: NDArray[np.float32]) -> int:
        tones = stem.reshape(8, -1)[:, :7000]
        return len(np.unique((np.corrcoef(tones) > 0.99).argmax(axis=1)))

    assert distinct(played(seed, 4.0)) >= 6 and distinct(played(plain, 4.0)) == 1
    whole, part = played(seed, 4.0), played(seed, 1.5)
    assert np.corrcoef(whole[: len(part)], part)[0, 1] > 0.9999


def sung_lead(seed: int) -> Part:
    """The lead of an arrangement of a traditional song that a voice sings."""
    for song in traditional_songs():
        for part in arrange(song, seed).parts:
            if part.role == "lead" and part.instrument == "voice" and len(part.notes) > 20:
                return part
    raise AssertionError("no voice leads")


def test_a_sung_line_is_heard_at_its_pitch() -> None:
    """As pYIN hears it: 9 in 10 frames of notes that do not slide are within 50 cents, vibrato and all."""
    part = sung_lead(3)
    seed = next(s for s in range(20) if INSTRUMENTS["voice"].played_by(np.random.default_rng(s)).words)
    seconds = float(part.notes["onset_s"][0]) + 15
    stem = _stem(part, 0.0, int(seconds * SAMPLE_RATE), np.random.default_rng(seed))
    heard, voiced, _ = librosa.pyin(stem, fmin=65, fmax=1100, sr=SAMPLE_RATE, hop_length=512, frame_length=2048)
    time_s = librosa.times_like(heard, sr=SAMPLE_RATE, hop_length=512)
    off = []
    for note in part.notes:
        end = note["onset_s"] + note["duration_s"]
        if note["glide"] == 0 and end < seconds:
            inside = (time_s > note["onset_s"] + 0.15) & (time_s < end - 0.03) & voiced
            off += (librosa.hz_to_midi(heard[inside]) - note["pitch"]).tolist()
    assert len(off) > 150
    assert np.mean(np.abs(off) < 0.5) > 0.9
