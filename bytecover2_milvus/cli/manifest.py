"""``manifest``: a data set of the field as a manifest, with its published protocol."""

from __future__ import annotations

from pathlib import Path

import click

from ..terminal import say


@click.command()
@click.argument("data_set", metavar="DATASET")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Manifest to write, .csv.")
@click.option(
    "--list",
    "lists",
    type=click.Path(path_type=Path),
    multiple=True,
    help="List of the data set, where the folder holds none or several versions; may be repeated.",
)
@click.option("--protocol", default="", help="Of covers80: 160x160, which is the default, 80x80 or all.")
def manifest(data_set: str, folder: Path, out: Path, lists: tuple[Path, ...], protocol: str) -> None:
    """Make a manifest of a data set whose audio and lists are in FOLDER, as far as its files are there.

    DATASET is covers80, shs100k, datacos, discogs-vi, or mirdata:NAME for a loader of the package mirdata. It tells how
    many of the tracks and works that the lists name were found, which published counts the lists have, and which works
    stand in several splits. Columns split and role hold the published protocol, which evaluate --manifest keeps to.

    \b
    Example:
      bytecover2-milvus manifest covers80 covers80/ --out covers.csv
    """
    from ..atomic import atomic_write, check_writable
    from ..datasets.dataset import find_tracks
    from ..datasets.readers import read_data_set
    from ..manifest import write_manifest

    check_writable(out)
    expected = read_data_set(data_set, folder, lists, protocol)
    found = find_tracks(expected, folder)
    with atomic_write(out) as part:
        write_manifest(found.tracks, part)
    for fact in (expected.title, *expected.facts, *found.facts):
        say(fact)
    splits = list(dict.fromkeys(track.split for track in found.tracks if track.split))
    say(f"{out} has {len(found.tracks)} tracks" + (f"; evaluate {out}@{splits[-1]}" if splits else ""))
