"""The cost of one query on one core, as in Table 2 of the ByteCover2 paper: ours, and a pipeline of common libraries.

One command, JSON lines on stdout, a table on stderr::

    python -m benchmarks.speed.table2 --tracks 1000000 --queries 1000

A query is a clip of 45 s, stereo at 44.1 kHz, as wav and as mp3; it ends with the five closest of ``--tracks`` tracks.
This process and the Milvus server that it starts run on one core, every library with one thread.

reference
    ``librosa.load``, ``librosa.cqt`` and the mean over blocks of frames; the network as trained, in PyTorch, eager;
    Faiss' IndexFlatIP.
ours
    ``load_audio``; front end and network in ONNX Runtime; ``TrackCollection.search``, on a server with HNSW, or exact
    in a Milvus Lite.

Both take turns, query by query, on the same clips, with the same weights. *Preprocessing* is ``load`` and ``cqt``. In
the bundle front end and network are one graph; to tell them apart they run here as two, and ``whole`` is the bundle's
own graph, once per query, beside them. Where a chroma network is joined they are not told apart: all is inference.
``ms`` is what the clock says, ``cpu_ms`` what the core spent on it, here and in the server: without other load they are
the same, and on a shared machine the second is what the first would be.

Networks: ``bundle`` is the one that ships. ``paper-128`` and ``paper-1536`` are the paper's, ResNet50-IBN and 2.3 s per
input frame, with random weights, which time does not depend on. Clips are composed songs, rendered. Vectors to search
are those of `benchmarks/speed/retrieval.py`.

``second stage`` is a query as the bundle answers it, with a verdict: ``load``; the bundle's graph, which hears both the
embedding and the chroma (``whole``); a search for the hundred closest of ``--tracks`` (``retrieval``); and their
alignment (``rerank``), read from a collection of a hundred synthetic tracks of four minutes, none of which is probable
enough to be shown. ``more_ms`` is what that takes more than ours with the graph in one.

``limits`` are what the parts could take at best here: their FLOPs (a multiplication and an addition are two) at the
rate of a large matrix product, and the bytes of all vectors at the rate at which memory is read.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import Cores, processor
from benchmarks.milvus_server import MilvusServer
from benchmarks.speed.as_trained import PooledCQT, as_trained
from benchmarks.speed.catalogue import (
    HNSW,
    NAME,
    connected,
    draw_catalogue,
    fill,
    fit_neighbourhood,
    flat_index,
    settle,
    songs_options,
)
from benchmarks.speed.query_pipelines import (
    CLIP_S,
    Pipeline,
    make_clips,
    network_of,
    ours,
    reference,
    second_stage,
    whole,
)
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.index import EXACT
from bytecover2_milvus.training.checkpoint import Checkpoint

FORMATS = ("wav", "mp3")
NETWORKS = ("bundle", "paper-128", "paper-1536")
PARTS = ("load", "cqt", "inference", "retrieval")
MATRIX_SIDE = 1024  # of the product that measures the rate of arithmetic
READ_BYTES = 256 << 20  # of the array that measures the rate of memory
VECTOR_QUERIES = 1_000  # as `benchmarks.speed.retrieval` draws them
HEADER = (
    f"{'network':10} {'file':4} {'ms':9} {'preprocessing':>15} {'inference':>13} {'retrieval':>13} {'total':>15} "
    f"{'of core':>7}"
)

SECOND_STAGE = ("load", "whole", "retrieval", "rerank")

Seconds = list[float]  # two: by the clock, and of the core


def pin(core: int) -> None:
    """Every thread of this process, and what it starts from now on, on one core."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def ask_in_turn(parts: dict[str, Callable[[Any], Any]], clip: Path, cores: Cores) -> tuple[Any, dict[str, Seconds]]:
    """The answer of the last of several parts, and what each took."""
    value, taken = clip, {}
    for part, function in parts.items():
        value, *taken[part] = cores.timed(function, value)
    return value, taken


