"""A sound font plays what is written: pitches, beginnings, levels, the same samples each time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, arrange
from bytecover2_milvus.songs.arrange.drums import DRUM_SOUNDS
from bytecover2_milvus.songs.arrange.performance import DRUM_DTYPE, NOTE_DTYPE
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.instruments import INSTRUMENTS
from bytecover2_milvus.songs.render import soundfont as sf
from bytecover2_milvus.songs.render.midi_events import DRUM_KEYS, PROGRAMS
from bytecover2_milvus.songs.render.renderer import PEAK
from bytecover2_milvus.songs.render.soundfont import find_soundfont, play, render_with_soundfont

CAN_PLAY = shutil.which("fluidsynth") and any(sf.SOUNDFONTS.glob("*.sf2"))
plays = pytest.mark.skipif(not CAN_PLAY, reason="needs apt-get install fluidsynth timgm6mb-soundfont")


def _arrangement(instrument: str, *notes: tuple[float, float, float, float, float], **facts: float) -> Arrangement:
    """Three seconds of these notes, as (onset_s, duration_s, pitch, velocity, glide), and nothing else."""
    part = Part("lead", instrument, "", np.array(list(notes), dtype=NOTE_DTYPE), 1.0)
    silent = {"drums": np.zeros(0, dtype=DRUM_DTYPE), "tuning_cents": 0.0, "fade_out_s": 0.0, "duration_s": 3.0}
    return replace(arrange(compose(0), 0), parts=(part,), **(silent | facts))


def _strongest_hz(waveform: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 2**18))
    return float(np.argmax(spectrum) * SAMPLE_RATE / 2**18)


def _between(waveform: NDArray[np.float32], start_s: float, end_s: float) -> NDArray[np.float32]:
    return waveform[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]


def test_every_instrument_and_drum_has_its_programs() -> None:
    assert set(PROGRAMS) == set(INSTRUMENTS)
    assert set(DRUM_KEYS) == set(DRUM_SOUNDS)
    assert all(0 <= number <= 127 for numbers in (*PROGRAMS.values(), *DRUM_KEYS.values()) for number in numbers)
    assert all(PROGRAMS.values()) and all(DRUM_KEYS.values())


@plays
def test_the_same_arrangement_gives_the_same_samples() -> None:
    arrangement, font = arrange(compose(1), 2), find_soundfont()
    waveform = render_with_soundfont(arrangement, font, 10.0)
    assert np.array_equal(waveform, render_with_soundfont(arrangement, font, 10.0))
    other = render_with_soundfont(replace(arrangement, seed=3), font, 10.0)
    assert not np.array_equal(waveform, other)  # other players


@plays
@pytest.mark.parametrize("seed", range(3))
def test_a_track_is_finite_full_and_as_long_as_written(seed: int) -> None:
    arrangement = arrange(compose(seed), seed)
    waveform = render_with_soundfont(arrangement, find_soundfont())
    assert waveform.dtype == np.float32
    assert waveform.shape == (round(arrangement.duration_s * SAMPLE_RATE),)
    assert np.all(np.isfinite(waveform))
    assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-4)
    assert np.abs(waveform[-10:]).max() < 0.05  # it has died away
    assert np.mean(np.abs(waveform) > 0.999 * PEAK) < 1e-4  # not clipped


@plays
def test_max_duration_gives_the_beginning() -> None:
    arrangement, font = replace(arrange(compose(2), 3), fade_out_s=0.0), find_soundfont()
    beginning, more = (render_with_soundfont(arrangement, font, s) for s in (6.0, 9.0))
    assert (len(beginning), len(more)) == (6 * SAMPLE_RATE, 9 * SAMPLE_RATE)
    assert np.corrcoef(beginning, more[: len(beginning)])[0, 1] > 0.9999


@plays
@pytest.mark.parametrize("pitch", [76.0, 76.3, 75.6])
@pytest.mark.parametrize("tuning_cents", [0.0, 35.0])
def test_a_note_is_heard_at_its_pitch(pitch: float, tuning_cents: float) -> None:
    arrangement = _arrangement("whistle", (0.5, 2.0, pitch, 1.0, 0.0), tuning_cents=tuning_cents)
    heard = _strongest_hz(_between(render_with_soundfont(arrangement, find_soundfont()), 0.9, 2.4))
    written = 440 * 2 ** ((pitch - 69 + tuning_cents / 100) / 12)
    assert 1200 * abs(np.log2(heard / written)) < 15  # cents; the fonts themselves are not in tune to the cent


@plays
def test_a_slide_comes_from_below_and_arrives() -> None:
    arrangement = _arrangement("square lead", (0.5, 2.0, 76, 1.0, -3.0))
    waveform = render_with_soundfont(arrangement, find_soundfont())
    semitones = [
        12 * np.log2(_strongest_hz(_between(waveform, start_s, start_s + 0.05)) / 659.26) % 12
        for start_s in (0.51, 1.5)  # modulo the octave that a program may add
    ]
    assert semitones[0] == pytest.approx(10, abs=1.2)
    assert min(semitones[1], 12 - semitones[1]) < 0.3


@plays
def test_a_note_begins_when_it_is_written_and_is_as_loud() -> None:
    notes = ((0.5, 0.4, 60, 0.5, 0.0), (1.5, 0.4, 60, 1.0, 0.0))
    waveform = render_with_soundfont(_arrangement("piano", *notes), find_soundfont())
    loud = np.abs(waveform) > 0.02
    assert np.argmax(loud) / SAMPLE_RATE == pytest.approx(0.5, abs=0.02)
    soft, plain = (np.sqrt(np.mean(_between(waveform, s, s + 0.3) ** 2)) for s in (0.5, 1.5))
    assert 1.6 < plain / soft < 4.5  # about twice, and some fonts also play softly what is soft


@plays
def test_a_string_that_is_struck_again_sounds_on() -> None:
    notes = ((0.5, 1.0, 60, 1.0, 0.0), (1.0, 1.5, 60, 1.0, 0.0))  # the first ends amid the second
    waveform = render_with_soundfont(_arrangement("organ", *notes), find_soundfont())
    assert np.sqrt(np.mean(_between(waveform, 1.8, 2.4) ** 2)) > 0.3 * np.sqrt(
        np.mean(_between(waveform, 1.1, 1.4) ** 2)
    )


@plays
@pytest.mark.parametrize("sound", range(len(DRUM_SOUNDS)))
def test_drums_are_heard(sound: int) -> None:
    hits = np.array([(0.5, sound, 1.0)], dtype=DRUM_DTYPE)
    arrangement = replace(_arrangement("piano", (2.5, 0.2, 60, 0.01, 0.0)), drums=hits, drum_gain=0.9)
    waveform = render_with_soundfont(arrangement, find_soundfont(), 2.0)
    assert np.argmax(np.abs(waveform) > 0.05) / SAMPLE_RATE == pytest.approx(0.5, abs=0.03)


@plays
def test_a_midi_file_is_played_at_its_tempo() -> None:
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])  # a beat is a second
    track.append(mido.Message("program_change", program=80))
    track += [mido.Message("note_on", note=69, time=480), mido.Message("note_off", note=69, time=480)]
    waveform = play(mido.MidiFile(ticks_per_beat=480, tracks=[track]), find_soundfont(), reverb=False)
    assert len(waveform) == 4 * SAMPLE_RATE  # two beats and the tail
    assert np.abs(_between(waveform, 0, 0.9)).max() < 1e-3
    assert _strongest_hz(_between(waveform, 1.1, 1.9)) % 440 == pytest.approx(0, abs=3)
    assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-4)
    short = play(mido.MidiFile(ticks_per_beat=480, tracks=[track]), find_soundfont(), max_duration_s=1.5)
    assert len(short) == round(1.5 * SAMPLE_RATE)


@plays
def test_a_note_without_an_end_does_not_sound_for_ever() -> None:
    track = mido.MidiTrack([mido.Message("program_change", program=16), mido.Message("note_on", note=69)])
    assert len(play(mido.MidiFile(tracks=[track]), find_soundfont())) == 2 * SAMPLE_RATE


@plays
def test_a_midi_file_without_notes_is_silence() -> None:
    assert not play(mido.MidiFile(tracks=[mido.MidiTrack()]), find_soundfont()).any()


def test_several_songs_in_one_file_are_refused() -> None:
    with pytest.raises(SongError, match="type 2"):
        play(mido.MidiFile(type=2), Path("none.sf2"))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sf, "SOUNDFONTS", tmp_path)
    with pytest.raises(SongError, match=r"apt-get install fluidsynth fluid-soundfont-gm .or timgm6mb-soundfont"):
        find_soundfont()
    with pytest.raises(SongError, match="cannot be read"):
        find_soundfont(tmp_path / "absent.sf2")
    (tmp_path / "noise.sf2").write_bytes(b"RIFF and then noise")
    with pytest.raises(SongError, match="not a SoundFont 2 file"):
        find_soundfont(tmp_path / "noise.sf2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SongError, match="FluidSynth is missing: apt-get install fluidsynth"):
        play(mido.MidiFile(tracks=[mido.MidiTrack()]), tmp_path / "noise.sf2")


@plays
def test_a_damaged_font_is_an_error_and_not_silence(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sf2"
    damaged.write_bytes(find_soundfont().open("rb").read(4096))
    with pytest.raises(SongError, match=r"damaged\.sf2"):
        render_with_soundfont(_arrangement("piano", (0.5, 1.0, 60, 1.0, 0.0)), damaged)
