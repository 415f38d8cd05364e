"""``demo``: the main job on audio that anyone can make, with right and wrong shown."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import device_option
from ..terminal import printable, progress_bar
from .milvus_target import MilvusTarget, open_milvus
from .options import bundle_option
from .output import verdict_cells
from .tables import print_table

if TYPE_CHECKING:
    from ..embedding.embedder import Embedder
    from ..manifest import Track
    from ..milvus.collection import TrackCollection
    from ..milvus.search import Match
    from ..second_stage.judgements import Judgements
    from ..second_stage.rerank import Reranker

SHOWN = 3  # matches of each query
DURATION_S = 60.0  # of a track at most, which with MP3 keeps the folder small


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for audio, manifest and embedded Milvus.",
)
@click.option("--arrangements", type=click.IntRange(3, 20), default=4, show_default=True, help="Tracks of each song.")
@click.option("--songs", type=click.IntRange(2, 55), default=55, show_default=True, help="Number of songs.")
@bundle_option
@device_option
def demo(out: Path, arrangements: int, songs: int, bundle: Path | None, device: str) -> None:
    """Render traditional songs in several arrangements, ingest all but one of each, and find these with the rest.

    \b
    Example:
      bytecover2-milvus demo --out demo
    """
    from ..embedding.embedder import Embedder
    from ..milvus.collection import TrackCollection

    embedder = Embedder(bundle, device)
    tracks = _render(out, arrangements, songs)
    queries = tracks[::arrangements]
    stored = [track for index, track in enumerate(tracks) if index % arrangements]
    uri = str(out / "demo.db")
    with open_milvus(MilvusTarget(uri), make=True) as client:
        covers = TrackCollection.open_or_create(client, "demo", embedder)
        earlier = {*covers.fetch().track_ids} - {track.track_id for track in stored}  # of a demo with more arrangements
        covers.delete_tracks(sorted(earlier))
        _ingest(stored, embedder, covers)
        judge = _judgements(embedder, covers)
        results = _query(queries, embedder, covers, judge.reranker if judge else None)
        score = covers.fetch().evaluate(judge)

    asked = [(query, match) for query, matches in zip(queries, results, strict=True) for match in matches]
    rows = []
    for query, match in asked:
        told = verdict_cells(match) if judge else {"similarity": match.similarity}
        known = {"query": query.track_id, "rank": match.rank, "work": match.work_id, "title": match.title}
        rows.append(known | told | {"": _is_right(query, match)})
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    first = sum(_is_right(query, matches[0]) == "right" for query, matches in zip(queries, results, strict=True))
    click.echo(f"{first} of {len(queries)} held-out arrangements found their song first, among {len(stored)} tracks.")
    if judge:
        shown = [_is_right(query, match) for query, match in asked if (match.probability or 0) >= 0.5]
        click.echo(f"Of {len(shown)} matches that are probably covers, {shown.count('right')} are right.")
    click.echo(
        f"The collection by itself: MAP {score.map:.3f}, MR1 {score.mr1:.2f}, P@10 {score.precision_at_10:.3f} "
        f"({score.queries} queries, {arrangements - 2} relevant tracks each)."
    )
    audio, manifest = printable(out / "audio"), printable(out / "manifest.csv")
    click.echo(f"The audio is in {audio}, the manifest is {manifest}. With music of your own:")
    on_path = shutil.which("bytecover2-milvus")
    program = "bytecover2-milvus" if on_path else f"{shlex.quote(sys.executable)} -m bytecover2_milvus"
    click.echo(f"  {program} ingest YOUR_FOLDER --uri {shlex.quote(uri)} --collection mine")
    click.echo(f"  {program} query YOUR_FILE --uri {shlex.quote(uri)} --collection mine")


def _render(out: Path, arrangements: int, songs: int) -> list[Track]:
    """All tracks, song after song, as audio files with a manifest beside them."""
    from ..cpu import usable_cores
    from ..manifest import write_manifest
    from ..songs.read.traditional import traditional_songs
    from ..songs.tracks import render_tracks

    chosen = traditional_songs()[:songs]
    tracks = []
    rendered = render_tracks(
        chosen, range(arrangements), out / "audio", usable_cores(), suffix=".mp3", max_duration_s=DURATION_S
    )
    with progress_bar("render", len(chosen) * arrangements) as bar:
        for track in rendered:
            tracks.append(track)
            bar.update(advance=1, note=track.track_id)
    write_manifest(tracks, out / "manifest.csv")
    return tracks


def _ingest(tracks: Sequence[Track], embedder: Embedder, covers: TrackCollection) -> None:
    from ..errors import AudioError
    from ..ingest.pipeline import ingest

    with progress_bar("ingest", len(tracks)) as bar:
        for record in ingest(tracks, embedder, covers):
            if record.status == "failed":
                raise AudioError(record.reason)
            bar.update(advance=1, note=record.track_id)


def _judgements(embedder: Embedder, covers: TrackCollection) -> Judgements | None:
    """The second stage, if the bundle has one."""
    from ..second_stage.judgements import Judgements
    from ..second_stage.rerank import CANDIDATES, Reranker, why_no_verdict

    if embedder.verdict is None or why_no_verdict(covers, embedder, embedder.verdict):
        return None
    return Judgements(Reranker(covers, embedder.verdict, embedder.frame_s), CANDIDATES)


def _query(
    queries: Sequence[Track], embedder: Embedder, covers: TrackCollection, second: Reranker | None
) -> list[list[Match]]:
    from ..audio.load import load_audio
    from ..embedding.query import embed_query
    from ..second_stage.rerank import CANDIDATES

    results = []
    with progress_bar("query", len(queries)) as bar:
        for track in queries:
            asked = embed_query(load_audio(track.path), embedder)
            (matches,) = covers.search([asked], SHOWN if second is None else CANDIDATES)
            if second and asked.heard:
                matches = second.rerank(asked.heard, matches, SHOWN)[:SHOWN]
            results.append(matches)
            bar.update(advance=1, note=track.track_id)
    return results


def _is_right(query: Track, match: Match) -> str:
    return "right" if match.work_id == query.work_id else "wrong"
