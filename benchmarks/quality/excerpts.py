"""The share that excerpts find of what whole tracks find: with and without segments, by the vector and by both stages.

One command, JSON lines on stdout, a table on stderr::

    python -m benchmarks.quality.excerpts --scores SCORES --cache CACHE --markdown table.md

Protocol
--------
The clean tracks of the sets of `benchmarks.quality.validation` are stored together in a Milvus Lite, whole, and in a
second collection also in segments of 30 seconds, one every 15 seconds. The first track of each work asks, as it is and
by excerpts from anywhere in it; its own track is left out, and the others of its work are to be found. `query` is
followed: the first stage proposes `rerank.candidates_for` tracks, which the second stage orders. MAP counts a track
that was not proposed as never found. *Proposed* is the share of the tracks to be found that the second stage gets to
see, and *proposed, 100* what it would be with 100 candidates for all. *Rows* are stored for each track, and the
milliseconds are processor time of a query, embedding aside.
"""

from __future__ import annotations

import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np

from benchmarks.held_out import HeldOut, Recording, held_out_options
from benchmarks.quality.stored import bundle_option, calibrated_embedder, store
from benchmarks.quality.validation import excerpt, publish
from bytecover2_milvus.audio.segments import WHOLE, Segments
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import Query, embed_query
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.milvus.search import Match
from bytecover2_milvus.second_stage.rerank import CANDIDATES, Reranker, candidates_for

CUTS = {"whole": WHOLE, "30 s every 15 s": Segments(30.0, 15.0)}
VECTOR, BOTH = "vector", "both stages"

Asking: TypeAlias = tuple[Recording, Query]


@dataclass(frozen=True)
class Score:
    """The scores of queries of one length in a collection."""

    query_s: float | None  # None for whole tracks
    stored: str
    system: str
    map: float
    share: float  # of the MAP that whole tracks have where whole tracks are stored
    sets: dict[str, float]  # MAP by set
    queries: int
    candidates: float  # of a query, mean
    proposed: float
    proposed_of_100: float
    rows_per_track: float
    cpu_ms: float  # of a query


def ranks_of(matches: Sequence[Match], relevant: set[str]) -> list[int]:
    """The ranks of the tracks to be found, from 1, of those that were found."""
    return [rank for rank, match in enumerate(matches, start=1) if match.track_id in relevant]


def precision(ranks: Sequence[int], n_relevant: int) -> float:
    """Average precision, where what was not found has no rank."""
    return sum(number / rank for number, rank in enumerate(ranks, start=1)) / n_relevant


def ask_all(
    asking: Sequence[Asking], relevant: dict[str, set[str]], collection: TrackCollection, embedder: Embedder
) -> dict[str, list[float]]:
    """Of each query in order: average precision by system, "candidates", "proposed", "proposed_of_100" and "cpu_ms"."""
    assert embedder.verdict is not None
    second = Reranker(collection, embedder.verdict, embedder.frame_s)
    found: dict[str, list[float]] = {}
    for recording, query in asking:
        assert query.heard is not None
        ours, start = relevant[recording.track_id], time.process_time()
        limit = candidates_for(query.heard)
        (matches,) = collection.search([query], limit, exclude=[recording.track_id])
        ranked = second.rerank(query.heard, matches)
        values = {
            "cpu_ms": 1000 * (time.process_time() - start),
            VECTOR: precision(ranks_of(matches, ours), len(ours)),
            BOTH: precision(ranks_of(ranked, ours), len(ours)),
            "candidates": len(matches),
            "proposed": len(ranks_of(matches, ours)) / len(ours),
            "proposed_of_100": len(ranks_of(matches[:CANDIDATES], ours)) / len(ours),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def measure(recordings: Sequence[Recording], lengths: Sequence[float], embedder: Embedder) -> list[Score]:
    """The scores of whole queries and of those of all lengths, in collections with and without segments."""
    works: dict[str, set[str]] = {}
    for recording in recordings:
        works.setdefault(recording.work_id, set()).add(recording.track_id)
    firsts = [one for one in recordings if len(works[one.work_id]) > 1 and one.track_id == min(works[one.work_id])]
    relevant = {one.track_id: works[one.work_id] - {one.track_id} for one in firsts}
    asked: dict[float | None, list[Asking]] = {}
    for length in (None, *lengths):
        for one in firsts:
            rng = np.random.default_rng(zlib.crc32(f"{one.track_id} {length}".encode()))
            waveform = one.waveform if length is None else excerpt(length, one.waveform, rng)
            asked.setdefault(length, []).append((one, embed_query(waveform, embedder)))
    scores: list[Score] = []
    whole: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, connected(str(Path(folder) / "milvus.db")) as client:
        for number, (stored, cut) in enumerate(CUTS.items()):
            collection = TrackCollection.create(client, f"excerpts_{number}", embedder)
            collection.set_segmentation(cut)
            store(recordings, embedder, collection)
            for length, asking in asked.items():
                found = ask_all(asking, relevant, collection, embedder)
                mean = {name: float(np.mean(values)) for name, values in found.items()}
                names = np.array([recording.work_id.partition("/")[0] for recording, _ in asking])
                for system in (VECTOR, BOTH):
                    values = np.array(found[system])
                    scores.append(
                        Score(
                            length,
                            stored,
                            system,
                            mean[system],
                            mean[system] / whole.setdefault(system, mean[system]),
                            {name: round(float(values[names == name].mean()), 4) for name in dict.fromkeys(names)},
                            len(asking),
                            mean["candidates"],
                            mean["proposed"],
                            mean["proposed_of_100"],
                            collection.count() / len(recordings),
                            mean["cpu_ms"],
                        )
                    )
    return scores


def markdown(scores: Sequence[Score]) -> str:
    """A table for people: a row for each length, way to store and system."""
    names = list(scores[0].sets)
    lines = [
        f"| query | stored | by | MAP | of whole | {' | '.join(names)} | candidates | proposed | proposed, 100 | ms |",
        "|---" * (9 + len(names)) + "|",
    ]
    for row in sorted(scores, key=lambda score: -(score.query_s or np.inf)):
        cells = ["whole" if row.query_s is None else f"{row.query_s:g} s", f"{row.stored} ({row.rows_per_track:.1f})"]
        cells += [
            row.system,
            f"{row.map:.3f}",
            f"{100 * row.share:.0f} %",
            *(f"{row.sets[name]:.3f}" for name in names),
        ]
        cells += [f"{row.candidates:.0f}", f"{row.proposed:.3f}", f"{row.proposed_of_100:.3f}", f"{row.cpu_ms:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@held_out_options(works=20, required=False)
@bundle_option
@click.option(
    "--query", "lengths", multiple=True, type=click.FloatRange(5), default=[45, 30, 20, 10], show_default=True,
    help="Seconds.",
)  # fmt: skip
@click.option("--markdown", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to a file.")
def main(held_out: HeldOut, bundle: Path | None, lengths: tuple[float, ...], table: Path | None) -> None:
    """Measure what excerpts find, with and without segments."""
    embedder = calibrated_embedder(bundle)
    with click.progressbar(held_out.works(), label="works", file=sys.stderr) as bar:
        recordings = [recording for work in bar for recording in held_out.recordings(work)]
    scores = measure(recordings, lengths, embedder)
    publish(scores, markdown(scores), table)


if __name__ == "__main__":
    main()
