"""``collections``: what is in a Milvus, by hand."""

from __future__ import annotations

import json

import click

from .output import milvus_options, open_milvus, print_table


@click.group("collections")
def collections_group() -> None:
    """List, describe and drop the collections of a Milvus.

    \b
    Example:
      bytecover2-milvus collections list --uri bytecover2.db
    """


@collections_group.command("list")
@milvus_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per collection on stdout.")
def list_(uri: str, token: str, as_json: bool) -> None:
    """List the collections that hold embeddings.

    \b
    Example:
      bytecover2-milvus collections list --uri http://localhost:19530
    """
    from ..collection import TrackCollection, list_collections

    with open_milvus(uri, token) as client:
        found = [TrackCollection.open(client, name).describe() for name in list_collections(client)]
    if as_json:
        for description in found:
            click.echo(json.dumps(description))
    else:
        columns = ("collection", "rows", "dim", "index_type", "model_id")
        print_table(columns, [[description[column] for column in columns] for description in found])


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def describe(name: str, uri: str, token: str, as_json: bool) -> None:
    """Describe one collection: model, rows, index.

    \b
    Example:
      bytecover2-milvus collections describe tracks --uri bytecover2.db
    """
    from ..collection import TrackCollection

    with open_milvus(uri, token) as client:
        description = TrackCollection.open(client, name).describe()
    if as_json:
        click.echo(json.dumps(description))
    else:
        print_table(("what", "value"), list(description.items()))


@collections_group.command()
@click.argument("name")
@milvus_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(name: str, uri: str, token: str, yes: bool) -> None:
    """Delete a collection with all it holds.

    \b
    Example:
      bytecover2-milvus collections drop tracks --uri bytecover2.db
    """
    from ..collection import TrackCollection, drop_collection

    with open_milvus(uri, token) as client:
        rows = TrackCollection.open(client, name).count()
        if not yes:
            click.confirm(f"Delete {name} with {rows} rows at {uri}?", abort=True, err=True)
        drop_collection(client, name)
    click.echo(f"{name} dropped, {rows} rows", err=True)