def measure(
    pipelines: dict[str, Pipeline],
    whole: Callable[..., Any],
    clips: list[Path],
    queries: int,
    cores: Cores,
    verdict: dict[str, Callable[[Any], Any]] | None = None,
) -> dict[str, Any]:
    """Both pipelines in turns, `queries` times, after a round that is not counted and shows that they agree."""
    for number, clip in zip(range(-1, queries), itertools.cycle(clips), strict=False):
        answers = {way: ask_once(pipeline, clip, cores) for way, pipeline in pipelines.items()}
        embedding, *seconds = cores.timed(whole, pipelines["ours"].load(clip))
        if verdict:
            judged, staged = ask_in_turn(verdict, clip, cores)
        if number < 0:
            (ours, our_tracks, _), (reference, their_tracks, _) = answers["ours"], answers["reference"]
            line = {
                "cosine_to_whole": float(ours @ embedding),
                "cosine_to_reference": float(ours @ reference),
                "same_tracks_found": our_tracks == their_tracks,
            }
            taken: dict[str, dict[str, list[Seconds]]] = {way: {part: [] for part in PARTS} for way in pipelines}
            taken["ours"]["whole"] = []
            if verdict:
                taken["second_stage"] = {part: [] for part in SECOND_STAGE}
                line["judged"] = len(judged)
            continue
        if verdict:
            for part, seconds_of_part in staged.items():
                taken["second_stage"][part].append(seconds_of_part)
        taken["ours"]["whole"].append(seconds)
        for way, (_, _, parts) in answers.items():
            for part in PARTS:
                taken[way][part].append(parts[part])
    for way, parts in taken.items():
        spent = {part: np.array(values) for part, values in parts.items()}  # (queries, 2)
        if way == "second_stage":
            spent["total"] = np.sum([spent[part] for part in SECOND_STAGE], axis=0)
        else:
            spent["preprocessing"] = spent["load"] + spent["cqt"]
            spent["total"] = spent["preprocessing"] + spent["inference"] + spent["retrieval"]
        line[way] = {part: statistics(values) for part, values in spent.items()}
    if verdict:
        line["second_stage"]["more_ms"] = {
            kind: line["second_stage"]["total"][kind]
            - sum(line["ours"][part][kind] for part in ("load", "whole", "retrieval"))
            for kind in ("ms", "cpu_ms")
        }
    line["ratios"] = {
        kind: {
            part: line["reference"][part][kind] / line["ours"][part][kind]
            for part in (*PARTS, "preprocessing", "total")
        }
        for kind in ("ms", "cpu_ms")
    }
    return line


def ask_once(pipeline: Pipeline, clip: Path, cores: Cores) -> tuple[NDArray[np.float32], list[str], dict[str, Seconds]]:
    """The embedding of a clip, the tracks it finds, and what each part took."""
    waveform, *load = cores.timed(pipeline.load, clip)
    cqt, *transform = cores.timed(pipeline.cqt, waveform)
    embedding, *inference = cores.timed(pipeline.inference, cqt)
    tracks, *retrieval = cores.timed(pipeline.retrieval, embedding)
    return embedding, tracks, dict(zip(PARTS, (load, transform, inference, retrieval), strict=True))


