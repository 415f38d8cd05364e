"""Every format, rate and number of channels gives the same waveform; every way to fail has its error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import encode
from numpy.typing import NDArray

from bytecover2_milvus.audio.load import TruncatedAudio, find_audio, load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import AudioError, EmptyAudio, ShortAudio, SilentAudio, UnreadableAudio

LEVEL = 0.5
FORMATS = ["wav", "flac", "ogg", "opus", "mp3", "aiff", "m4a", "aac", "mka", "webm"]


def tone(rate: int, duration_s: float = 3.0, n_channels: int = 1, frequency: float = 440.0) -> NDArray[np.float32]:
    time_s = np.arange(round(rate * duration_s)) / rate
    mono = LEVEL * np.sin(2 * np.pi * frequency * time_s)
    return np.repeat(mono.astype(np.float32)[:, None], n_channels, axis=1)  # (n_frames, n_channels)


def write(path: Path, samples: NDArray[np.float32], rate: int) -> Path:
    """Encode with libsndfile what it can write and with ffmpeg the rest, chosen by the suffix."""
    codec = {".m4a": "aac", ".aac": "aac", ".mka": "aac", ".webm": "libopus", ".mp4": "aac"}.get(path.suffix)
    if codec is None:
        opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, samples, rate, **opus)
        return path
    return encode(path, samples, rate, codec, options={"movflags": "faststart"} if path.suffix == ".m4a" else {})


def assert_tone(waveform: NDArray[np.float32], duration_s: float = 3.0, slack_s: float = 0.003) -> None:
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert waveform.size / SAMPLE_RATE == pytest.approx(duration_s, abs=slack_s)
    middle = waveform[waveform.size // 4 : 3 * waveform.size // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size), n=2**19))
    assert np.argmax(spectrum) * SAMPLE_RATE / 2**19 == pytest.approx(440, abs=0.2)  # Hz
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(LEVEL, rel=0.03)  # amplitude of a sine from its power


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_tone_keeps_pitch_level_and_length_in_every_format(tmp_path: Path, suffix: str, n_channels: int) -> None:
    path = write(tmp_path / f"tone.{suffix}", tone(48_000, n_channels=n_channels), 48_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a whole file must not be called truncated
        waveform = load_audio(path)
    # AAC fills its last packet of 1024 samples, and a raw stream has no place to state the encoder's delay
    assert_tone(waveform, slack_s={"aac": 0.06, "m4a": 0.03, "mka": 0.03}.get(suffix, 0.003))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_keeps_pitch_level_and_length_at_every_rate(tmp_path: Path, rate: int) -> None:
    assert_tone(load_audio(write(tmp_path / "tone.wav", tone(rate), rate)), slack_s=1 / SAMPLE_RATE)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_tone_keeps_its_level_at_every_bit_depth(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(44_100), 44_100, subtype=subtype)
    assert_tone(load_audio(tmp_path / "tone.wav"))


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_channels_are_averaged(tmp_path: Path, suffix: str) -> None:
    samples = tone(SAMPLE_RATE, n_channels=6)
    samples[:, 3:] = 0  # three of six channels sound
    waveform = load_audio(write(tmp_path / f"surround.{suffix}", samples, SAMPLE_RATE))
    assert np.abs(waveform[SAMPLE_RATE:-SAMPLE_RATE]).max() == pytest.approx(LEVEL / 2, rel=0.02)


def test_nothing_above_the_new_nyquist_frequency_folds_back(tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.wav", tone(44_100) / 2 + tone(44_100, frequency=15_000) / 2, 44_100)
    waveform = load_audio(path)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(waveform.size)))
    folded = round((SAMPLE_RATE - 15_000) * waveform.size / SAMPLE_RATE)  # bin of 7 050 Hz
    assert spectrum[folded - 5 : folded + 6].max() < 1e-4 * spectrum.max()  # -80 dB


def test_block_by_block_equals_all_at_once(shared_data: Path) -> None:
    import soxr

    path = shared_data / "audio" / "Kevin_MacLeod_-_Vibe_Ace.ogg"
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_allclose(load_audio(path), soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE), atol=1e-5)


def test_real_recordings_are_whole_and_survive_conversion(shared_data: Path, tmp_path: Path) -> None:
    recordings = [path for path in find_audio([shared_data / "audio"]) if "trumpet" in path.name]
    assert len(recordings) == 2
    for recording in recordings:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            original = load_audio(recording)
        for suffix in ("flac", "mp3", "m4a"):
            copy = load_audio(write(tmp_path / f"copy.{suffix}", original[:, None], SAMPLE_RATE))
            length = min(copy.size, original.size)
            assert np.corrcoef(copy[:length], original[:length])[0, 1] > 0.99  # so nothing is shifted either


def test_a_pipe_in_a_folder_is_passed_over_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert find_audio([tmp_path]) == [tmp_path / "gone.wav"]


def test_the_audio_of_a_video_is_read(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        audio = container.add_stream("aac", rate=44_100, layout="mono")
        for number in range(100):  # 10 s of picture, 3 s of sound: a soundtrack that ends early is whole
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        samples = tone(44_100)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[start : start + 1024].T.copy(), format="fltp", layout="mono")
            frame.rate, frame.pts = 44_100, start
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_tone(load_audio(path), slack_s=0.03)


@pytest.mark.parametrize("name", ["a song.flac", 'it\'s "so".mp3', "Artist: Title 100%.m4a", "Čarovná 魔笛.ogg"])
def test_any_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    suffix = Path(name).suffix
    shutil.move(write(tmp_path / f"plain{suffix}", tone(44_100), 44_100), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert_tone(load_audio(name), slack_s=0.03)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "ogg", "opus", "mp3", "m4a", "mka"])
def test_a_file_cut_off_gives_what_is_there_and_a_warning(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"tone.{suffix}", tone(48_000, duration_s=10), 48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.warns(TruncatedAudio, match=rf"tone\.{suffix}: cut off or damaged, decoded \d\.\d s"):
        waveform = load_audio(path)
    assert_tone(waveform, duration_s=5.5, slack_s=1.0)  # Ogg loses a page of a second, others a table at the start


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_file_damaged_in_the_middle_gives_what_is_there_and_a_warning(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"tone.{suffix}", tone(48_000, duration_s=10), 48_000)
    content = bytearray(path.read_bytes())
    half, hole = len(content) // 2, len(content) // 10
    content[half : half + hole] = bytes(hole)
    path.write_bytes(content)
    with pytest.warns(TruncatedAudio, match=r"of 10\.0 s"):
        waveform = load_audio(path)
    assert 4 * SAMPLE_RATE < waveform.size < 9.5 * SAMPLE_RATE


def test_an_mp3_under_another_suffix_is_an_mp3(tmp_path: Path) -> None:
    path = write(tmp_path / "tone.mp3", tone(48_000), 48_000)
    assert_tone(load_audio(path.rename(tmp_path / "tone.wav")))


def test_a_variable_rate_mp3_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((44_100 * 2, 1)).astype(np.float32) / 8
    path = write(tmp_path / "song.mp3", np.concatenate([noise, tone(44_100, duration_s=18)]), 44_100)
    content = path.read_bytes()
    assert content[:2] == b"\xff\xfb"
    path.write_bytes(content[content.index(b"\xff\xfb", 2) :])  # without the first frame, which holds the Xing header
    assert load_audio(path).size / SAMPLE_RATE == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_not_truncated(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "pipe.wav", tone(44_100), 44_100)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")  # the encoder could not go back to write the true size
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_tone(load_audio(path))


def without_length(flac: Path) -> bytes:
    """The file as an encoder writes it that cannot go back to its header."""
    content = bytearray(flac.read_bytes())
    content[21] &= 0xF0  # STREAMINFO: the 36 bits of the total number of samples
    content[22:26] = bytes(4)
    return bytes(content)


def test_a_flac_from_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "pipe.flac", tone(44_100), 44_100)
    path.write_bytes(without_length(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_tone(load_audio(path))


@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_sixteen_bits_are_the_same_numbers_as_in_float(tmp_path: Path, n_channels: int) -> None:
    samples = np.random.default_rng(0).integers(-32_768, 32_768, (100_000, n_channels), dtype=np.int16)
    samples[0] = -32_768
    soundfile.write(tmp_path / "short.wav", samples, 44_100, subtype="PCM_16")
    soundfile.write(tmp_path / "float.wav", samples.astype(np.float32) / 32_768, 44_100, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "short.wav"), load_audio(tmp_path / "float.wav"), atol=1e-6)


def test_a_chain_of_streams_may_change_its_rate_and_channels(tmp_path: Path) -> None:
    stereo = write(tmp_path / "a.mp3", tone(44_100, n_channels=2), 44_100).read_bytes()
    mono = write(tmp_path / "b.mp3", tone(32_000), 32_000).read_bytes()
    (tmp_path / "chain.mp3").write_bytes(stereo + mono)
    assert load_audio(tmp_path / "chain.mp3").size / SAMPLE_RATE == pytest.approx(6, abs=0.2)


@pytest.mark.parametrize(("rate", "n_channels"), [(32_000, 2), (44_100, 1)])
def test_a_chain_of_streams_that_are_not_float_may_too(tmp_path: Path, rate: int, n_channels: int) -> None:
    """FLACs one behind the other, as a recorder of a stream writes them."""
    first = without_length(write(tmp_path / "a.flac", tone(44_100, n_channels=2), 44_100))
    second = without_length(write(tmp_path / "b.flac", tone(rate, n_channels=n_channels), rate))
    (tmp_path / "chain.flac").write_bytes(first + second)
    assert load_audio(tmp_path / "chain.flac").size / SAMPLE_RATE == pytest.approx(6, abs=0.1)


def test_not_audio_is_unreadable(tmp_path: Path) -> None:
    random = np.random.default_rng(0).bytes(100_000)
    contents = {"noise.wav": random, "noise.mp3": random, "noise.flac": random, "text.ogg": b"la la la\n" * 99}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableAudio, match=f"{name}: .*; .*export it again"):
            load_audio(tmp_path / name)


def test_samples_without_a_header_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(range(256)) * 16)
    with pytest.raises(UnreadableAudio, match=r"a\.raw"):
        load_audio(tmp_path / "a.raw")


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match=r"gone\.wav: No such file"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(UnreadableAudio, match="Is a directory"):
        load_audio(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_file_is_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "locked.wav", tone(44_100), 44_100).chmod(0)
    with pytest.raises(UnreadableAudio, match="Permission denied"):
        load_audio(tmp_path / "locked.wav")


def test_a_picture_is_not_audio(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "cover.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
    with pytest.raises(UnreadableAudio, match=r"cover\.png: not audio"):
        load_audio(tmp_path / "cover.png")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_samples_are_unreadable(tmp_path: Path, value: float) -> None:
    samples = tone(44_100)
    samples[50_000] = value
    soundfile.write(tmp_path / "bad.wav", samples, 44_100, subtype="FLOAT")
    with pytest.raises(UnreadableAudio, match="NaN or infinite"):
        load_audio(tmp_path / "bad.wav")


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_audio_without_samples_is_empty(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(EmptyAudio, match="no samples"):
        load_audio(write(tmp_path / f"empty.{suffix}", tone(44_100, duration_s=0), 44_100))


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
def test_a_file_of_no_bytes_is_empty(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty.{suffix}"
    path.touch()
    with pytest.raises(EmptyAudio, match="0 bytes"):
        load_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3", "m4a"])
def test_silence_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SilentAudio, match=r"silent, no sample of the mono mix above -60 dBFS"):
        load_audio(write(tmp_path / f"silence.{suffix}", 0 * tone(44_100), 44_100))


def test_dither_is_silence_and_a_quiet_recording_is_not(tmp_path: Path) -> None:
    dither = np.random.default_rng(0).uniform(-1, 1, (88_200, 1)).astype(np.float32) / 2**15
    with pytest.raises(SilentAudio):
        load_audio(write(tmp_path / "dither.wav", dither, 44_100))
    quiet = load_audio(write(tmp_path / "quiet.wav", tone(44_100) / 250, 44_100))  # peak of -54 dBFS
    assert quiet.max() == pytest.approx(LEVEL / 250, rel=0.05)


def test_shorter_than_a_second_is_refused(tmp_path: Path) -> None:
    assert load_audio(write(tmp_path / "one.wav", tone(44_100, duration_s=1), 44_100)).size == SAMPLE_RATE
    with pytest.raises(ShortAudio, match=r"0\.90 s, shorter than 1 s"):
        load_audio(write(tmp_path / "short.wav", tone(44_100, duration_s=0.9), 44_100))


def test_every_message_is_one_line_that_starts_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "noise.flac").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "empty.wav").touch()
    write(tmp_path / "silent.wav", 0 * tone(44_100), 44_100)
    write(tmp_path / "short.wav", tone(44_100, duration_s=0.1), 44_100)
    for name in ("noise.flac", "empty.wav", "silent.wav", "short.wav", "missing.wav"):
        with pytest.raises(AudioError) as caught:
            load_audio(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "; " in str(caught.value)  # what to do
        assert "\n" not in str(caught.value)


PEAK_MEMORY = """
import re, sys
import av, soundfile, soxr
from bytecover2_milvus.audio.load import load_audio

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) * 1024

