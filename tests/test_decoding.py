"""Decoding in worker processes: the same waveforms, bounded, and a worker that dies takes only its file with it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bytecover2_milvus.audio import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.decoding import Decoded, Decoder, Job, decode
from bytecover2_milvus.errors import SilentAudio, UnreadableAudio


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{number}.wav" for number in range(8)]
    for path in made:
        soundfile.write(path, rng.uniform(-0.5, 0.5, 2 * SAMPLE_RATE), SAMPLE_RATE)
    return made


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_file_holds(paths: list[Path], workers: int) -> None:
    known = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    with Decoder(workers) as decoder:
        decoded = dict(decoder.decode(Job(path, path, [known]) for path in [*paths, Path("missing.wav")]))
    assert set(decoded) == {*paths, Path("missing.wav")}
    assert isinstance(decoded[Path("missing.wav")], UnreadableAudio)
    status = paths[0].stat()
    assert decoded[paths[0]] == Decoded(known, status.st_size, status.st_mtime_ns, None)  # known: not decoded
    for path in paths[1:]:
        assert decoded[path].content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(decoded[path].waveform, load_audio(path))


def test_few_waveforms_wait_at_a_time(paths: list[Path]) -> None:
    handed_out = 0

    def jobs():
        nonlocal handed_out
        for path in paths:
            handed_out += 1
            yield Job(path, path)

    with Decoder(1) as decoder:
        for taken, _ in enumerate(decoder.decode(jobs()), start=1):
            assert handed_out <= taken + 2


def test_nothing_is_left_of_waveforms_that_were_taken(tmp_path: Path, paths: list[Path]) -> None:
    broken = tmp_path / "broken.wav"
    soundfile.write(broken, np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)  # silent: known only when all of it is decoded
    with Decoder(1) as decoder:
        for path in [broken, paths[0]]:
            [(_, decoded)] = decoder.decode([Job(path, path)])
            assert list(Path(decoder._folder.name).iterdir()) == []
            assert isinstance(decoded, SilentAudio) or isinstance(decoded.waveform, np.memmap)


def test_a_cut_off_file_warns(tmp_path: Path, paths: list[Path]) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(paths[0].read_bytes()[:-40_000])
    assert "cut off or damaged" in decode(cut).warning
    assert decode(paths[0]).warning == ""


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(os.readlink(entry) == str(path) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or closed what was listed
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see who reads a file")
def test_a_worker_that_dies_costs_only_its_file(tmp_path: Path, paths: list[Path]) -> None:
    deadly = tmp_path / "deadly.wav"
    os.mkfifo(deadly)

    over = threading.Event()

    def kill_its_readers() -> None:
        while True:  # among others, perhaps more than once, then alone
            with deadly.open("wb"):  # waits until a worker opens it
                if over.is_set():
                    return
                for worker in multiprocessing.active_children():
                    if has_open(worker.pid, deadly):
                        worker.kill()
                        connection.wait([worker.sentinel])

    killer = threading.Thread(target=kill_its_readers, daemon=True)
    killer.start()
    with Decoder(2) as decoder:
        decoded = dict(decoder.decode(Job(path, path) for path in [*paths[:3], deadly, *paths[3:]]))
    over.set()
    os.close(os.open(deadly, os.O_RDONLY | os.O_NONBLOCK))  # lets the killer go
    killer.join(10)
    assert isinstance(decoded.pop(deadly), UnreadableAudio)
    assert all(isinstance(entry, Decoded) for entry in decoded.values()) and set(decoded) == set(paths)


DECODE = """
import sys
from pathlib import Path
from bytecover2_milvus.decoding import Decoder, Job
with Decoder(1) as decoder:
    list(decoder.decode([Job(0, Path(sys.argv[1]))]))
"""


def test_a_parent_that_is_killed_leaves_no_files(tmp_path: Path) -> None:
    pipe, temporary = tmp_path / "pipe.wav", tmp_path / "temporary"
    os.mkfifo(pipe)
    temporary.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", DECODE, pipe], env=os.environ | {"TMPDIR": str(temporary)})
    with pipe.open("wb"):  # waits until the worker opens it
        assert len(list(temporary.iterdir())) == 1
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 60
    while any(temporary.iterdir()):  # until the worker has seen it
        assert time.monotonic() < deadline
        time.sleep(0.05)
