"""The time of `groups` on one core, step by step, on a real collection, and estimates for larger ones.

A Milvus Lite is filled with synthetic tracks of four minutes (520 frames of chroma): works of three tracks in three
keys and tempi, and as many tracks of a work of their own. All works must be found, and nothing else, or the benchmark
stops.

parts
    Milliseconds of a core: per track read and searched, per pair aligned and judged, per track grouped, per link with
    its evidence, per track written as JSON; pairs per track, links per track; bytes of the state per track.
estimate
    These parts, times what there is of each. The search of Milvus Lite is exact, so it grows with the number of tracks;
    above the 50 000 that it is for, ``--search-ms`` counts instead, what a search among a million costs client and
    server (docs/performance.md). Tracks of a large catalogue have more candidates that are no covers than here, so each
    is counted with ``--candidates`` pairs, as if no two tracks were each other's candidates.

Processor time, so that a busy machine changes it little: alignment and evidence run on all cores. Prints JSON lines::

    python -m benchmarks.speed.groups
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import processor
from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.alignment.evidence import evidence
from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.alignment.score import Background, Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.config import CHROMA_GROUPS, SAMPLE_RATE
from bytecover2_milvus.groups.find import find_groups
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.milvus.index import LITE_ROWS
from bytecover2_milvus.milvus.schema import Row
from bytecover2_milvus.pages.group_files import write_json_lines

FRAMES = 520  # four minutes of frames of 0.464 s
FRAME_S = 10_240 / SAMPLE_RATE
DIM = 128
IN_WORK = 3
ESTIMATED = (10_000, 1_000_000)
STORED_AT_ONCE = 200
# For these tracks: unrelated pairs of four minutes align with 8.1 +- 0.5, related ones with 19 and more.
BACKGROUNDS = {"vector": Background(0.0, 0.09), **dict.fromkeys(CHROMA_GROUPS, Background(8.1, 0.5))}
VERDICT = Verdict(BACKGROUNDS, Calibration((0.25, 0.5), -8.0), Calibration((0.5,), -4.0), "synthetic tracks")


@dataclass(frozen=True)
class Model:
    """Whose the embeddings and the chroma are."""

    model_id: str = "synthetic"
    dim: int = DIM
    contract_version: int = 2
    chroma_id: str = "synthetic"
    chroma_channels: int = 12 * len(CHROMA_GROUPS)


def drawn(work: int, number: int, frames: int) -> tuple[Row, NDArray[np.float32], NDArray[np.uint8]]:
    """A track of a work: its row, its embedding and its levels."""
    of_work, own = np.random.default_rng([work]), np.random.default_rng([work, number])
    notes = np.repeat(of_work.integers(0, 12, frames), of_work.integers(1, 5, frames))
    notes = notes[(np.arange(frames) * (1.0, 0.93, 1.08)[number]).astype(int)]
    chroma = own.random((frames, Model.chroma_channels)) * 0.4
    for start in range(0, Model.chroma_channels, 12):
        chroma[np.arange(frames), start + (notes + 3 * number) % 12] = 1
    embedding = of_work.normal(size=DIM) + 0.8 * own.normal(size=DIM)
    name = f"{work}-{number}"
    duration_s = frames * FRAME_S
    row = Row(name, hashlib.sha256(name.encode()).hexdigest(), duration_s, 0.0, duration_s, title=f"Song {name}")
    return row, (embedding / np.linalg.norm(embedding)).astype(np.float32), to_levels(chroma)


def fill(collection: TrackCollection, names: list[tuple[int, int]], frames: int) -> None:
    for start in range(0, len(names), STORED_AT_ONCE):
        rows, embeddings, levels = zip(
            *(drawn(*name, frames) for name in names[start : start + STORED_AT_ONCE]), strict=True
        )
        collection.upsert(rows, np.stack(embeddings), [encode(one) for one in levels])


@click.command()
@click.option("--tracks", default=1_000, show_default=True, type=click.IntRange(6))
@click.option("--frames", default=FRAMES, show_default=True, type=click.IntRange(60), help="Of each track.")
@click.option("--candidates", default=20, show_default=True, type=click.IntRange(1))
@click.option("--search-ms", default=13.0, show_default=True, help="Of a core, for a search among a million tracks.")
def main(tracks: int, frames: int, candidates: int, search_ms: float) -> None:
    """Measure each step of the search for groups."""
    n_works = tracks // (2 * IN_WORK)
    names = [(work, number) for work in range(n_works) for number in range(IN_WORK)]
    names += [(n_works + single, 0) for single in range(tracks - len(names))]
    spent: dict[str, float] = {}  # seconds of a core, by step
    counts: dict[str, int] = {}

    with tempfile.TemporaryDirectory() as folder, connected(str(Path(folder) / "milvus.db")) as client:
        collection = TrackCollection.create(client, "tracks", Model())
        fill(collection, names, frames)
        levels = drawn(0, 0, frames)[2]
        qmax_scores(levels, [levels])  # compiled, or read from the cache, before the clock starts
        evidence(levels, levels)
        last = time.process_time()

        def watch(step: str, done: int, total: int) -> None:
            nonlocal last
            now = time.process_time()
            spent[step] = spent.get(step, 0.0) + now - last
            counts[step] = max(done, counts.get(step, 0))
            last = now

        state = Path(folder) / "state.sqlite"
        start = time.perf_counter()
        with find_groups(collection, VERDICT, FRAME_S, state, candidates=candidates, watch=watch) as found:
            wall_s = time.perf_counter() - start
            last = time.process_time()
            write_json_lines(found, Path(folder) / "groups.jsonl", "tracks")
            watch("write", found.n_tracks, found.n_tracks)
            works = {frozenset(track.track_id.partition("-")[0] for track in group.tracks) for group in found}
            if found.n_tracks != n_works * IN_WORK or works != {frozenset([str(work)]) for work in range(n_works)}:
                raise click.ClickException(f"{found}: not the {n_works} works that there are")
            n_pairs = found.pairs
        state_bytes = state.stat().st_size

    parts = {
        "read_ms_per_track": 1e3 * spent["copy"] / tracks,
        "search_ms_per_track": 1e3 * spent["search"] / tracks,
        "align_ms_per_pair": 1e3 * spent["align"] / n_pairs,
        "judge_ms_per_pair": 1e3 * spent["judge"] / n_pairs,
        "group_ms_per_track": 1e3 * spent["group"] / tracks,
        "evidence_ms_per_link": 1e3 * spent["explain"] / counts["explain"],
        "write_ms_per_track": 1e3 * spent["write"] / found.n_tracks,
    }
    shares = {"pairs_per_track": n_pairs / tracks, "links_per_track": counts["explain"] / tracks}
    stored = {"state_bytes_per_track": state_bytes / tracks}
    told = {"tracks": tracks, "frames": frames, "candidates": candidates, "wall_s": wall_s}
    _print("parts", **told, **parts, **shares, **stored, processor=processor())
    for n in ESTIMATED:
        exact = n <= LITE_ROWS
        hours = {
            "read": n * parts["read_ms_per_track"],
            "search": n * (parts["search_ms_per_track"] * n / tracks if exact else search_ms),
            "align": n * candidates * parts["align_ms_per_pair"],
            "judge": n * candidates * parts["judge_ms_per_pair"],
            "group": n * parts["group_ms_per_track"],
            "evidence": n * shares["links_per_track"] * parts["evidence_ms_per_link"],
            "write": n * found.n_tracks / tracks * parts["write_ms_per_track"],
        }
        hours = {step: ms / 3.6e6 for step, ms in hours.items()}
        gigabytes = n * stored["state_bytes_per_track"] / 1e9
        _print("estimate", tracks=n, core_hours=hours, core_hours_in_all=sum(hours.values()), state_gb=gigabytes)


def _print(what: str, **figures: object) -> None:
    click.echo(json.dumps({"what": what, **figures}))


if __name__ == "__main__":
    main()
