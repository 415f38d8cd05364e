"""The gain and the cost of segments for short queries: whole-track rows against rows of segments.

One command, JSON lines on stdout, tables on stderr::

    python -m benchmarks.quality.segments --works 40 --cache CACHE --markdown table.md

Protocol
--------
The sets, their tracks and how they are cached are those of `benchmarks.quality.validation`. Every track of at most two
minutes is a candidate, stored whole or whole and in segments; an excerpt from anywhere in every track is a query, the
same for all. It asks with its whole and, if it is longer than a segment, once more cut as the tracks are; two
recordings are as similar as their closest pair.

For MAP and MR1, which are exact, the query's own track is not among its candidates (removed by identity): what is to be
found are other arrangements, which need not play the part that the query is of. With its own track put back, *own
first* is the share of queries that find it before all others. A gain is the mean over queries of the difference to
whole-track rows on the same queries. Intervals are 95 %, by bootstrap over works.

Cost
----
A collection of the tracks, and of as many made-up ones as make ``--catalogue`` tracks, is searched for ten tracks, one
query at a time, through `TrackCollection.search`; the median counts. A made-up track has the rows of a real one, turned
in one random direction, so that its rows are as close to each other. In brackets is the processor time of this process,
which with Milvus Lite is all there is, however busy the machine; embedding is given in processor time of one thread.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOut, Waveform, Work, clean_tracks, held_out_options, in_processes
from benchmarks.quality.segments_table import Length, Score, markdown
from benchmarks.quality.validation import excerpt, publish
from bytecover2_milvus.audio.segments import WHOLE, Segments
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.query import Query, embed_query
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.metrics import average_precision, bootstrap_interval, mean_difference
from bytecover2_milvus.milvus.alias import drop_collection
from bytecover2_milvus.milvus.collection import ROWS_PER_UPSERT, TrackCollection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.milvus.index import await_index
from bytecover2_milvus.milvus.schema import Row

LIMIT = 10  # tracks that a timed search asks for

Asked: TypeAlias = tuple[Length, Segments]  # an excerpt, and how it is cut


@dataclass(frozen=True)
class Embedded:
    """A recording in a cut, and the milliseconds of processor time that embedding it took."""

    parts: Query
    cpu_ms: float


@dataclass(frozen=True)
class Heard:
    """A track as it is stored in every cut, and excerpts of it of every length."""

    work_id: str
    track_id: str
    duration_s: float
    stored: dict[Segments, Embedded]
    asked: dict[Asked, Embedded]


@dataclass(frozen=True)
class Ranking:
    """Of every query, in the order of track_id."""

    average_precisions: NDArray[np.float64]
    first_ranks: NDArray[np.int64]
    own_first: NDArray[np.bool_]
    work_ids: list[str]


def hear(
    work: Work, cuts: Sequence[Segments], lengths: Sequence[Length], bundle: str, soundfont: Path, folder: Path
) -> list[Heard]:
    """Every track of a work, stored in every cut, and an excerpt of every length of it."""
    heard = []
    for track_id, waveform in clean_tracks(work, soundfont, folder):
        stored = {cut: _embed(waveform, cut, bundle) for cut in cuts}
        asked = {}
        for length in lengths:
            rng = np.random.default_rng(zlib.crc32(f"{track_id} {length}".encode()))
            query = waveform if length is None else excerpt(length, waveform, rng)
            asked |= {(length, cut): _embed(query, cut, bundle) for cut in cuts if _asks(length, cut)}
        heard.append(Heard(work.work_id, track_id, len(waveform) / SAMPLE_RATE, stored, asked))
    return heard


def _asks(length: Length, cut: Segments) -> bool:
    """True if queries of a length are asked in a cut: whole, or cut if they are longer than a segment."""
    return not cut or length is None or length > cut.length_s


_embedder = cache(partial(Embedder, device="cpu", threads=1))


def _embed(waveform: Waveform, cut: Segments, bundle: str) -> Embedded:
    embedder = _embedder(bundle or None)
    start = time.process_time()
    parts = embed_query(waveform, embedder, cut)
    return Embedded(parts, 1000 * (time.process_time() - start))


@dataclass(frozen=True)
class SearchTime:
    """Of one search, by the clock and of this process' processor time."""

    ms: float
    cpu_ms: float


