"""``ingest``: how a catalogue gets into a collection."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..errors import BytecoverError
from ..options import device_option
from ..terminal import progress_bar, say
from .collections import confirm, yes_option
from .options import (
    STANDARD_INPUT,
    MilvusTarget,
    bundle_option,
    collection_option,
    limits_options,
    manifest_options,
    milvus_options,
    open_milvus,
    segment_options,
    tracks_at,
)
from .output import print_json

if TYPE_CHECKING:
    from ..audio.limits import Limits
    from ..audio.segments import Segments
    from ..ingest.batch import IngestRecord
    from ..ingest.prometheus import IngestRun
    from ..ingest.watch import Watch
    from ..manifest import Track
    from ..milvus.properties import EmbeddingModel

    _Start = Callable[[Any], Generator[IngestRecord, None, None]]

SHOWN_GONE = 5  # of the files that are gone, before it is asked


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

    listed_by_hand = STANDARD_INPUT in (*paths, manifest)
    _refuse_what_does_not_fit(
        audio=bool(paths or manifest),
        vectors=bool(vectors),
        bulk=bool(bulk),
        segments=segments is not None,
        ray=ray is not None,
        workers=workers,
        prune=prune,
        yes=yes,
        watch=watch,
        listed_by_hand=listed_by_hand,
    )
    if metrics:
        check_writable(metrics)

    def listed() -> list[Track]:
        return tracks_at(paths, manifest, types)

    def one_pass(
        tracks: list[Track] | None, every: list[Track] | None, start: _Start, size: int, prunes: bool = prune
    ) -> int:
        """Ingest, prune and tell; the number of tracks that failed."""
        run = IngestRun(collection)
        with _told_of_its_end(run, metrics), _store(milvus, collection, bulk, model, tracks) as store:
            if segments is not None:
                store.set_segmentation(segments)
            if not bulk and model.chroma_id and (lack := store.why_no_second_stage(model)):
                say(f"note: {lack}")
            with closing(start(store)) as records:
                _follow(records, run, size, as_json)
            if prunes:
                assert every is not None
                _prune(store, paths, every, f"{collection} at {milvus}", yes)
            where, advice = _stored(store, run, bulk, f"{collection} at {milvus}")
        say(f"{_counts(run.tracks)}; {run.rows} rows in {where}")
        if advice:
            say(f"warning: {collection} has {run.rows} rows; {advice}")
        if metrics:
            run.write(metrics)
        return run.tracks["failed"]

    with _told_of_its_end(IngestRun(collection), metrics):
        if vectors:
            size, model, start = _of_vectors(vectors)
            tracks = None
        else:
            tracks = _listed_or_none(listed) if watch else listed()
            watched = Watch(tracks)  # looked at before they are read, lest a change be missed
            model, start_with = _of_audio(bundle, device, workers, ray, limits)
            size, start = len(tracks), start_with(tracks)
    failed = one_pass(tracks, tracks, start, size)
    if watch:
        say(f"watching, with a look every {interval:g} s; Ctrl-C ends it")

        def follow(some: list[Track], every: list[Track], gone: bool) -> None:
            if some or (prune and gone):
                one_pass(some, every, start_with(some), len(some), prune and gone)

        _go_on(watched, listed, follow, interval)
    elif failed:
        sys.exit(1)


def _refuse_what_does_not_fit(
    *,
    audio: bool,
    vectors: bool,
    bulk: bool,
    segments: bool,
    ray: bool,
    workers: int | None,
    prune: bool,
    yes: bool,
    watch: bool,
    listed_by_hand: bool,
) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    click.UsageError
    """
    if vectors and (audio or bulk):
        raise click.UsageError("--vectors takes the place of files, folders and --manifest, and goes into a Milvus")
    if not (vectors or audio):
        raise click.UsageError("nothing to ingest: give files, folders, --manifest or --vectors")
    if vectors and segments:
        raise click.UsageError("--segment cuts audio; the rows of --vectors stay as they are")
    if ray and vectors:
        raise click.UsageError("--ray embeds audio; the rows of --vectors are embedded already")
    if ray and workers == 0:
        raise click.UsageError("--ray needs one or more --workers")
    if prune and (vectors or bulk):
        raise click.UsageError("--prune needs audio that is ingested into a Milvus")
    if watch and (vectors or bulk or ray):
        raise click.UsageError("--watch embeds audio here, into a Milvus; leave out --vectors, --bulk and --ray")
    if watch and prune and not yes:
        raise click.UsageError("--watch with --prune asks nobody; say --yes")
    if watch and listed_by_hand:
        raise click.UsageError("--watch looks at folders and manifests; standard input is read once")


def _go_on(
    watched: Watch,
    listed: Callable[[], list[Track]],
    follow: Callable[[list[Track], list[Track], bool], None],
    interval: float,
) -> None:
    """Look and ingest until Ctrl-C."""
    from ..errors import CollectionError

    told, has_gone = "", False
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(interval)
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
    """The tracks, or none where a folder is still empty."""
    try:
        return listed()
    except click.ClickException:
        return []


