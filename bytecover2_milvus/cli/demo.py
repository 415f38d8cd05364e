"""``demo``: the main job on audio that anyone can make, with right and wrong shown."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from .output import bundle_option, device_option, open_milvus, print_table, progress_bar


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for audio, manifest and embedded Milvus.",
)
@click.option("--arrangements", type=click.IntRange(3, 20), default=4, show_default=True, help="Tracks of each song.")
@bundle_option
@device_option
def demo(out: Path, arrangements: int, bundle: Path | None, device: str) -> None:
    """Render traditional songs in several arrangements, ingest all but one of each, and find these with the rest.

    \b
    Example:
      bytecover2-milvus demo --out demo
    """
    import numpy as np

    from ..audio import load_audio
    from ..collection import TrackCollection
    from ..cores import usable_cores
    from ..embedder import Embedder
    from ..errors import BytecoverError
    from ..ingest import ingest
    from ..manifest import write_manifest
    from ..metrics import evaluate
    from ..songs.tracks import render_tracks
    from ..songs.traditional import traditional_songs

    embedder = Embedder(bundle, device)
    songs = traditional_songs()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BytecoverError(f"{out}: cannot be made ({error.strerror}); choose another folder with --out") from error
    tracks = []
    with progress_bar("render", len(songs) * arrangements) as bar:
        for track in render_tracks(songs, range(arrangements), out / "audio", usable_cores()):
            tracks.append(track)
            bar.update(advance=1, note=track.track_id)
    queries, stored = tracks[::arrangements], [track for i, track in enumerate(tracks) if i % arrangements]
    write_manifest(tracks, out / "manifest.csv")

    uri = str(out / "demo.db")
    with open_milvus(uri, "", make=True) as client:
        covers = TrackCollection.open_or_create(client, "demo", embedder)
        with progress_bar("ingest", len(stored)) as bar:
            for record in ingest(stored, embedder, covers):
                if record.status == "failed":
                    raise BytecoverError(record.reason)
                bar.update(advance=1, note=record.track_id)
        with progress_bar("query", len(queries)) as bar:
            embeddings = []
            for track in queries:
                embeddings.append(embedder.embed(load_audio(track.path)))
                bar.update(advance=1, note=track.track_id)
        results = covers.search(np.stack(embeddings), limit=3)
        fetched = covers.fetch()

    rows, first = [], 0
    for query, matches in zip(queries, results, strict=True):
        for match in matches:
            right = match.work_id == query.work_id
            first += right and match.rank == 1
            rows.append(
                (
                    query.track_id,
                    match.rank,
                    match.work_id,
                    match.title,
                    match.similarity,
                    "right" if right else "wrong",
                )
            )
    print_table(("query", "rank", "work", "title", "similarity", ""), rows)
    score = evaluate(fetched.embeddings, fetched.work_ids, fetched.track_ids)
    click.echo(f"{first} of {len(queries)} held-out arrangements found their song first, among {len(stored)} tracks.")
    click.echo(
        f"The collection by itself: MAP {score.map:.3f}, MR1 {score.mr1:.2f}, P@10 {score.precision_at_10:.3f} "
        f"({score.queries} queries, {arrangements - 2} relevant tracks each)."
    )
    click.echo(f"The audio is in {out / 'audio'}, the manifest is {out / 'manifest.csv'}. With music of your own:")
    click.echo(f"  bytecover2-milvus ingest YOUR_FOLDER --uri {shlex.quote(uri)} --collection mine")
    click.echo(f"  bytecover2-milvus query YOUR_FILE --uri {shlex.quote(uri)} --collection mine")
