"""One pass of ``ingest``: tracks are embedded and stored, those without a file deleted, and the result is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..terminal import progress_bar, say
from .confirm import confirm
from .milvus_target import MilvusTarget, open_milvus
from .output import print_json

if TYPE_CHECKING:
    from ..audio.segments import Segments
    from ..ingest.batch import IngestRecord
    from ..ingest.prometheus import IngestRun
    from ..manifest import Track
    from ..milvus.properties import EmbeddingModel

    # Ingests into the store that it is given; one record for each track.
    StartIngest = Callable[[Any], Generator[IngestRecord, None, None]]

SHOWN_GONE = 5  # files that are named before the user is asked whether to delete their tracks


@dataclass(frozen=True)
class Destination:
    """The place that an ingest stores its rows in: a collection of a Milvus, or Parquet files for its bulk import."""

    milvus: MilvusTarget
    collection: str
    bulk: Path | None  # the folder of the Parquet files

    def __str__(self) -> str:
        return f"{self.collection} at {self.milvus}"

    @contextmanager
    def opened(self, model: EmbeddingModel, tracks: Sequence[Track] | None) -> Iterator[Any]:
        """The store for the embeddings of `model`, closed at the end.

        A folder of Milvus Lite that does not exist yet is made only if a file of `tracks` exists, or if they are None;
        otherwise the store is a temporary one, in which the tracks fail.
        """
        from ..ingest.bulk import BulkFolder
        from ..ingest.sqlite import Staging
        from ..milvus.alias import check_name, name_for
        from ..milvus.collection import TrackCollection
        from ..milvus.connection import is_folder

        if self.bulk:
            with BulkFolder(self.bulk, model) as folder:
                yield folder
            return
        is_new = is_folder(self.milvus.uri) and not Path(self.milvus.uri).expanduser().exists()
        if is_new:
            check_name(self.collection)
            name_for(self.collection, model.model_id)
        if is_new and tracks is not None and not any(os.path.isfile(track.path) for track in tracks):
            with TemporaryDirectory() as temporary, Staging(Path(temporary) / "nothing", model) as nothing:
                yield nothing
        else:
            with open_milvus(self.milvus, make=True) as client:
                yield TrackCollection.open_or_create(client, self.collection, model)


@dataclass(frozen=True)
class IngestPass:
    """A pass as the options of ``ingest`` ask for it; `run` may be called again, as by ``--watch`` for each change."""

    destination: Destination
    model: EmbeddingModel
    folders: Sequence[Path]  # in which --prune looks for tracks whose file is gone
    yes: bool  # do not ask before tracks are deleted
    segments: Segments | None  # to cut tracks into from now on; None leaves the collection's
    metrics: Path | None
    as_json: bool

    def run(
        self, start: StartIngest, n_tracks: int, tracks: Sequence[Track] | None, *, known: Sequence[Track] | None
    ) -> int:
        """Ingest tracks and tell the result on stderr; the number of tracks that failed.

        Parameters
        ----------
        start : callable
        n_tracks : int
            Length of the progress bar.
        tracks : sequence of Track or None
            Those that `start` ingests; None if they are rows of a file.
        known : sequence of Track or None
            All that the folders and the manifest list, to tell which stored tracks have no file any more and are to be
            deleted; None deletes nothing.

        Raises
        ------
        BytecoverError, click.Abort
            As the ingest, or if the user does not let tracks be deleted. The metrics are written before.
        """
        from ..ingest.prometheus import IngestRun

        run = IngestRun(self.destination.collection)
        with reported_when_cut_off(run, self.metrics), self.destination.opened(self.model, tracks) as store:
            if self.segments is not None:
                store.set_segmentation(self.segments)
            if not self.destination.bulk and self.model.chroma_id and (lack := store.why_no_second_stage(self.model)):
                say(f"note: {lack}")
            with closing(start(store)) as records:
                _follow(records, run, n_tracks, self.as_json)
            if known is not None:
                self._prune(store, known)
            where, advice = self._finish(store, run)
        say(f"{_counts(run.tracks)}; {run.rows} rows in {where}")
        if advice:
            say(f"warning: {run.collection} has {run.rows} rows; {advice}")
        if self.metrics:
            run.write(self.metrics)
        return run.tracks["failed"]

    def _prune(self, store: Any, known: Sequence[Track]) -> None:
        """Delete the stored tracks whose file is gone; the user is asked first, unless `yes`."""
        from ..ingest.prune import find_gone
        from ..milvus.collection import TrackCollection

        if not isinstance(store, TrackCollection):
            return
        gone = find_gone(store, [path for path in self.folders if not os.path.isfile(path)], known)
        for reason in gone.passed_over:
            say(f"nothing is pruned there: {reason}")
        if not gone.paths:
            say("no stored track has lost its file")
            return
        for path in islice(gone.paths.values(), SHOWN_GONE):
            say(f"gone: {path}")
        if len(gone.paths) > SHOWN_GONE:
            say(f"... and {len(gone.paths) - SHOWN_GONE} more")
        if not self.yes:
            confirm(f"Delete {len(gone.paths)} tracks of {self.destination}, whose files are gone?")
        rows = store.delete_tracks(list(gone.paths))
        say(f"{len(gone.paths)} tracks pruned, {rows} rows")

    def _finish(self, store: Any, run: IngestRun) -> tuple[str, str]:
        """Write the files of a bulk import and count the rows; where they are, in words, and a warning or ""."""
        from ..milvus.collection import TrackCollection
        from ..milvus.index import lite_size_warning

        bulk = self.destination.bulk
        where = f"{len(store.write())} Parquet files in {bulk}" if bulk else str(self.destination)
        if not (bulk or isinstance(store, TrackCollection)):
            where += ", which was not made"
        run.rows = store.count()
        return where, lite_size_warning(store.client, run.rows) if isinstance(store, TrackCollection) else ""


@contextmanager
def reported_when_cut_off(run: IngestRun, metrics: Path | None) -> Iterator[None]:
    """If an error or Ctrl-C ends the block, the metrics are written first; Ctrl-C is also told the counts so far."""
    from ..errors import OutputError

    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and run.tracks:
            click.echo(err=True)
            say(f"{_counts(run.tracks)} so far; the same command goes on")
        if metrics:
            with suppress(OutputError):  # the error that ended the run is the one to report
                run.write(metrics)
        raise


def _follow(records: Iterable[IngestRecord], run: IngestRun, n_tracks: int, as_json: bool) -> None:
    """Count and print records as they come."""
    with progress_bar("ingest", n_tracks) as bar:
        for record in records:
            run.count(record)
            if as_json:
                print_json(asdict(record))
            for problem in filter(None, (record.reason if record.status == "failed" else "", record.warning)):
                bar.print(f"{record.status}: {problem}")
            bar.update(advance=1, note=record.track_id)


def _counts(tracks: Mapping[str, int]) -> str:
    """The number of tracks of each status, in words."""
    return ", ".join(f"{count} {status}" for status, count in sorted(tracks.items())) or "no tracks"
