"""The benchmarks of ingest, start-up and inference at toy size: their figures agree with each other."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import machine
from benchmarks.speed import decoding, inference, ingest, startup

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, to see memory")


@needs_proc
def test_ingest_is_measured_against_the_sum_of_its_parts():
    arguments = ["--cores", "1", "--tracks", "2", "--minutes", "0.2", "--hours", "0.01"]
    result = CliRunner().invoke(ingest.main, arguments)
    assert result.exit_code == 0, result.output
    parts, run, long = (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{"))
    clock_s, processor_s = parts["clock_s"], parts["processor_s"]
    assert list(clock_s) == list(processor_s) == ["decode", "resample", "inference", "chroma", "statistics", "insert"]
    assert min(processor_s.values()) > 0
    assert run["of_parts"] == pytest.approx(sum(clock_s.values()) * run["tracks_per_s_and_core"])
    assert run["cpu_of_parts"] == pytest.approx(sum(processor_s.values()) / run["cpu_s"])
    assert (run["cores"], run["tracks"], long["hours"]) == (1, 1, 0.01)
    assert 0 < run["half_mib"] <= run["peak_mib"] and long["peak_mib"] > 0


def test_more_cores_than_there_are_is_wrong_usage():
    result = CliRunner().invoke(ingest.main, ["--cores", "4096"])
    assert result.exit_code == 2 and "--cores 4096: this process may use" in result.stderr


def hold_for_a_moment(end: Connection) -> None:
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"1" * len(held[:: 1 << 12])  # touches every page
    del held
    end.send("held")
    end.recv()


@needs_proc
def test_memory_that_a_process_had_for_a_moment_is_counted():
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with ingest.watched() as family:
        before = family.peak_mib()
        child = context.Process(target=hold_for_a_moment, args=(there,))
        child.start()
        assert here.recv() == "held"
        assert family.peak_mib() >= before + 64
        here.send("end")
        child.join()
        assert family.peak_mib() >= before + 64  # nor is it forgotten when the process ends


def test_a_process_is_timed_and_its_imports_are_told(tmp_path):
    seconds, cpu_s, printed = startup.run(["-c", "print(sum(range(1_000_000)))"])
    assert min(seconds, cpu_s) > 0 and printed == "499999500000\n"
    (tmp_path / "slow.py").write_text("import time\n\ntime.sleep(0.5)\n")
    spent = startup.imports(["-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import slow"])
    assert spent["slow"] >= 500 and all(milliseconds >= 0 for milliseconds in spent.values())


@pytest.mark.skipif(not startup.shutil.which("strace"), reason="needs strace")
def test_system_calls_are_counted(tmp_path):
    counted = startup.calls(["-c", ""], tmp_path)
    assert counted["total"] >= sum(counted[name] for name in counted if name != "total") > 0


def test_ways_take_turns_and_the_least_of_each_counts(monkeypatch):
    """By a clock that the ways set themselves: turns of 3 + 5 and of 1 + 4 seconds are what 10 seconds begin."""
    now, order = [0.0], []

    def way(name: str, *seconds: float) -> Callable[[], None]:
        left = iter(seconds)

        def spend() -> None:
            order.append(name)
            now[0] += next(left)

        return spend

    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(inference.time, clock, lambda: now[0])
    ways = {"one": way("one", 100, 3, 1), "two": way("two", 100, 5, 4)}  # the first of each is not counted
    least = inference.take_turns(ways, 10)
    assert order == ["one", "two"] * 3
    assert least == {"one": {"s": 1, "cpu_s": 1}, "two": {"s": 4, "cpu_s": 4}}


def test_one_turn_is_taken_however_short_the_time():
    least = inference.take_turns({"asleep": lambda: time.sleep(0.002)}, 0)
    assert 0.002 <= least["asleep"]["s"] < math.inf and 0 <= least["asleep"]["cpu_s"] < math.inf


SERVER = """
import sys, threading, time

def spin():
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass

def build():
    spin()
    built.set()
    over.wait()

built, over = threading.Event(), threading.Event()
builder = threading.Thread(target=build)
builder.start()
built.wait()
print("up", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        over.set()
        builder.join()
    else:
        spin()
    print("done", time.process_time(), flush=True)
"""


@needs_proc
def test_a_thread_of_the_server_that_ends_takes_no_time_back(monkeypatch):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes) as server:

        def ask(what: str) -> str:
            server.stdin.write(f"{what}\n")
            server.stdin.flush()
            return server.stdout.readline()

        assert server.stdout.readline() == "up\n"
        sleep = time.sleep
        monkeypatch.setattr(machine.time, "sleep", lambda seconds: (ask("end"), sleep(seconds / 3)))
        cores = machine.Cores(server.pid)
        start, here = float(ask("end").split()[1]), time.process_time()
        answer, wall_s, core_s = cores.timed(ask, "work")
        spent = float(answer.split()[1]) - start + time.process_time() - here
        server.stdin.close()
    # The idle seconds' share is taken off, so what both processes say that they spent is the most; half of it is far
    # from the nothing that is left when the 0.3 s of the thread that ended are taken back.
    assert 0.15 < 0.5 * spent < core_s < spent + 0.01 and wall_s > 0.29


def test_loading_is_measured_against_a_reference():
    result = CliRunner().invoke(decoding.main, ["--seconds", "2", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [line["encoding"] for line in lines] == list(decoding.ENCODINGS)
    for line in lines:
        assert {"reference", "ours", "read", "packets", "hash packets"} <= set(line["cpu_ms"]) == set(line["times"])
        for name, milliseconds in line["cpu_ms"].items():
            assert line["times"][name] * milliseconds == pytest.approx(line["cpu_ms"]["reference"])


@pytest.mark.skipif(not ctypes.util.find_library("mpg123"), reason="needs libmpg123")
def test_the_other_decoder_decodes(tmp_path):
    library = ctypes.CDLL(ctypes.util.find_library("mpg123"))
    library.mpg123_init()
    library.mpg123_new.restype = ctypes.c_void_p
    decoding.encode(decoding.composed_song(2), tmp_path / "a.mp3", "libmp3lame", 44_100, "stereo", 192_000)
    whole, halved = (decoding.by_mpg123(library, tmp_path / "a.mp3", halved) for halved in (False, True))
    assert whole == pytest.approx(4 * halved, abs=8)  # two channels, and every sample
    assert whole == pytest.approx(2 * 2 * 44_100, abs=2)