def rank(tracks: Sequence[Heard], cut: Segments, asked: Asked) -> Ranking:
    """Ranks of tracks stored in a cut for queries of one kind. The tracks are in the order of track_id."""
    rows = np.concatenate([track.stored[cut].parts.embeddings for track in tracks])  # (n_rows, D)
    counts = [len(track.stored[cut].parts.embeddings) for track in tracks]
    first_row = np.cumsum([0, *counts[:-1]])
    works = np.array([track.work_id for track in tracks])
    precisions, ranks, own_first, work_ids = [], [], [], []
    for number, track in enumerate(tracks):
        pairs = track.asked[asked].parts.embeddings @ rows.T  # (n, n_rows)
        similarity = np.maximum.reduceat(pairs.max(axis=0), first_row)  # (n_tracks,)
        others = np.arange(len(tracks)) != number
        relevant = (works == track.work_id)[others]
        if relevant.any():
            precisions.append(average_precision(similarity[others], relevant))
            ranks.append(1 + int(relevant[np.argsort(-similarity[others], kind="stable")].argmax()))
            own_first.append(similarity[number] > similarity[others].max())
            work_ids.append(track.work_id)
    return Ranking(np.array(precisions), np.array(ranks), np.array(own_first), work_ids)


def measure_search(
    uri: str,
    embedder: Embedder,
    tracks: Sequence[Heard],
    cut: Segments,
    kinds: Sequence[Asked],
    catalogue: int,
    searches: int,
) -> tuple[int, dict[Asked, SearchTime]]:
    """Rows of a catalogue stored in a cut, and how long a search in it takes, by kind of query."""
    client = connect(uri)
    collection = TrackCollection.create(client, f"segments_{uuid.uuid4().hex}", embedder)
    try:
        collection.set_segmentation(cut)
        rows = _catalogue(tracks, cut, catalogue, embedder.dim)
        while batch := list(islice(rows, ROWS_PER_UPSERT)):
            collection.upsert([row for row, _ in batch], np.stack([embedding for _, embedding in batch]))
        n_rows = collection.count()
        collection.flush()  # as `ingest` does
        await_index(client, collection.name)
        search_times = {}
        for asked in kinds:
            durations = []  # seconds, (searches, 2)
            for track in tracks[:searches]:
                start = time.perf_counter(), time.process_time()
                collection.search([track.asked[asked].parts], LIMIT)
                durations.append((time.perf_counter() - start[0], time.process_time() - start[1]))
            search_times[asked] = SearchTime(*(1000 * np.median(durations, axis=0)).tolist())
    finally:
        drop_collection(client, collection.name)
        close(client)
    return n_rows, search_times


def _catalogue(
    tracks: Sequence[Heard], cut: Segments, size: int, dim: int
) -> Iterator[tuple[Row, NDArray[np.float32]]]:
    """The rows of the tracks, then of made-up ones, track by track until there are `size`."""
    rng = np.random.default_rng(0)
    for number in range(max(size, len(tracks))):
        track = tracks[number] if number < len(tracks) else tracks[rng.integers(len(tracks))]
        track_id, embeddings = track.track_id, track.stored[cut].parts.embeddings
        if number >= len(tracks):
            direction = rng.standard_normal(dim)
            track_id, embeddings = f"made-up/{number}", embeddings + direction / np.linalg.norm(direction)
            embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        content_hash = hashlib.sha256(track_id.encode()).hexdigest()
        for (start_s, end_s), embedding in zip(track.stored[cut].parts.times_s, embeddings, strict=True):
            yield Row(track_id, content_hash, track.duration_s, start_s, end_s), embedding


def measure(
    held_out: HeldOut,
    cuts: Sequence[Segments],
    lengths: Sequence[Length],
    bundle: str,
    workers: int,
    uri: str,
    catalogue: int,
    searches: int,
) -> list[Score]:
    """The scores of every cut and length of query, on each set by itself."""
    works, audio = held_out.works(), {"soundfont": held_out.soundfont, "folder": held_out.folder}
    job = partial(hear, cuts=cuts, lengths=lengths, bundle=bundle, **audio)
    heard: dict[str, list[Heard]] = {}
    for work, tracks in zip(works, in_processes(job, works, workers), strict=True):
        heard.setdefault(work.set, []).extend(tracks)
    scores, embedder = [], _embedder(bundle or None)
    for name, tracks in heard.items():
        tracks.sort(key=lambda track: track.track_id)
        for cut in cuts:
            kinds = [
                (length, query) for length in lengths for query in dict.fromkeys((WHOLE, cut)) if _asks(length, query)
            ]
            n_rows, search_times = measure_search(uri, embedder, tracks, cut, kinds, catalogue, searches)
            scores += scores_of(name, tracks, cut, n_rows, search_times)
    return scores


