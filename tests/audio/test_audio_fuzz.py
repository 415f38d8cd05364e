"""Damaged files: each gives a finite waveform or its one error, whatever was done to its bytes, and no decoder dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

RATE = 22_050
MUTANTS = 12  # of every file
FORMATS = {  # suffix: encoder of ffmpeg, or None for libsndfile
    **dict.fromkeys(("wav", "flac", "ogg", "opus", "mp3", "aiff", "caf", "au"), None),
    **{
        "m4a": "aac",
        "aac": "aac",
        "mka": "pcm_f32le",
        "webm": "libopus",
        "wv": "wavpack",
        "tta": "tta",
        "wma": "wmav2",
    },
    **{"tta": "tta", "wma": "wmav2", "ac3": "ac3", "mp2": "mp2", "avi": "pcm_s16le", "mov": "alac"},
}

DECODE = """
import faulthandler, sys, warnings
from pathlib import Path
import numpy as np
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.errors import AudioError
from bytecover2_milvus.audio.limits import Limits

faulthandler.enable()
warnings.simplefilter("ignore")
mutants, seed, file = int(sys.argv[2]), int(sys.argv[3]), None
for original in sorted(Path(sys.argv[1]).iterdir()):
    content = original.read_bytes()
    for number in range(mutants):
        rng = np.random.default_rng([seed, number, len(content)])
        mutant = np.frombuffer(content, np.uint8).copy()
        at = rng.integers(0, mutant.size if number % 3 else min(256, mutant.size), rng.integers(1, 40))
        mutant[at] = rng.choice([0, 1, 127, 128, 255, *rng.integers(0, 256, 5)], at.size)
        if number % 4 == 3:
            mutant = mutant[: rng.integers(1, mutant.size)]
        file = Path(f"mutant{original.suffix}")
        file.write_bytes(mutant.tobytes())
        print(original.name, number, flush=True)
        try:
            waveform = load_audio(file, Limits(maximum_s=60))
        except AudioError as error:
            assert str(error).startswith(f"{file}: ") and "\\n" not in str(error), str(error)
        else:
            assert np.isfinite(waveform).all() and np.abs(waveform).max() < 100
print("done")
"""


def encode(path: Path, codec: str | None) -> None:
    time_s = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal((2, time_s.size)) / 50
    stereo = 0.4 * np.sin(2 * np.pi * np.array([[220], [331]]) * time_s) + noise
    rate = 48_000 if codec in ("libopus", "ac3", "mp2") else 44_100
    if codec is None:
        opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, stereo.T, 24_000 if opus else RATE, **opus)
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo", bit_rate=128_000)
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, "stereo", rate, context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(stereo.astype(np.float32), format="fltp", layout="stereo")
        frame.rate = RATE
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for suffix, codec in FORMATS.items():
        encode(folder / f"a.{suffix}", codec)
    return folder


@pytest.mark.parametrize("seed", [0, 1])
def test_no_damage_ends_the_process_or_gives_what_is_no_waveform(originals: Path, tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", DECODE, originals, str(MUTANTS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=tmp_path, timeout=300)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "done"), (lines[-1], done.stderr[-2_000:])
    assert len(lines) == 1 + MUTANTS * len(FORMATS)
    assert "Traceback" not in done.stderr
