"""``labels``: what people said of queries and tracks, as a manifest."""

from __future__ import annotations

from pathlib import Path

import click

from ..terminal import say


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LABELS...")
@click.option(
    "--queries",
    "folders",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Folder or file where the queried recordings are, under whatever names; may be repeated.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Manifest to write, .csv.")
def labels(files: tuple[Path, ...], folders: tuple[Path, ...], out: Path) -> None:
    """Make a manifest of labels, the judgements that `serve --labels` has written.

    Queries are found by what their files hold. Recordings that were said to be the same work get one work_id, others
    different ones. Where judgements contradict each other, the tracks concerned are reported and left out, and the exit
    code is 1.

    \b
    Example:
      bytecover2-milvus labels labels.jsonl --queries inbox/ --out labelled.csv
    """
    from ..atomic import atomic_write
    from ..audio.load import find_audio
    from ..labels import files_by_content, labelled_tracks, read_labels
    from ..manifest import write_manifest

    known = read_labels(files)
    found = files_by_content(find_audio(folders), {label.content_hash for label in known})
    told = labelled_tracks(known, found)
    for label in told.contradictions:
        say(f"contradiction: {label.query} and {label.track_id} are not the same work, but others say so; left out")
    if told.missing:
        say(f"{len(told.missing)} queries were not found ({told.missing[0]}, ...); name their folder by --queries")
    if not told.tracks:
        raise click.ClickException(f"{out}: nothing to write; the labels name no track that is clear")
    with atomic_write(out) as part:
        write_manifest(told.tracks, part)
    n_works = len({track.work_id for track in told.tracks})
    say(f"{out} has {len(told.tracks)} tracks of {n_works} works, by {len(known)} judgements")
    if told.contradictions:
        raise click.exceptions.Exit(1)
