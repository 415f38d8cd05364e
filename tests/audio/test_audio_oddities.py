"""Files as people have them: many channels or such as cancel, headers that lie, damage, and what does harm."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bytecover2_milvus.audio.limits import Limits
from bytecover2_milvus.audio.load import (
    AUDIO_SUFFIXES,
    MendedAudio,
    TruncatedAudio,
    find_audio,
    load_audio,
    stream_audio,
)
from bytecover2_milvus.audio.mixdown import Block, Mixdown
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import AudioBeyondLimits, ConfigError, SilentAudio, UnreadableAudio

RATE = 44_100


def sine(frequency: float = 440.0, duration_s: float = 3.0, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(RATE * duration_s)) / RATE)).astype(np.float32)


def encode(
    path: Path,
    channels: NDArray[np.float32],
    codec: str,
    layout: str,
    rate: int = RATE,
    format: str = "fltp",
    second: NDArray[np.float32] | None = None,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Channels (n_channels, n_frames) as a file of ffmpeg's; with `second`, a second stream that is the default one."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        streams = [output.add_stream(codec, rate=rate, layout=layout) for _ in range(1 if second is None else 2)]
        if second is not None:
            if not hasattr(streams[0], "disposition"):
                pytest.skip("PyAV 14 cannot say which stream is the default one")
            streams[0].disposition = 0
            streams[1].disposition = 1
        to_codec = [
            av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate) for stream in streams
        ]
        for start in range(0, channels.shape[1], 1024):
            for stream, resampler, samples in zip(streams, to_codec, (channels, second), strict=False):
                part = np.ascontiguousarray(samples[:, start : start + 1024])
                if not format.endswith("p"):
                    part = np.ascontiguousarray(part.T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(part, format=format, layout=layout)
                frame.rate, frame.pts = rate, start
                for converted in resampler.resample(frame):
                    output.mux(stream.encode(converted))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


def pitch(waveform: NDArray[np.float32]) -> float:
    """The strongest frequency in Hz."""
    middle = waveform[waveform.size // 4 : 3 * waveform.size // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle * np.hanning(middle.size), n=2**18))) * SAMPLE_RATE / 2**18)


def load_quietly(path: Path) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(path)


# Channels


@pytest.mark.parametrize(
    ("suffix", "codec", "layout", "n_channels"),
    [
        ("m4a", "aac", "7.1", 8),
        ("wv", "wavpack", "7.1", 8),
        ("mka", "pcm_s16le", "hexadecagonal", 16),
        ("mka", "pcm_f32le", "22.2", 24),
        ("tta", "tta", "7.1", 8),
    ],
)
def test_eight_channels_and_more_are_averaged(
    tmp_path: Path, suffix: str, codec: str, layout: str, n_channels: int
) -> None:
    channels = np.repeat(sine()[None], n_channels, axis=0)
    path = encode(tmp_path / f"many.{suffix}", channels, codec, layout, format="flt")
    waveform = load_quietly(path)
    assert waveform.size / SAMPLE_RATE == pytest.approx(3, abs=0.05)
    assert pitch(waveform) == pytest.approx(440, abs=1)


def caf(path: Path, labels: list[int], n_channels: int | None = None) -> Path:
    """Core Audio Format of 16 bits with one label for every channel, in any order."""
    n_channels = n_channels or len(labels)
    description = struct.pack(">d4sIIIII", float(RATE), b"lpcm", 0, 2 * n_channels, 1, n_channels, 16)
    chunks = [(b"desc", description)]
    if labels:
        described = b"".join(struct.pack(">Ifffi", label, 0, 0, 0, 0) for label in labels)
        chunks.append((b"chan", struct.pack(">III", 0, 0, len(labels)) + described))
    samples = np.repeat((sine() * 32_767).astype(">i2")[:, None], n_channels, axis=1)
    chunks.append((b"data", struct.pack(">I", 0) + samples.tobytes()))
    path.write_bytes(b"caff\0\1\0\0" + b"".join(name + struct.pack(">q", len(body)) + body for name, body in chunks))
    return path


READ_BY_FFMPEG = """
import sys
from pathlib import Path
from bytecover2_milvus.audio.ffmpeg import FfmpegReader
print(sum(len(block.samples) for block in FfmpegReader(Path(sys.argv[1])).blocks()))
"""


@pytest.mark.parametrize("labels", [[2, 1], [1, 1, 1], [3, 2, 1, 42], [1, 1, 2, 2, 3, 3, 1, 2, 1]])
def test_channels_in_an_order_of_their_own_do_not_end_the_process(tmp_path: Path, labels: list[int]) -> None:
    path = caf(tmp_path / "odd.caf", labels)
    done = subprocess.run([sys.executable, "-c", READ_BY_FFMPEG, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(3 * RATE)), done.stderr[-500:]


def test_128_channels_are_averaged_or_refused(tmp_path: Path) -> None:
    try:
        assert pitch(load_audio(caf(tmp_path / "many.caf", [], 128))) == pytest.approx(440, abs=1)
    except UnreadableAudio as error:
        assert str(tmp_path) in str(error)


@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3", "opus"])
def test_of_channels_that_cancel_one_is_taken(tmp_path: Path, suffix: str) -> None:
    left = sine() + sine(659.3, level=0.3)
    opus = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    rate = 48_000 if suffix == "opus" else RATE
    soundfile.write(tmp_path / f"inverted.{suffix}", np.stack([left, -0.9 * left], axis=1), rate, **opus)
    with pytest.warns(MendedAudio, match=r"channels cancel each other for \d\.\d s"):
        waveform = load_audio(tmp_path / f"inverted.{suffix}")
    assert waveform.size / SAMPLE_RATE == pytest.approx(left.size / rate, abs=0.01)
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(np.sqrt(np.mean(left**2)), rel=0.05)


def test_the_channel_is_taken_where_the_channels_cancel_and_only_there(tmp_path: Path) -> None:
    left = sine(duration_s=20)
    right = np.where(np.arange(left.size) < 10 * RATE, left, -left)
    soundfile.write(tmp_path / "half.wav", np.stack([left, right], axis=1), RATE)
    with pytest.warns(MendedAudio, match=r"for \d+\.\d s"):
        level = np.array(
            [np.sqrt(2 * np.mean(part**2)) for part in np.array_split(load_audio(tmp_path / "half.wav"), 20)]
        )
    assert level[:9] == pytest.approx(0.5, rel=0.02)
    assert level[12:] == pytest.approx(0.5, rel=0.02)  # two seconds tell; what came before is not held


def test_wide_stereo_and_a_single_sounding_channel_are_averaged(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((10 * RATE, 2)) / 10  # channels that have nothing in common
    only = np.zeros((10 * RATE, 6))
    only[:, 4] = noise[:, 0]
    for name, channels in {"wide": noise, "only": only}.items():
        soundfile.write(tmp_path / f"{name}.wav", channels, RATE, subtype="FLOAT")
        mono = np.concatenate(list(stream_audio(tmp_path / f"{name}.wav")))
        soundfile.write(tmp_path / "mean.wav", channels.mean(axis=1), RATE, subtype="FLOAT")
        np.testing.assert_allclose(load_quietly(tmp_path / f"{name}.wav"), mono)
        np.testing.assert_allclose(mono, load_quietly(tmp_path / "mean.wav"), atol=1e-5)


# Levels


@pytest.mark.parametrize("constant", [0.5, -0.01])
def test_a_constant_is_silence(tmp_path: Path, constant: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 3 * RATE) / 2**14
    drift = np.linspace(0, 0.4, 3 * RATE)
    fades = np.interp(np.arange(3 * RATE), [0, 1_000, 3 * RATE - 1_000, 3 * RATE], [0, 1, 1, 0])
    for samples in (np.full(3 * RATE, constant), constant + noise, constant + drift, constant * fades):
        soundfile.write(tmp_path / "constant.wav", samples, RATE, subtype="PCM_24")
        with pytest.raises(SilentAudio, match="constant level"):
            load_audio(tmp_path / "constant.wav")
    soundfile.write(tmp_path / "heard.wav", constant + 0.01 * sine(40), RATE)
    load_quietly(tmp_path / "heard.wav")


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ogg", ""), ("mp3", "libmp3lame"), ("m4a", "aac"), ("opus", "libopus"), ("ts", "mp2")]
)
def test_a_constant_is_silence_through_a_codec_too(tmp_path: Path, suffix: str, codec: str) -> None:
    """AAC and Vorbis make a hum at the rate of their frames of it, Opus takes a while to remove it."""
    silent, heard = (np.full(5 * 48_000, 0.5, np.float32), 0.2 + 0.4 * sine(duration_s=5 * 48_000 / RATE))
    for name, samples in (("silent", silent), ("heard", heard.astype(np.float32))):
        if codec:
            encode(tmp_path / f"{name}.{suffix}", samples[None], codec, "mono", 48_000)
        else:
            soundfile.write(tmp_path / f"{name}.{suffix}", samples, 48_000)
    with pytest.raises(SilentAudio, match="constant level"):
        load_audio(tmp_path / f"silent.{suffix}")
    load_audio(tmp_path / f"heard.{suffix}")


def test_a_sample_that_no_scale_explains_is_refused(tmp_path: Path) -> None:
    samples = sine()
    samples[12_345] = 1e30
    soundfile.write(tmp_path / "huge.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(UnreadableAudio, match=r"huge\.wav: a sample of 1e\+30"):
        load_audio(tmp_path / "huge.wav")


def test_samples_in_float_keep_their_scale_and_lose_their_spikes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "scaled.wav", sine() * 32_768, RATE, subtype="FLOAT")
    assert load_quietly(tmp_path / "scaled.wav").max() == pytest.approx(16_384, rel=0.01)
    spiked = sine()
    spiked[[20_000, 60_000]] = 5_000
    soundfile.write(tmp_path / "spiked.wav", spiked, RATE, subtype="FLOAT")
    with pytest.warns(MendedAudio, match="2 samples of up to 5e\\+03"):
        assert np.abs(load_audio(tmp_path / "spiked.wav")).max() < 10


def test_what_no_codec_gives_is_cut() -> None:
    damaged = np.array([0.1, 37_480, -0.2, np.nan, -np.inf], dtype=np.float32)[:, None]
    mixdown = Mixdown(Path("a.mp3"))
    np.testing.assert_allclose(mixdown.mix(Block(RATE, damaged)), [0.1, 2, -0.2, 0, -2])
    assert "3 samples of up to 3.75e+04" in mixdown.remarks()[0]


# Headers that lie


@pytest.mark.parametrize("riff", [0, 8, 36, None])
@pytest.mark.parametrize("stated", [0, 12_000])
def test_a_wav_whose_sizes_were_never_finished_or_wrapped_is_read_to_its_end(
    tmp_path: Path, riff: int | None, stated: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([sine(), sine()], axis=1), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = struct.pack("<I", stated)
    content[4:8] = struct.pack("<I", len(content) - 8 if riff is None else riff)
    path.write_bytes(content)
    waveform = load_quietly(path)
    assert waveform.size == pytest.approx(3 * SAMPLE_RATE, abs=2)
    assert pitch(waveform) == pytest.approx(440, abs=1)


SIZES = {  # of the samples: the word of the header from which it stands so many bytes, and what unfinished ones state
    "au": (b".snd", 8, (bytes(4), b"\xff" * 4)),
    "w64": (bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"), 16, (bytes(8), b"\xff" * 8)),
    "rf64": (b"ds64", 16, (bytes(8),)),
}


@pytest.mark.parametrize("suffix", SIZES)
def test_a_size_that_was_never_filled_in_or_is_beyond_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([sine(), sine()], axis=1), RATE, format=suffix.upper(), subtype="PCM_16")
    whole = path.read_bytes()
    word, behind, unfinished = SIZES[suffix]
    at = whole.index(word) + behind
    for stated in unfinished:
        path.write_bytes(whole[:at] + stated + whole[at + len(stated) :])
        waveform = load_quietly(path)
        assert waveform.size == pytest.approx(3 * SAMPLE_RATE, abs=2) and pitch(waveform) == pytest.approx(440, abs=1)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(TruncatedAudio, match=r"decoded 1\.5 s of 3\.0 s"):
        load_audio(path)


@pytest.mark.parametrize(
    "chunk", [b"LIST" + struct.pack("<I", 400_000), b"id3 " + struct.pack("<I", 400_000), b"ID3\4\0\0\0\0"]
)
def test_what_stands_behind_the_samples_of_a_wav_is_no_sound(tmp_path: Path, chunk: bytes) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(), RATE)
    path.write_bytes(path.read_bytes() + chunk + np.random.default_rng(0).bytes(400_000))
    assert load_audio(path).size == pytest.approx(3 * SAMPLE_RATE, abs=2)


def test_a_flac_that_states_too_few_samples_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE)
    soundfile.write(path, noise, RATE)
    content = bytearray(path.read_bytes())
    total = int.from_bytes(content[18:26], "big") >> 36 << 36 | RATE
    content[18:26] = total.to_bytes(8, "big")
    path.write_bytes(content)
    assert load_quietly(path).size == pytest.approx(6 * SAMPLE_RATE, abs=2)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "flac"])
def test_streams_one_behind_the_other_are_read_to_the_end_of_the_last(tmp_path: Path, suffix: str) -> None:
    opus = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 5 * 48_000)
    soundfile.write(tmp_path / f"a.{suffix}", noise, 48_000, **opus)
    link = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"chain.{suffix}").write_bytes(link + link)
    assert load_quietly(tmp_path / f"chain.{suffix}").size / SAMPLE_RATE == pytest.approx(10, abs=0.05)


def test_what_libsndfile_stops_at_is_read_on_by_ffmpeg(tmp_path: Path) -> None:
    """Healthy Opus of 7.1, of which libsndfile 1.2.2 finds a packet malformed."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (8, 5 * 48_000)).astype(np.float32)
    path = encode(tmp_path / "surround.opus", noise, "libopus", "7.1", 48_000, "flt")
    assert load_quietly(path).size / SAMPLE_RATE == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_ac3_in_the_place_of_samples_is_decoded(tmp_path: Path, suffix: str, subtype: str) -> None:
    stereo = np.stack([sine(duration_s=6), sine(duration_s=6)])
    burst = encode(tmp_path / "a.spdif", stereo, "ac3", "stereo", container="spdif").read_bytes()
    words = np.frombuffer(burst[: len(burst) // 4 * 4], "<i2").astype(np.int16).reshape(-1, 2)
    words = np.concatenate([np.zeros((40_000, 2), np.int16), words])
    soundfile.write(tmp_path / f"cd.{suffix}", words, RATE, subtype=subtype)
    waveform = load_audio(tmp_path / f"cd.{suffix}")
    assert waveform.size / SAMPLE_RATE == pytest.approx(6 + 40_000 / RATE, abs=0.5)
    assert pitch(waveform) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_of_several_audio_streams_the_default_one_is_read(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"two.{suffix}", sine()[None], "aac", "mono", second=sine(880)[None])
    with av.open(str(path)) as container:
        assert [int(stream.disposition) & 1 for stream in container.streams.audio] == [0, 1]
    assert pitch(load_audio(path)) == pytest.approx(880, abs=1)


def film(path: Path, sound: str) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        audio = container.add_stream(sound, rate=RATE, layout="mono")
        rng, samples = np.random.default_rng(0), sine(duration_s=10)
        for tenth in range(100):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            picture.pts = tenth
            container.mux(video.encode(picture))
            part = samples[None, tenth * RATE // 10 : (tenth + 1) * RATE // 10]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, tenth * RATE // 10
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "sound"), [("mkv", "aac"), ("avi", "libmp3lame"), ("flv", "aac")])
def test_a_film_that_is_cut_off_warns_and_a_whole_one_does_not(tmp_path: Path, suffix: str, sound: str) -> None:
    if suffix == "flv":
        path = encode(tmp_path / "film.flv", sine(duration_s=10)[None], sound, "mono")
    else:
        path = film(tmp_path / f"film.{suffix}", sound)
    assert load_quietly(path).size / SAMPLE_RATE == pytest.approx(10, abs=0.2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(TruncatedAudio, match="cut off or damaged"):
        load_audio(path)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_a_broadcast_that_is_cut_off_warns_and_a_whole_one_does_not(tmp_path: Path, codec: str) -> None:
    """MPEG-TS states no length: its packets of 188 bytes, and those that they carry, are whole or not."""
    path = encode(tmp_path / "a.ts", sine(duration_s=10)[None], codec, "mono")
    assert load_quietly(path).size / SAMPLE_RATE == pytest.approx(10, abs=0.2)
    whole = path.read_bytes()
    n_whole = len(whole) // 2 // 188
    for n_bytes in (n_whole * 188 + 100, *(n * 188 for n in range(n_whole, n_whole + 16))):
        path.write_bytes(whole[:n_bytes])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert load_audio(path).size / SAMPLE_RATE == pytest.approx(5, abs=0.5)
        if told:
            break
    assert "cut off or damaged, decoded" in str(told[0].message)


def test_a_dvd_that_is_cut_off_warns_and_a_whole_one_does_not(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.vob", sine(duration_s=10)[None], "mp2", "mono")
    load_quietly(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 2048 * 2048 + 900])
    with pytest.warns(TruncatedAudio, match="cut off or damaged, decoded"):
        load_audio(path)


# Files that harm


def test_encrypted_audio_is_refused(tmp_path: Path) -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    path = encode(
        tmp_path / "bought.m4a", np.stack([sine(), sine()]), "aac", "stereo", options=options, container="mp4"
    )
    with pytest.raises(UnreadableAudio, match=r"bought\.m4a: .*encrypted"):
        load_audio(path)


def constant_flac(rate: int, n_frames: int) -> bytes:
    """FLAC of constant frames of 65 535 samples, some 15 bytes each."""

    def crc(data: bytes, polynomial: int, bits: int) -> bytes:
        value = 0
        for byte in data:
            value ^= byte << (bits - 8)
            for _ in range(8):
                value = (value << 1 ^ polynomial if value >> (bits - 1) else value << 1) & ((1 << bits) - 1)
        return value.to_bytes(bits // 8, "big")

    total = n_frames * 65_535
    info = b"\xff\xff" * 2 + bytes(6) + (rate << 44 | 15 << 36 | total).to_bytes(8, "big") + bytes(16)
    content = b"fLaC\x80\0\0\x22" + info
    for number in range(n_frames):
        head = b"\xff\xf8\x70\x08" + chr(number).encode() + b"\xff\xfe"
        frame = head + crc(head, 0x07, 8) + b"\0" + struct.pack(">h", 9_000 - 18_000 * (number % 2))
        content += frame + crc(frame, 0x8005, 16)
    return content


def test_a_file_may_not_state_any_rate_or_last_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "small.flac"
    path.write_bytes(constant_flac(1, 1))
    with pytest.raises(UnreadableAudio, match=r"small\.flac: states 1 Hz"):
        load_audio(path)
    path.write_bytes(constant_flac(8_000, 100))  # 819 s
    with pytest.raises(AudioBeyondLimits, match=r"longer than 0\.1 hours"):
        load_audio(path, Limits(maximum_s=360))
    with pytest.raises(AudioBeyondLimits, match="are allowed"):
        load_audio(path, Limits(maximum_bytes=1_000))


def test_the_environment_sets_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", sine(), RATE)
    monkeypatch.setenv("BYTECOVER2_MAXIMUM_HOURS", "0.0005")
    with pytest.raises(AudioBeyondLimits, match=r"longer than 0\.0005 hours; .* \(BYTECOVER2_MAXIMUM_HOURS\)"):
        load_audio(tmp_path / "a.wav")
    monkeypatch.setenv("BYTECOVER2_MAXIMUM_HOURS", "ever")
    with pytest.raises(ConfigError, match="BYTECOVER2_MAXIMUM_HOURS=ever: not a positive number"):
        load_audio(tmp_path / "a.wav")


def test_what_is_no_file_on_a_disk_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for path in (tmp_path / "pipe.wav", Path("/dev/zero")):
        with pytest.raises(UnreadableAudio, match="a pipe or a device"):
            load_audio(path)
    with pytest.raises(UnreadableAudio, match="levels of symbolic links"):
        load_audio(tmp_path / "loop.wav")


def test_a_pipe_as_standard_input_is_called_a_pipe() -> None:
    code = "from bytecover2_milvus import load_audio; load_audio('/dev/stdin')"
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True)
    assert b"/dev/stdin: a pipe or a device" in done.stderr


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat", "list.sdp", "list.wav"])
def test_a_list_of_files_reads_no_other_file(tmp_path: Path, name: str) -> None:
    encode(tmp_path / "secret.ts", sine()[None], "aac", "mono", container="mpegts")
    contents = {
        "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "ffconcat": "ffconcat version 1.0\nfile secret.ts\n",
        "sdp": "v=0\nm=audio 5004 RTP/AVP 0\n",
        "wav": "ffconcat version 1.0\nfile secret.ts\n",
    }
    (tmp_path / name).write_text(contents[name.split(".")[1]])
    with pytest.raises(UnreadableAudio, match="not audio"):
        load_audio(tmp_path / name)


def test_whatever_a_decoder_raises_is_of_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", sine(), RATE)

    def fail(*_: object, **__: object) -> Iterator[object]:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with pytest.raises(UnreadableAudio, match=r"a\.wav: cannot be decoded \(ZeroDivisionError: two lines\)"):
        load_audio(tmp_path / "a.wav")


def test_folders_give_every_format_that_is_read(tmp_path: Path) -> None:
    names = ["a.aifc", "b.mp2", "c.tta", "d.spx", "e.w64", "f.mkv", "g.mov", "h.MPC", "i.dsf", "j.avi"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_audio([tmp_path])] == names
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES)
