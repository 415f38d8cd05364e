"""``ingest``: how a catalogue gets into a collection."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BytecoverError
from ..options import device_option
from ..terminal import say
from .confirm import yes_option
from .ingest_checks import check_options
from .ingest_pass import Destination, IngestPass, reported_when_cut_off
from .inputs import tracks_at
from .milvus_target import MilvusTarget, collection_option, milvus_options
from .options import bundle_option, limits_options, manifest_options, segment_options

if TYPE_CHECKING:
    from ..audio.limits import Limits
    from ..audio.segments import Segments
    from ..ingest.watch import Watch
    from ..manifest import Track
    from ..milvus.properties import EmbeddingModel
    from .ingest_pass import StartIngest


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@manifest_options
@milvus_options
@collection_option
@bundle_option
@device_option
@limits_options
@segment_options(
    "Seconds of the segments to store beside the whole track; 0 for none. The default is the collection's, at first 0."
)
@click.option("--workers", type=click.IntRange(0), help="Processes that decode; by default one per core, at most 8.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Decode and embed on a Ray cluster: auto, host:6379, ray://host:10001 or local. Files need the same path on"
    " all its machines; --workers are then sessions, by default one per core, or per GPU.",
)
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Instead of audio: a Parquet file of collections export or embed, with its embeddings.",
)
@click.option(
    "--bulk",
    type=click.Path(file_okay=False, path_type=Path),
    help="Instead of into a Milvus: into Parquet files for its bulk import, in this folder.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Then delete, after asking, the tracks whose file is gone from these folders, or is named and not there.",
)
@yes_option
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: ingest what arrives, changes or is renamed.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 86_400),
    default=5.0,
    show_default=True,
    help="With --watch: seconds between two looks. A file is taken when it is the same in two of them.",
)
@click.option("--metrics", type=click.Path(path_type=Path), help="File to write the run's Prometheus metrics to.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per track on stdout.")
def ingest(
    paths: tuple[Path, ...],
    manifest: Path | None,
    types: dict[str, str],
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    device: str,
    segments: Segments | None,
    limits: Limits,
    workers: int | None,
    ray: str | None,
    vectors: Path | None,
    bulk: Path | None,
    prune: bool,
    yes: bool,
    watch: bool,
    interval: float,
    metrics: Path | None,
    as_json: bool,
) -> None:
    """Embed audio files, or all in folders, into a collection.

    What is there already with the same content is skipped, so the same command goes on where an ingest was cut off.
    A file that cannot be read is reported and the rest goes on; the exit code is then 1.

    With --segment, parts of a track are stored beside the whole, so that a short query finds it. The collection
    remembers their length; a track that is stored in segments of another length is cut again when it is ingested.

    - stands for a list of paths on standard input, one in a line, or a playlist; --manifest - for a manifest there.

    \b
    Example:
      bytecover2-milvus ingest music/ --uri bytecover2.db
    """
    from ..atomic import check_writable
    from ..ingest.prometheus import IngestRun
    from ..ingest.watch import Watch

    check_options(
        paths=paths,
        manifest=manifest,
        vectors=vectors,
        bulk=bulk,
        has_segments=segments is not None,
        has_ray=ray is not None,
        workers=workers,
        prune=prune,
        yes=yes,
        watch=watch,
    )
    if metrics:
        check_writable(metrics)

    def listed() -> list[Track]:
        return tracks_at(paths, manifest, types)

    with reported_when_cut_off(IngestRun(collection), metrics):
        if vectors:
            n_tracks, model, start = _of_vectors(vectors)
            tracks = None
        else:
            tracks = _listed_or_none(listed) if watch else listed()
            watched = Watch(tracks)  # made before they are read, so that a change meanwhile is noticed
            model, start_with = _of_audio(bundle, device, workers, ray, limits)
            n_tracks, start = len(tracks), start_with(tracks)
    one = IngestPass(Destination(milvus, collection, bulk), model, paths, yes, segments, metrics, as_json)
    failed = one.run(start, n_tracks, tracks, known=tracks if prune else None)
    if watch:
        say(f"watching, with a look every {interval:g} s; Ctrl-C ends it")

        def follow(ready: list[Track], known: list[Track], has_gone: bool) -> None:
            prunes = prune and has_gone
            if ready or prunes:
                one.run(start_with(ready), len(ready), ready, known=known if prunes else None)

        _watch(watched, listed, follow, interval)
    elif failed:
        sys.exit(1)


def _watch(
    watched: Watch,
    listed: Callable[[], list[Track]],
    follow: Callable[[list[Track], list[Track], bool], None],
    interval_s: float,
) -> None:
    """Look and ingest until Ctrl-C.

    Parameters
    ----------
    watched : Watch
    listed : callable
        Gives the tracks that are there now.
    follow : callable
        Takes the tracks to ingest, all tracks that are there, and whether files have gone.
    interval_s : float
        Seconds between two looks.
    """
    from ..errors import CollectionError

    told, has_gone = "", False
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(interval_s)
            try:
                tracks = _listed_or_none(listed)
                ready, gone = watched.look(tracks)
                has_gone |= gone
                try:
                    follow(ready, tracks, has_gone)
                except CollectionError:  # another process has the folder open, or the server is away
                    watched.again(ready)
                    raise
                told, has_gone = "", False
            except BytecoverError as error:  # a manifest is half written, perhaps
                if str(error) != told:
                    told = str(error)
                    say(f"{told}; trying again")
    say("no longer watching")


def _listed_or_none(listed: Callable[[], list[Track]]) -> list[Track]:
    """The tracks that are there now; an empty list where a folder is still empty."""
    try:
        return listed()
    except click.ClickException:
        return []


def _of_vectors(vectors: Path) -> tuple[int, EmbeddingModel, StartIngest]:
    """The number of tracks in a file of embeddings, their model, and the function that ingests them into a store."""
    from ..ingest.parquet import ingest_vectors
    from ..ingest.vectors import Vectors

    source = Vectors(vectors)
    return source.count_tracks(), source, partial(ingest_vectors, source)


def _of_audio(
    bundle: Path | None, device: str, workers: int | None, ray: str | None, limits: Limits
) -> tuple[EmbeddingModel, Callable[[list[Track]], StartIngest]]:
    """The model that embeds, and a function that makes of tracks the function that ingests them into a store."""
    from ..embedding.embedder import Embedder
    from ..ingest.pipeline import ingest as ingest_tracks
    from ..ingest.ray import Cluster

    model = Cluster(ray, bundle, device, workers) if ray else Embedder(bundle, device)
    return model, lambda tracks: partial(ingest_tracks, tracks, model, workers=workers, limits=limits)