before = peak()
waveform = load_audio(sys.argv[1])
print(waveform.size, waveform.nbytes, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_half_an_hour_of_stereo_needs_no_more_memory_than_its_waveform(tmp_path: Path) -> None:
    minute = np.repeat(tone(44_100, duration_s=60), 2, axis=1)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 44_100, 2, "PCM_16") as file:
        for _ in range(30):
            file.write(minute)
    command = [sys.executable, "-c", PEAK_MEMORY, str(tmp_path / "long.wav")]
    size, nbytes, growth = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert size == 1800 * SAMPLE_RATE
    assert growth < 1.2 * nbytes + 20e6  # decoded at once it would be 4 bytes x 2 channels x 44 100 Hz: 4 x nbytes


def test_find_audio_walks_folders_in_order_and_skips_what_is_hidden_or_no_audio(tmp_path: Path) -> None:
    kept = ["a.wav", "b/Two.FLAC", "b/deep/er/ü.Ogg", "b/one.mp3", "c.ogg/d.m4a"]
    for name in [*kept, "a.txt", ".hidden.wav", ".git/x.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio([tmp_path])]
    assert found == kept
    listed = find_audio([tmp_path / "b", tmp_path / "a.txt", str(tmp_path / "b" / "one.mp3")])  # a named file is taken
    assert [path.name for path in listed] == ["Two.FLAC", "ü.Ogg", "one.mp3", "a.txt"]
    assert find_audio([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]  # who opens it says so


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions hold back")
def test_a_folder_that_cannot_be_read_is_found_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "lost+found").mkdir(mode=0o000)
    assert find_audio([tmp_path]) == [tmp_path / "a.wav", tmp_path / "lost+found"]


def test_importing_audio_loads_no_codec() -> None:
    code = "import sys, bytecover2_milvus.audio.load; print(*{'av', 'soundfile', 'soxr'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
