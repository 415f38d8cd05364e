"""``collections``: what is in a Milvus, by hand. Nothing is deleted that was not counted, shown and confirmed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .output import Place, milvus_options, open_milvus, print_table

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group("collections")
def collections_group() -> None:
    """List, describe, export, thin out and drop the collections of a Milvus.

    \b
    Example:
      bytecover2-milvus collections list --uri bytecover2.db
    """


@collections_group.command("list")
@milvus_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per collection on stdout.")
def list_(milvus: Place, as_json: bool) -> None:
    """List the collections that hold embeddings.

    \b
    Example:
      bytecover2-milvus collections list --uri http://localhost:19530
    """
    from ..collection import TrackCollection, list_collections

    with open_milvus(milvus) as client:
        found = [TrackCollection.open(client, name).describe() for name in list_collections(client)]
    if as_json:
        for description in found:
            click.echo(json.dumps(description))
    else:
        columns = ("collection", "rows", "dim", "index_type", "model_id", "last_ingest")
        print_table(columns, [[description[column] or "" for column in columns] for description in found])


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def describe(name: str, milvus: Place, as_json: bool) -> None:
    """Describe one collection: model, rows, index, memory, last ingest.

    \b
    Example:
      bytecover2-milvus collections describe tracks --uri bytecover2.db
    """
    from ..collection import TrackCollection
    from ..index import outgrown

    with open_milvus(milvus) as client:
        description = TrackCollection.open(client, name).describe()
        advice = outgrown(client, description["rows"])
    if as_json:
        click.echo(json.dumps(description))
    else:
        description["last_ingest"] = description["last_ingest"] or "not known"
        print_table(("what", "value"), list(description.items()))
    if advice:
        click.echo(f"warning: {name} has {description['rows']} rows; {advice}", err=True)


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write, .parquet.")
@click.option("--filter", "expression", default="", help="Only rows that pass, in Milvus' language.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def export(name: str, milvus: Place, out: Path, expression: str, as_json: bool) -> None:
    """Write a collection, or what passes a filter, to a Parquet file; `ingest --vectors` reads it back.

    \b
    Example:
      bytecover2-milvus collections export tracks --out tracks.parquet --uri bytecover2.db
    """
    from ..collection import TrackCollection
    from ..vectors import write_vectors

    with open_milvus(milvus) as client:
        collection = TrackCollection.open(client, name)
        rows = write_vectors(collection, out, expression)
    if as_json:
        line = {"collection": name, "path": str(out), "rows": rows, "model_id": collection.model_id}
        click.echo(json.dumps(line, ensure_ascii=False))
    click.echo(f"{rows} rows of {name} in {out}", err=True)


@collections_group.command("delete-tracks")
@click.argument("name")
@click.argument("track_ids", nargs=-1)
@milvus_options
@click.option("--filter", "expression", default="", help='Tracks with a row that passes, e.g. artist == "Trad."')
@yes_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per track on stdout.")
def delete_tracks(
    name: str, track_ids: tuple[str, ...], milvus: Place, expression: str, yes: bool, as_json: bool
) -> None:
    """Delete tracks with all their rows, by their track_ids or by a filter. Audio files are not touched.

    A track_id that is not in the collection is reported; the exit code is then 1. Tracks whose names begin with a dash
    come after ``--``.

    \b
    Example:
      bytecover2-milvus collections delete-tracks tracks song-1 song-2 --uri bytecover2.db
    """
    from ..collection import TrackCollection

    if bool(track_ids) == bool(expression.strip()):
        raise click.UsageError("which tracks? Give track_ids, or --filter")
    with open_milvus(milvus) as client:
        collection = TrackCollection.open(client, name)
        listed = list(dict.fromkeys(track_ids)) or collection.tracks_with(expression)
        rows = collection.rows_per_track(listed)
        absent = [track_id for track_id in listed if track_id not in rows]
        if rows and not yes:
            click.confirm(
                f"Delete {len(rows)} tracks, {rows.total()} rows, of {name} at {milvus}?", abort=True, err=True
            )
        deleted = collection.delete_tracks(list(rows))
    if as_json:
        for track_id in listed:
            status = "absent" if track_id in absent else "deleted"
            line = {"collection": name, "track_id": track_id, "status": status, "rows": rows[track_id]}
            click.echo(json.dumps(line, ensure_ascii=False))
    for track_id in absent:
        click.echo(f"absent: {track_id!r} is not in {name}", err=True)
    click.echo(f"{len(rows)} tracks deleted from {name}, {deleted} rows", err=True)
    if absent:
        sys.exit(1)


@collections_group.command()
@click.argument("name")
@milvus_options
@yes_option
def drop(name: str, milvus: Place, yes: bool) -> None:
    """Delete a collection with all it holds.

    \b
    Example:
      bytecover2-milvus collections drop tracks --uri bytecover2.db
    """
    from ..collection import TrackCollection, drop_collection

    with open_milvus(milvus) as client:
        rows = TrackCollection.open(client, name).count()
        if not yes:
            click.confirm(f"Delete {name} with {rows} rows at {milvus}?", abort=True, err=True)
        drop_collection(client, name)
    click.echo(f"{name} dropped, {rows} rows", err=True)