def statistics(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Of durations (queries, 2): mean and deviation by the clock, and the mean of the core."""
    mean, deviation = seconds.mean(axis=0) * 1e3, seconds.std(axis=0) * 1e3
    return {"ms": mean[0], "ms_deviation": deviation[0], "cpu_ms": mean[1], "cpu_ms_deviation": deviation[1]}


def limits(checkpoint: Checkpoint, index: faiss.Index) -> dict[str, float]:
    """The least that arithmetic and memory allow, milliseconds of the core, and the rates that say so."""
    one = np.random.default_rng(0).standard_normal((MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    flops_per_s = 2 * MATRIX_SIDE**3 / min(_seconds(lambda: one @ one) for _ in range(10))
    much = np.ones(READ_BYTES // 4, dtype=np.float32)
    bytes_per_s = READ_BYTES / min(_seconds(lambda: much @ much) for _ in range(10))
    waveform = torch.zeros(1, round(CLIP_S * SAMPLE_RATE))
    back = as_trained(checkpoint)
    front = PooledCQT(replace(checkpoint.config.front_end, time_pooling=back.pooling))
    cqt_flops = _flops(front, waveform)
    network_flops = _flops(back, front(waveform) + 1)
    flat_bytes = 4 * index.d * index.ntotal
    return {
        "flops_per_s": flops_per_s,
        "bytes_per_s": bytes_per_s,
        "cqt_flops": cqt_flops,
        "network_flops": network_flops,
        "flat_bytes": flat_bytes,
        "cqt_ms": 1e3 * cqt_flops / flops_per_s,
        "inference_ms": 1e3 * network_flops / flops_per_s,
        "flat_retrieval_ms": 1e3 * flat_bytes / bytes_per_s,
    }


def _flops(module: nn.Module, argument: Tensor) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(argument)
    return counter.get_total_flops()


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def rows_of(line: dict[str, Any]) -> Iterator[str]:
    """Three rows of the table: reference, ours, and how many times faster ours is."""
    head = f"{line['network']:10} {line['format']:4}"
    for way in ("reference", "ours"):
        cells = {part: f"{line[way][part]['ms']:.1f} ± {line[way][part]['ms_deviation']:.1f}" for part in line[way]}
        yield (
            f"{head} {way:9} {cells['preprocessing']:>15} {cells['inference']:>13} {cells['retrieval']:>13} "
            f"{cells['total']:>15} {line[way]['total']['cpu_ms']:7.1f}"
        )
    if staged := line.get("second_stage"):
        cells = {
            part: f"{staged[part]['ms']:.1f} ± {staged[part]['ms_deviation']:.1f}" for part in (*SECOND_STAGE, "total")
        }
        yield (
            f"{head} with second stage: load {cells['load']}, whole {cells['whole']}, retrieval {cells['retrieval']}, "
            f"rerank {cells['rerank']}, total {cells['total']}, of core {staged['total']['cpu_ms']:.1f}, "
            f"{staged['more_ms']['cpu_ms']:.1f} more"
        )
    times = line["ratios"]["ms"]
    yield (
        f"{head} {'times':9} {times['preprocessing']:15.1f} {times['inference']:13.1f} {times['retrieval']:13.1f} "
        f"{times['total']:15.1f} {line['ratios']['cpu_ms']['total']:7.1f}   cqt {line['ratios']['cpu_ms']['cqt']:.1f}"
    )


@contextmanager
def filled(where: str, vectors: NDArray[np.float32]) -> Iterator[tuple[TrackCollection, int | None]]:
    """A collection with all vectors and, of a server, its process."""
    with tempfile.TemporaryDirectory() as folder:
        if where == "lite":
            with connected(str(Path(folder, "milvus.db"))) as client:
                settle(fill(client, vectors, EXACT, {}))
                yield TrackCollection.open(client, NAME), None
        else:
            with MilvusServer(Path(folder)) as server, connected(server.uri) as client:
                settle(fill(client, vectors, "HNSW", HNSW))
                yield TrackCollection.open(client, NAME), server.process.pid


@click.command()
@click.option(
    "--network",
    "networks",
    multiple=True,
    type=click.Choice(NETWORKS),
    default=("bundle", "paper-128"),
    show_default=True,
)
@click.option("--tracks", type=click.IntRange(1_000), default=100_000, show_default=True, help="Tracks to search.")
@click.option("--queries", type=click.IntRange(1), default=100, show_default=True, help="Of each network and format.")
@click.option("--clips", type=click.IntRange(1), default=8, show_default=True, help="Different ones among the queries.")
@click.option("--milvus", type=click.Choice(["server", "lite"]), default="server", show_default=True)
@click.option("--core", type=click.IntRange(0), help="The one to run on; the default is the last that may be used.")
@songs_options
def main(
    networks: tuple[str, ...],
    tracks: int,
    queries: int,
    clips: int,
    milvus: str,
    core: int | None,
    songs: int,
    embeddings: Path | None,
) -> None:
    """Time preprocessing, inference and retrieval of a query on one core, ours and the reference in turns."""
    pin(max(os.sched_getaffinity(0)) if core is None else core)
    like, _ = fit_neighbourhood(songs, embeddings)
    run = {"tracks": tracks, "queries": queries, "milvus": milvus, "processor": processor()}
    by_dim = itertools.groupby(networks, lambda name: 1536 if name.endswith("1536") else 128)
    click.echo(HEADER, err=True)
    try:
        for dim, names in by_dim:
            vectors = draw_catalogue(like, tracks, VECTOR_QUERIES, dim, seed=0).vectors
            index = flat_index(vectors)
            with filled(milvus, vectors) as (collection, pid), tempfile.TemporaryDirectory() as folder:
                cores = Cores(pid)
                for name in names:
                    checkpoint = network_of(name)
                    graph = whole(name, checkpoint)
                    pipelines = {
                        "reference": reference(checkpoint, index),
                        "ours": ours(checkpoint, graph, collection),
                    }
                    least = limits(checkpoint, index)
                    with second_stage(collection) if name == "bundle" else nullcontext() as verdict:
                        for suffix in FORMATS:
                            made = make_clips(Path(folder), clips, suffix)
                            line = {"network": name, "dim": dim, "format": suffix} | run
                            line |= measure(pipelines, graph, made, queries, cores, verdict) | {"limits": least}
                            click.echo(json.dumps(line))
                            click.echo("\n".join(rows_of(line)), err=True)
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
