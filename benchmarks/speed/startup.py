"""The time of a process before it answers: ``--help``, and the first query, stage by stage.

Each is a new process, the best of several: seconds by the clock, and of processor time, which holds on a busy machine
too. ``imports`` are the packages that the query's process imports, in milliseconds of their own (``-X importtime``);
``calls`` its system calls where strace is installed. The collection holds one track, the file that is asked for, in
Milvus Lite: with a server, ``connect`` and ``search`` are its round trips instead, and Milvus Lite is not imported.
Prints JSON lines on stdout and a table on stderr. Run from the repository::

    python -m benchmarks.speed.startup
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import soundfile

from bytecover2_milvus.config import SAMPLE_RATE

CLIP_S = 45
PACKAGES = 8  # that are named
STAGES = """
import json, sys, time
start = time.perf_counter(), time.process_time()
spent = {}
def done(stage):
    global start
    now = time.perf_counter(), time.process_time()
    spent[stage], start = (now[0] - start[0], now[1] - start[1]), now
import onnxruntime
done("import onnxruntime")
from bytecover2_milvus import Embedder, TrackCollection, load_audio
embedder = Embedder()
done("open bundle and session")
waveform = load_audio(sys.argv[1])
done("decode")
embedding = embedder.embed(waveform)
done("embed")
import pymilvus
done("import pymilvus")
from bytecover2_milvus.milvus.connection import connect
client = connect(sys.argv[2])
done("connect, with Milvus Lite")
covers = TrackCollection.open(client, "tracks", embedder.model_id)
done("open collection")
covers.search(embedding)
done("search")
covers.search(embedder.embed(load_audio(sys.argv[1])))
done("a second query, all of it")
print(json.dumps(spent))
"""


def run(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds and processor seconds of a Python process, and what it printed.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def best(arguments: list[str], runs: int) -> dict[str, float]:
    measured = [run(arguments) for _ in range(runs)]
    return {"s": min(wall for wall, _, _ in measured), "cpu_s": min(cpu for _, cpu, _ in measured)}


def stages(file: Path, uri: str, runs: int) -> dict[str, dict[str, float]]:
    """The best of every stage of a query."""
    measured = [json.loads(run(["-c", STAGES, str(file), uri])[2]) for _ in range(runs)]
    return {
        stage: {"s": min(times[stage][0] for times in measured), "cpu_s": min(times[stage][1] for times in measured)}
        for stage in measured[0]
    }


def imports(arguments: list[str]) -> dict[str, float]:
    """Milliseconds that each package takes to import, without what it imports in turn; the longest ones."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    spent: Counter[str] = Counter()
    for microseconds, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", done.stderr):
        spent[name.partition(".")[0]] += int(microseconds)
    return {name: microseconds / 1e3 for name, microseconds in spent.most_common(PACKAGES)}


def calls(arguments: list[str], folder: Path) -> dict[str, int] | None:
    """The number of system calls of each kind, of all threads of the process; None without strace."""
    if not shutil.which("strace"):
        return None
    table = folder / "calls"
    command = ["strace", "--follow-forks", "--summary-only", "--output", table, sys.executable, *arguments]
    subprocess.run(command, capture_output=True, check=True)
    rows = [line.split() for line in table.read_text().splitlines() if re.match(r"\s+[\d.]+\s", line)]
    counts = Counter({row[-1]: int(row[3]) for row in rows})
    return {"total": counts.pop("total", sum(counts.values())), **dict(counts.most_common(5))}


@click.command()
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each process.")
def main(runs: int) -> None:
    """Measure the start of the command line and of the first query."""
    program = ["-m", "bytecover2_milvus"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, uri = folder / "clip.wav", str(folder / "tracks.db")
        waveform = np.random.default_rng(0).normal(0, 0.1, (CLIP_S * 44_100, 2))
        soundfile.write(file, waveform, 2 * SAMPLE_RATE)
        run([*program, "ingest", str(file), "--uri", uri])
        query = [*program, "query", str(file), "--uri", uri]
        measured = {"bare Python": best(["-c", ""], runs), "--help": best([*program, "--help"], runs)}
        measured |= {"query": best(query, runs)}
        inside = stages(file, uri, runs)
        click.echo(json.dumps({"what": "processes", **measured}))
        click.echo(json.dumps({"what": "query", **inside}))
        click.echo(json.dumps({"what": "imports", **imports(query)}))
        click.echo(
            json.dumps({"what": "calls", "--help": calls([*program, "--help"], folder), "query": calls(query, folder)})
        )
    for title, rows in (("process", measured), ("stage of the query", inside)):
        click.echo(f"{title:27} {'ms':>7} {'cpu ms':>7}", err=True)
        for stage, times in rows.items():
            click.echo(f"{stage:27} {1e3 * times['s']:7.0f} {1e3 * times['cpu_s']:7.0f}", err=True)


if __name__ == "__main__":
    main()