def scores_of(
    name: str,
    tracks: Sequence[Heard],
    cut: Segments,
    n_rows: int,
    search_times: dict[Asked, SearchTime],
) -> Iterator[Score]:
    """The score of a cut on queries of each kind, beside what `measure_search` has measured."""
    for asked, times in search_times.items():
        ranking, start = rank(tracks, cut, asked), rank(tracks, WHOLE, (asked[0], WHOLE))
        both = ranking.average_precisions, start.average_precisions
        gain, gain_low, gain_high = mean_difference(*both, ranking.work_ids, seed=0)
        low, high = bootstrap_interval(ranking.average_precisions, ranking.work_ids, seed=0)
        yield Score(
            set=name,
            segment_s=cut.length_s,
            hop_s=cut.hop_s,
            query_s=asked[0],
            query_cut=bool(asked[1]),
            map=float(ranking.average_precisions.mean()),
            map_low=low,
            map_high=high,
            mr1=float(ranking.first_ranks.mean()),
            gain=gain,
            gain_low=gain_low,
            gain_high=gain_high,
            own_first=float(ranking.own_first.mean()),
            queries=len(ranking.average_precisions),
            candidates=len(tracks) - 1,
            rows_per_track=mean(len(track.stored[cut].parts.embeddings) for track in tracks),
            query_rows=mean(len(track.asked[asked].parts.embeddings) for track in tracks),
            embed_track_cpu_ms=median(track.stored[cut].cpu_ms for track in tracks),
            embed_query_cpu_ms=median(track.asked[asked].cpu_ms for track in tracks),
            catalogue_rows=n_rows,
            search_ms=times.ms,
            search_cpu_ms=times.cpu_ms,
        )


class _Cut(click.ParamType):
    name = "SEGMENT/HOP"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Segments:
        try:
            return value if isinstance(value, Segments) else Segments(*map(float, str(value).split("/")))
        except (BytecoverError, ValueError, TypeError) as error:
            self.fail(f"{value}: give seconds as 60/30 ({error})", param, ctx)


@click.command()
@held_out_options(least_works=1, required=False, sets=["traditional"])
@click.option(
    "--cut", "cuts", multiple=True, type=_Cut(), default=["60/30", "30/15", "20/10"], show_default=True, help="Seconds."
)
@click.option(
    "--query",
    "lengths",
    multiple=True,
    type=click.FloatRange(1),
    default=[10, 20, 30, 45, 60],
    show_default=True,
    help="Seconds of a query; whole tracks are asked for too.",
)
@click.option("--bundle", default="", help="Exported model; the default is the one that ships.")
@click.option("--uri", default="", help="Milvus to time; by default a Milvus Lite of its own.")
@click.option("--catalogue", default=2000, show_default=True, help="Tracks in the collection that is timed.")
@click.option("--searches", type=click.IntRange(1), default=10, show_default=True, help="Timed, of each kind.")
@click.option(
    "--markdown", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables to a file."
)
@click.option("--workers", type=click.IntRange(1), default=usable_cores(), show_default="all cores")
def main(
    held_out: HeldOut,
    cuts: tuple[Segments, ...],
    lengths: tuple[float, ...],
    bundle: str,
    uri: str,
    catalogue: int,
    searches: int,
    table: Path | None,
    workers: int,
) -> None:
    """Compare whole-track rows with rows of segments, by length of query: what is found, and what it costs."""
    cuts = tuple(dict.fromkeys((WHOLE, *cuts)))
    with tempfile.TemporaryDirectory() as own:
        place = uri or str(Path(own) / "segments.db")
        scores = measure(held_out, cuts, (*lengths, None), bundle, workers, place, catalogue, searches)
    publish(scores, markdown(scores), table)


if __name__ == "__main__":
    main()
