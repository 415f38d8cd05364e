"""Decoding in worker processes: the same waveforms, bounded, and a worker that dies takes only its file with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import write_silence, write_two_hours
from patience import wait_for

from bytecover2_milvus.audio import decode_pool as decoding
from bytecover2_milvus.audio.decode_pool import Decoded, Decoder, decode
from bytecover2_milvus.audio.limits import Limits
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import AudioError, BytecoverError, SilentAudio, UnreadableAudio


@dataclass(frozen=True)
class File:
    path: Path
    known: Sequence[str] = ()  # content hashes
    limits: Limits | None = None


def read(decoder: Decoder, paths: Iterable[Path]) -> dict[Path, Decoded | AudioError]:
    """What each file gave, in the order in which they came."""
    return {file.path: decoded for file, decoded in decoder.read(map(File, paths))}


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
        asked = [File(path, [known]) for path in [*paths, Path("missing.wav")]]
        decoded = {file.path: what for file, what in decoder.read(asked)}
    assert set(decoded) == {*paths, Path("missing.wav")}
    assert isinstance(decoded[Path("missing.wav")], UnreadableAudio)
    status = paths[0].stat()
    assert decoded[paths[0]] == Decoded(known, status.st_size, status.st_mtime_ns, None)  # known: not decoded
    for path in paths[1:]:
        assert decoded[path].content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(decoded[path].waveform, load_audio(path))


def test_few_waveforms_wait_at_a_time(paths: list[Path]) -> None:
    handed_out = 0

    def files():
        nonlocal handed_out
        for path in paths:
            handed_out += 1
            yield File(path)

    with Decoder(1) as decoder:
        for taken, _ in enumerate(decoder.read(files()), start=1):
            assert handed_out <= taken + 2


def test_nothing_is_left_of_waveforms_that_were_taken(tmp_path: Path, paths: list[Path]) -> None:
    broken = tmp_path / "broken.wav"
    soundfile.write(broken, np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)  # silent: known only when all of it is decoded
    with Decoder(1) as decoder:
        for path in [broken, paths[0]]:
            [(_, decoded)] = decoder.read([File(path)])
            assert list(Path(decoder._folder.name).iterdir()) == []
            assert isinstance(decoded, SilentAudio) or isinstance(decoded.waveform, np.memmap)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_files_come_in_the_order_in_which_they_were_asked_for(tmp_path: Path, paths: list[Path], workers: int) -> None:
    slow = write_silence(tmp_path / "slow.wav", 300)  # a hundred times as long as the others
    with Decoder(workers) as decoder:
        asked = [slow, *paths, tmp_path / "missing.wav"]
        assert [file.path for file, _ in decoder.read(map(File, asked))] == asked


def test_a_cut_off_file_warns(tmp_path: Path, paths: list[Path]) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(paths[0].read_bytes()[:-40_000])
    assert "cut off or damaged" in decode(cut).warning
    assert decode(paths[0]).warning == ""


def children(pid: int) -> list[int]:
    """The processes that a process started and that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(os.readlink(entry) == str(path) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or closed what was listed
        return False


@pytest.fixture
def kill_readers_of() -> Iterator[Callable[[Path], None]]:
    """Kills every child of this process that opens a file, until the test ends."""
    over = threading.Event()

    def kill(path: Path) -> None:
        while not over.wait(0.01):
            for pid in children(os.getpid()):
                if has_open(pid, path):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    threads: list[threading.Thread] = []
    yield lambda path: threads.append(threading.Thread(target=kill, args=[path])) or threads[-1].start()
    over.set()
    for thread in threads:
        thread.join()


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see who reads a file")


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_costs_only_its_file(
    tmp_path: Path, paths: list[Path], kill_readers_of: Callable[[Path], None], workers: int
) -> None:
    deadly = write_two_hours(tmp_path / "deadly.wav")
    kill_readers_of(deadly)
    with Decoder(workers) as decoder:
        decoded = read(decoder, [*paths[:3], deadly, *paths[3:]])
    reason = "its decoder died, out of memory or through a fault of the codec; convert or leave it out"
    assert str(decoded.pop(deadly)) == f"{deadly}: {reason}"
    assert all(isinstance(entry, Decoded) for entry in decoded.values()) and set(decoded) == set(paths)


@needs_proc
def test_a_worker_that_was_killed_for_nothing_costs_nothing(paths: list[Path]) -> None:
    others = children(os.getpid())  # a browser or a server of other tests
    with Decoder(2) as decoder:
        assert len(read(decoder, paths)) == len(paths)
        workers = set(children(os.getpid())).difference(others)
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        decoded = read(decoder, paths)
    assert all(isinstance(entry, Decoded) for entry in decoded.values()) and set(decoded) == set(paths)


def test_what_was_abandoned_is_not_taken_for_what_comes_next(tmp_path: Path, paths: list[Path]) -> None:
    with Decoder(1) as decoder:
        assert next(decoder.read(map(File, [paths[0], write_two_hours(tmp_path / "long.wav")])))
        assert list(read(decoder, paths[1:])) == paths[1:]


IN_A_POOL = """
import multiprocessing, sys
def decode(path):
    from pathlib import Path
    from types import SimpleNamespace
    from bytecover2_milvus.audio.decode_pool import Decoder
    with Decoder(1) as decoder:
        [(_, decoded)] = decoder.read([SimpleNamespace(path=Path(path), known=(), limits=None)])
    return len(decoded.waveform)
context = multiprocessing.get_context("fork")
with context.Pool(1) as pool:
    print(pool.map(decode, sys.argv[1:]))
"""


def test_workers_start_from_stdin_without_a_guard_and_in_the_process_of_a_pool(paths: list[Path]) -> None:
    run = subprocess.run([sys.executable, "-", paths[0]], input=IN_A_POOL, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == (f"[{2 * SAMPLE_RATE}]\n", "")


def test_closed_streams_are_no_obstacle(paths: list[Path]) -> None:
    script = "import sys; exec(sys.argv[1])"
    code = IN_A_POOL.rpartition("context =")[0] + "import os; os.write(7, str(decode(sys.argv[2])).encode())"
    closed = 'exec 7>&1; "$@" <&- >&- 2>&-'
    command = ["bash", "-c", closed, "bash", sys.executable, "-c", script, code, paths[0]]
    assert subprocess.run(command, stdout=subprocess.PIPE, timeout=120).stdout == str(2 * SAMPLE_RATE).encode()


def test_workers_that_cannot_start_are_no_fault_of_a_file(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for python, reason in (("/bin/false", r"ended before it did anything \(status 1\)"), ("/gone", "No such file")):
        monkeypatch.setattr("bytecover2_milvus.parallel.get_executable", lambda python=python: python)
        with Decoder(1) as decoder, pytest.raises(BytecoverError, match=f"{reason}.*; set workers to 0"):
            list(decoder.read([File(paths[0])]))


class _Writer:
    """Replaces a file as soon as it has been hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, write: Callable[[], object], times: int) -> None:
        self.left, self.write = times, write
        self.load = decoding._load
        monkeypatch.setattr(decoding, "_load", self)

    def __call__(self, *asked: Any) -> tuple[object, str]:
        if self.left:
            self.left -= 1
            self.write()
        return self.load(*asked)


@pytest.mark.parametrize(
    "new", [0.5, 0.0]
)  # of other sound, or silent: an error of the new file is none of the old one's
def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, new: float
) -> None:
    path, other = paths[0], paths[1]
    status = path.stat()

    def replace() -> None:
        soundfile.write(other, new * np.sin(np.arange(2 * SAMPLE_RATE)), SAMPLE_RATE)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # of one size and one time
        os.replace(other, path)

    _Writer(monkeypatch, replace, times=1)
    if new:
        decoded = decode(path)
        assert decoded.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(decoded.waveform, load_audio(path))
    else:
        with pytest.raises(SilentAudio):
            decode(path)


def test_a_file_that_never_stops_changing_fails(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite() -> None:
        with paths[0].open("r+b") as file:  # the same file, of the same size
            file.seek(1000)
            file.write(os.urandom(100))

    _Writer(monkeypatch, overwrite, times=9)
    with pytest.raises(UnreadableAudio, match=f"{paths[0]}: it changes while it is read; run again when it is whole"):
        decode(paths[0])


def test_any_exception_over_a_file_is_of_that_file(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of a codec")

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    for into in (None, paths[0].with_suffix(".f32")):
        with pytest.raises(UnreadableAudio, match=rf"{paths[0]}: cannot be decoded \(ZeroDivisionError: of a codec\)"):
            decode(paths[0], into=into)


@pytest.mark.parametrize("workers", [0, 1])
def test_limits_hold_wherever_a_file_is_decoded(paths: list[Path], workers: int) -> None:
    files = [File(paths[0], limits=Limits(maximum_s=seconds)) for seconds in (1.5, 3.0)]  # of a file of 2 s
    with Decoder(workers) as decoder:
        (_, refused), (_, taken) = decoder.read(files)
    assert "longer than" in str(refused) and isinstance(taken, Decoded)


DECODE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from bytecover2_milvus.audio.decode_pool import Decoder
with Decoder(2) as decoder:
    list(decoder.read([SimpleNamespace(path=Path(sys.argv[1]), known=(), limits=None)] * 4))
"""


def test_a_parent_that_is_killed_leaves_no_files(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", DECODE, write_two_hours(tmp_path / "long.wav")]
    parent = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)})
    wait_for(lambda: len(list(temporary.glob("bytecover2-*/*.f32"))) == 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: not list(temporary.iterdir()))  # until the workers have seen it