@contextmanager
def _told_of_its_end(run: IngestRun, metrics: Path | None) -> Iterator[None]:
    """Raise again what ends a run early, when the metrics are written and Ctrl-C has had its answer."""
    from ..errors import OutputError

    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and run.tracks:
            click.echo(err=True)
            say(f"{_counts(run.tracks)} so far; the same command goes on")
        if metrics:
            with suppress(OutputError):  # what ended the run is to be told
                run.write(metrics)
        raise


def _follow(records: Iterable[IngestRecord], run: IngestRun, size: int, as_json: bool) -> None:
    """Count and print records as they come."""
    with progress_bar("ingest", size) as bar:
        for record in records:
            run.count(record)
            if as_json:
                print_json(asdict(record))
            for problem in filter(None, (record.reason if record.status == "failed" else "", record.warning)):
                bar.print(f"{record.status}: {problem}")
            bar.update(advance=1, note=record.track_id)


def _prune(store: Any, paths: Sequence[Path], tracks: Sequence[Track], place: str, yes: bool) -> None:
    """Delete the tracks whose file is gone, after showing how many there are."""
    from ..ingest.prune import find_gone
    from ..milvus.collection import TrackCollection

    if not isinstance(store, TrackCollection):
        return
    gone = find_gone(store, [path for path in paths if not os.path.isfile(path)], tracks)
    for reason in gone.passed_over:
        say(f"nothing is pruned there: {reason}")
    if not gone.paths:
        say("no stored track has lost its file")
        return
    for path in islice(gone.paths.values(), SHOWN_GONE):
        say(f"gone: {path}")
    if len(gone.paths) > SHOWN_GONE:
        say(f"... and {len(gone.paths) - SHOWN_GONE} more")
    if not yes:
        confirm(f"Delete {len(gone.paths)} tracks of {place}, whose files are gone?")
    rows = store.delete_tracks(list(gone.paths))
    say(f"{len(gone.paths)} tracks pruned, {rows} rows")


def _stored(store: Any, run: IngestRun, bulk: Path | None, place: str) -> tuple[str, str]:
    """The place of the run's rows, in words, and advice for so many; the files of a bulk import are written."""
    from ..milvus.collection import TrackCollection
    from ..milvus.index import lite_size_warning

    where = f"{len(store.write())} Parquet files in {bulk}" if bulk else place
    if not (bulk or isinstance(store, TrackCollection)):
        where += ", which was not made"
    run.rows = store.count()
    return where, lite_size_warning(store.client, run.rows) if isinstance(store, TrackCollection) else ""


def _counts(tracks: Mapping[str, int]) -> str:
    """The numbers of tracks that were added, updated, skipped and failed, in words."""
    return ", ".join(f"{count} {status}" for status, count in sorted(tracks.items())) or "no tracks"


def _of_vectors(vectors: Path) -> tuple[int, EmbeddingModel, _Start]:
    """The number of tracks, their model, and the function that ingests them into a store."""
    from ..ingest.parquet import Vectors, ingest_vectors

    source = Vectors(vectors)
    return source.count_tracks(), source, partial(ingest_vectors, source)


def _of_audio(
    bundle: Path | None, device: str, workers: int | None, ray: str | None, limits: Limits
) -> tuple[EmbeddingModel, Callable[[list[Track]], _Start]]:
    """The model that embeds, and what gives the function that ingests some tracks into a store."""
    from ..embedding.embedder import Embedder
    from ..ingest.pipeline import ingest as ingest_tracks
    from ..ingest.ray import Cluster

    model = Cluster(ray, bundle, device, workers) if ray else Embedder(bundle, device)
    return model, lambda tracks: partial(ingest_tracks, tracks, model, workers=workers, limits=limits)


@contextmanager
def _store(
    milvus: MilvusTarget, collection: str, bulk: Path | None, model: EmbeddingModel, tracks: list[Track] | None
) -> Iterator[Any]:
    """The store that an ingest fills: a collection, or a folder for bulk import.

    A Milvus Lite is made for `tracks` only if there is a file of one: what fails then is told without.
    """
    from ..ingest.bulk import BulkFolder
    from ..ingest.sqlite import Staging
    from ..milvus.alias import check_name, name_for
    from ..milvus.collection import TrackCollection
    from ..milvus.connection import is_folder

    if bulk:
        with BulkFolder(bulk, model) as folder:
            yield folder
        return
    is_new = is_folder(milvus.uri) and not Path(milvus.uri).expanduser().exists()
    if is_new:
        check_name(collection)
        name_for(collection, model.model_id)
    if is_new and tracks is not None and not any(os.path.isfile(track.path) for track in tracks):
        with TemporaryDirectory() as temporary, Staging(Path(temporary) / "nothing", model) as nothing:
            yield nothing
    else:
        with open_milvus(milvus, make=True) as client:
            yield TrackCollection.open_or_create(client, collection, model)
