"""Ctrl-C and SIGTERM end an ingest at once, whatever its decoders do, with nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audio_files import write_tone, write_two_hours
from patience import PATIENCE_S, wait_for

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.parallel import ended_by_signals, uninterrupted

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to find the decoders")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


class Ingest:
    """Of a short file and one of two hours, whose decoder is stopped while it decodes: it would never end."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.temporary = str(folder / "a.db"), folder / "temporary"
        self.temporary.mkdir()
        (folder / "music").mkdir()
        write_tone(folder / "music" / "a.wav", 0)
        write_two_hours(folder / "music" / "b.wav")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bytecover2_milvus",
                "ingest",
                folder / "music",
                "--uri",
                self.uri,
                "--workers",
                "1",
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.temporary)},
            start_new_session=True,
        )
        wait_for(lambda: any(file.stat().st_size > 1 << 20 for file in self.temporary.glob("bytecover2-*/*.f32")))
        (self.decoder,) = children(self.process.pid)
        os.kill(self.decoder, signal.SIGSTOP)

    def ended(self) -> tuple[int, list[str]]:
        """Its status and what it said, when nothing is left of it; of the long file no row is there."""
        errors = self.process.communicate(timeout=PATIENCE_S)[1]
        wait_for(lambda: not is_running(self.decoder))
        wait_for(lambda: not [path for path in self.temporary.iterdir() if path.name.startswith("bytecover2-")])
        with connected(self.uri) as client:
            assert set(TrackCollection.open(client, "tracks").fetch().track_ids) <= {"a"}
        return self.process.returncode, errors.splitlines()


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[Ingest]:
    run = Ingest(tmp_path)
    yield run
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_to_all_of_its_group_ends_a_run_whose_decoder_hangs(
    ingest: Ingest, number: signal.Signals, status: int
) -> None:
    os.killpg(ingest.process.pid, number)
    code, errors = ingest.ended()
    assert code == status
    assert errors[-1:] == ["Aborted!"] and "Traceback" not in " ".join(errors)


def test_a_second_ctrl_c_leaves_nothing_either(ingest: Ingest) -> None:
    for _ in range(3):
        os.killpg(ingest.process.pid, signal.SIGINT)
        time.sleep(0.01)
    assert ingest.ended()[0] in (1, -signal.SIGINT)


def test_a_run_that_is_killed_leaves_no_decoded_audio(ingest: Ingest) -> None:
    os.kill(ingest.decoder, signal.SIGCONT)
    ingest.process.kill()
    assert ingest.ended()[0] == -signal.SIGKILL


def test_ctrl_c_ends_an_embedding_between_two_nodes_of_the_graph() -> None:
    embedder = Embedder(device="cpu")
    session, raised = embedder._session, []

    class Session:
        """The session, with Ctrl-C as soon as it runs."""

        def run(self, *args: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            try:
                return session.run(*args)
            except Exception as error:
                raised.append(str(error))
                raise

    embedder._session = Session()
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 600 * SAMPLE_RATE).astype(np.float32)
    with pytest.raises(KeyboardInterrupt):
        embedder.embed(waveform)
    wait_for(lambda: raised)
    assert "terminate flag" in raised[0]
    embedder._session = session
    assert np.isfinite(embedder.embed(waveform[: 10 * SAMPLE_RATE])).all()  # and it goes on to embed


def test_ctrl_c_waits_for_the_end_of_a_block() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        for step in range(3):
            signal.raise_signal(signal.SIGINT)
            steps.append(step)
    assert steps == [0, 1, 2] and signal.getsignal(signal.SIGINT) == signal.default_int_handler


LOST = """
import os, signal, time
from bytecover2_milvus.parallel import ended_by_signals

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)  # the handler runs here, where nothing can be raised

with ended_by_signals():
    Callback()
    time.sleep({patience})
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_that_comes_where_nothing_can_be_raised_comes_again(name: str) -> None:
    program = LOST.format(name=name, patience=PATIENCE_S)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -getattr(signal, name) and "ignored" not in done.stderr
    assert time.monotonic() - started < PATIENCE_S


def test_handlers_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*_: object) -> None:
        """Of a program that this package is a part of."""

    before = signal.signal(signal.SIGTERM, own)  # Ray leaves one of its own in a process
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGTERM) == own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handles_sigterm_only_where_nobody_does(monkeypatch)
    finally:
        signal.signal(signal.SIGTERM, before)


def handles_sigterm_only_where_nobody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setenv("LOCAL_RANK", "0")  # of torchrun
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    thread = threading.Thread(target=lambda: ended_by_signals().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
