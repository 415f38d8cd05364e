"""The benchmarks of ingest, start-up and inference at toy size: their figures hang together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import ingest, machine, startup
from benchmarks.inference import take_turns

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, to see memory")


@needs_proc
def test_ingest_is_measured_against_the_sum_of_its_parts():
    arguments = ["--cores", "1", "--tracks", "2", "--minutes", "0.2", "--hours", "0.01"]
    result = CliRunner().invoke(ingest.main, arguments)
    assert result.exit_code == 0, result.output
    parts, run, long = (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{"))
    clock_s, processor_s = parts["clock_s"], parts["processor_s"]
    assert list(clock_s) == list(processor_s) == ["decode", "resample", "inference", "insert"]
    assert run["of_parts"] == pytest.approx(sum(clock_s.values()) * run["tracks_per_s_and_core"])
    assert run["cpu_of_parts"] == pytest.approx(sum(processor_s.values()) / run["cpu_s"])
    assert (run["cores"], run["tracks"], long["hours"]) == (1, 1, 0.01)
    assert 0 < run["half_mib"] <= run["peak_mib"] and long["peak_mib"] > 0


def test_more_cores_than_there_are_is_wrong_usage():
    result = CliRunner().invoke(ingest.main, ["--cores", "4096"])
    assert result.exit_code == 2 and "--cores 4096: this process may use" in result.stderr


@needs_proc
def test_memory_that_a_process_had_for_a_moment_is_counted():
    with ingest.watched() as family:
        before = family.peak_mib()
        held = bytearray(64 << 20)
        held[:: 1 << 12] = b"1" * len(held[:: 1 << 12])  # touches every page
        del held
        assert family.peak_mib() >= before


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


def test_ways_take_turns():
    order = []
    ways = {"one": lambda: order.append(1), "two": lambda: (order.append(2), time.sleep(0.002))}
    least = take_turns(ways, 0.02)
    assert order[:4] == [1, 2, 1, 2] and len(order) % 2 == 0
    assert 0 <= least["two"]["cpu_s"] <= least["two"]["s"] and least["two"]["s"] >= 0.002
    assert sys.float_info.max > least["one"]["s"]


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
    print("done", flush=True)
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
        answer, wall_s, core_s = machine.Cores(server.pid).timed(ask, "work")
        server.stdin.close()
    assert answer == "done\n" and 0.25 < core_s < 0.4 and wall_s > 0.25
