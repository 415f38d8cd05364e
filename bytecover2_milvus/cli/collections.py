"""``collections``: what is in a Milvus, by hand. Nothing is deleted that was not counted, shown and confirmed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import device_option
from ..terminal import progress_bar, say
from .confirm import confirm, yes_option
from .milvus_target import MilvusTarget, milvus_options, open_milvus
from .options import bundle_option, segment_options
from .output import InOrder, print_json
from .tables import for_programs, listing_options, print_table

if TYPE_CHECKING:
    from ..audio.segments import Segments
    from ..ingest.batch import IngestRecord


def _shown(value: object) -> object:
    """A value of `TrackCollection.describe` in a table."""
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) if isinstance(value, list) else "" if value is None else value


@click.group("collections", cls=InOrder)
def collections_group() -> None:
    """List, describe, export, thin out, drop and renew the collections of a Milvus.

    \b
    Example:
      bytecover2-milvus collections list --uri bytecover2.db
    """


@collections_group.command("list")
@milvus_options
@listing_options("one object per collection.")
def list_(milvus: MilvusTarget, as_json: bool) -> None:
    """List the collections that hold embeddings.

    \b
    Example:
      bytecover2-milvus collections list --uri http://localhost:19530
    """
    from ..milvus.alias import list_collections
    from ..milvus.collection import TrackCollection

    with open_milvus(milvus, reads=True) as client:
        found = [TrackCollection.open(client, name, load=False).describe() for name in list_collections(client)]
    if as_json:
        for description in found:
            print_json(description)
    else:
        columns = ("collection", "aliases", "rows", "dim", "index_type", "model_id", "last_ingest")
        rows = [[_shown(description[column]) for column in columns] for description in found]
        print_table(columns, rows, records=found)


@collections_group.command()
@click.argument("name")
@milvus_options
@listing_options("one object.")
def describe(name: str, milvus: MilvusTarget, as_json: bool) -> None:
    """Describe one collection: model, rows, index, memory, last ingest.

    \b
    Example:
      bytecover2-milvus collections describe tracks --uri bytecover2.db
    """
    from ..milvus.collection import TrackCollection
    from ..milvus.index import lite_size_warning

    with open_milvus(milvus, reads=True) as client:
        description = TrackCollection.open(client, name, load=False).describe()
        advice = lite_size_warning(client, description["rows"])
    if as_json:
        print_json(description)
    else:
        rows = [(what, _shown(value)) for what, value in description.items()]
        print_table(("what", "value"), rows, records=[description])
    if advice:
        say(f"warning: {name} has {description['rows']} rows; {advice}")


@collections_group.command()
@click.argument("name")
@milvus_options
@listing_options("one object per track.")
def problems(name: str, milvus: MilvusTarget, as_json: bool) -> None:
    """List the tracks whose file was cut off or damaged. They were embedded as far as they go.

    A file that is mended, or fetched again, leaves the list when it is ingested. What could not be embedded at all is
    not stored: ingest tells it every time, and its exit code is 1.

    \b
    Example:
      bytecover2-milvus collections problems tracks --uri bytecover2.db
    """
    from ..milvus.collection import TrackCollection

    with open_milvus(milvus, reads=True) as client:
        rows = TrackCollection.open(client, name).problems()
    columns = ("track_id", "title", "path", "warning")
    records = [{column: getattr(row, column) for column in columns} for row in rows]
    if as_json:
        for record in records:
            print_json(record)
    elif rows or for_programs():
        told = [[row.track_id, row.warning.rpartition(f"{Path(row.path).name}: ")[2], row.path] for row in rows]
        print_table(("track_id", "warning", "path"), told, records=records, shorten=("track_id", "path"))
    say(f"{len(rows)} tracks of {name} with a warning")


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write, .parquet.")
@click.option("--filter", "expression", default="", help="Only rows that pass, in Milvus' language.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def export(name: str, milvus: MilvusTarget, out: Path, expression: str, as_json: bool) -> None:
    """Write a collection to a Parquet file. With --filter, what passes it; `ingest --vectors` reads it back.

    \b
    Example:
      bytecover2-milvus collections export tracks --out tracks.parquet --uri bytecover2.db
    """
    from ..ingest.parquet import write_vectors
    from ..milvus.collection import TrackCollection

    if out.suffix != ".parquet":
        raise click.UsageError(f"--out {out}: its name must end in .parquet")
    with open_milvus(milvus, reads=True) as client:
        collection = TrackCollection.open(client, name)
        rows = write_vectors(collection, out, expression)
    if as_json:
        line = {"collection": name, "path": str(out), "rows": rows, "model_id": collection.model_id}
        print_json(line)
    say(f"{rows} rows of {name} in {out}")


@collections_group.command("delete-tracks")
@click.argument("name")
@click.argument("track_ids", nargs=-1)
@milvus_options
@click.option("--filter", "expression", default="", help='Tracks with a row that passes, e.g. artist == "Trad."')
@yes_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per track on stdout.")
def delete_tracks(
    name: str, track_ids: tuple[str, ...], milvus: MilvusTarget, expression: str, yes: bool, as_json: bool
) -> None:
    """Delete tracks with all their rows. They are named by track_id or by a filter; audio files are not touched.

    A track_id that is not in the collection is reported; the exit code is then 1. Tracks whose names begin with a dash
    come after ``--``.

    \b
    Example:
      bytecover2-milvus collections delete-tracks tracks song-1 song-2 --uri bytecover2.db
    """
    from ..milvus.collection import TrackCollection

    if bool(track_ids) == bool(expression.strip()):
        raise click.UsageError("which tracks? Give track_ids, or --filter")
    with open_milvus(milvus) as client:
        collection = TrackCollection.open(client, name)
        listed = list(dict.fromkeys(track_ids)) or collection.tracks_with(expression)
        rows = collection.rows_per_track(listed)
        absent = [track_id for track_id in listed if track_id not in rows]
        if rows and not yes:
            confirm(f"Delete {len(rows)} tracks, {rows.total()} rows, of {name} at {milvus}?")
        deleted = collection.delete_tracks(list(rows))
    if as_json:
        for track_id in listed:
            status = "absent" if track_id in absent else "deleted"
            line = {"collection": name, "track_id": track_id, "status": status, "rows": rows[track_id]}
            print_json(line)
    for track_id in absent:
        say(f"absent: {track_id!r} is not in {name}")
    say(f"{len(rows)} tracks deleted from {name}, {deleted} rows")
    if absent:
        sys.exit(1)


@collections_group.command()
@click.argument("name")
@milvus_options
@yes_option
def drop(name: str, milvus: MilvusTarget, yes: bool) -> None:
    """Delete a collection with all it holds. Its name or its alias will do; the alias goes with it.

    \b
    Example:
      bytecover2-milvus collections drop tracks --uri bytecover2.db
    """
    from ..milvus.alias import aliases_of, drop_collection
    from ..milvus.collection import TrackCollection

    with open_milvus(milvus) as client:
        collection = TrackCollection.open(client, name, load=False)
        rows, aliases = collection.stored_rows(), ", ".join(aliases_of(client, collection.name))
        what = f"{collection.name} (alias {aliases})" if aliases else collection.name
        if not yes:
            confirm(f"Delete {what} with {rows} rows at {milvus}?")
        collection.check_alias("nothing was dropped; run it again")
        drop_collection(client, collection.name)
    say(f"{what} dropped, {rows} rows")


@collections_group.command()
@click.argument("name")
@milvus_options
@bundle_option
@segment_options("Seconds of the segments that its tracks have: those of ingest --bulk. The default is none.")
def create(name: str, milvus: MilvusTarget, bundle: Path | None, segments: Segments | None) -> None:
    """Make an empty collection, for Milvus' bulk import. It is behind an alias, as the first ingest makes it.

    \b
    Example:
      bytecover2-milvus collections create tracks --uri http://localhost:19530
    """
    from ..embedding.embedder import Embedder
    from ..errors import CollectionError
    from ..milvus.collection import TrackCollection

    embedder = Embedder(bundle, "cpu")
    with open_milvus(milvus, make=True) as client:
        collection = TrackCollection.open_or_create(client, name, embedder)
        if rows := collection.count():
            raise CollectionError(f"{name}: {collection.name} is there already, with {rows} rows")
        if segments is not None:
            collection.set_segmentation(segments)
    say(f"{collection.name}, alias {name}, for embeddings of model {embedder.model_id}")


@collections_group.command()
@click.argument("name")
@milvus_options
@bundle_option
@device_option
@click.option("--workers", type=click.IntRange(0), help="Processes that decode; by default one per core, at most 8.")
@click.option("--leave-out", is_flag=True, help="Go on without tracks that cannot be embedded.")
@click.option("--hold", is_flag=True, help="Do all but move the alias; the same command without it moves it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def promote(
    name: str,
    milvus: MilvusTarget,
    bundle: Path | None,
    device: str,
    workers: int | None,
    leave_out: bool,
    hold: bool,
    as_json: bool,
) -> None:
    """Move an alias to a collection of another model. It is filled from the files of the old one; queries go on.

    The old collection is kept. The same command goes on where a promotion was cut off.

    \b
    Example:
      bytecover2-milvus collections promote tracks --bundle bytecover2-new/ --uri bytecover2.db
    """
    from ..embedding.embedder import Embedder
    from ..ingest.promote import promote as run
    from ..milvus.alias import has_collection
    from ..milvus.collection import TrackCollection
    from ..milvus.schema import WHOLE_TRACKS

    embedder = Embedder(bundle, device)
    with open_milvus(milvus) as client:
        tracks = TrackCollection.open(client, name).count(WHOLE_TRACKS) if has_collection(client, name) else None
        with progress_bar("promote", tracks) as bar:

            def watch(record: IngestRecord) -> None:
                if record.status == "failed":
                    bar.print(f"failed: {record.reason}")
                bar.update(advance=1, note=record.track_id)

            done = run(client, name, embedder, workers=workers, leave_out=leave_out, hold=hold, watch=watch)
    if as_json:
        print_json(asdict(done))
    if done.from_collection == done.to_collection:
        say(f"{name} holds embeddings of model {done.to_model_id} already; nothing to do")
        return
    counts = f"{done.tracks} tracks in {done.to_collection}, {done.stored} stored, {done.left_out} left out"
    found = "" if done.recall_at_10 is None else f"; recall@10 {done.recall_at_10:.3f}, {done.files_asked} files found"
    stands = f"now stands for {done.to_collection}" if done.moved else f"still stands for {done.from_collection}"
    say(f"{counts}{found}; {name} {stands}")
    if done.left_out and not leave_out:
        say(
            f"tracks that were stored while {name} moved could not be embedded; mend them and ingest them with the new"
            " bundle",
        )
        sys.exit(1)


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def rollback(name: str, milvus: MilvusTarget, as_json: bool) -> None:
    """Move an alias back to where it was before `promote`. Nothing is deleted.

    \b
    Example:
      bytecover2-milvus collections rollback tracks --uri bytecover2.db
    """
    from ..ingest.promote import roll_back

    with open_milvus(milvus) as client:
        done = roll_back(client, name)
    if as_json:
        print_json(asdict(done))
    say(f"{name} stands for {done.to_collection} again, model {done.to_model_id}")
    if done.lacking:
        say(
            f"warning: {done.lacking} tracks are in {done.from_collection} only; ingest them with the bundle of model"
            f" {done.to_model_id}",
        )
