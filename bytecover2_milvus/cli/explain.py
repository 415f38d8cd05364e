"""``explain``: why two recordings are thought to be one work, as a page to see and hear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import device_option
from ..terminal import say
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option

if TYPE_CHECKING:
    from ..embedding.embedder import Embedder
    from ..pages.explain import Beside


@click.command()
@click.argument("query", type=click.Path(path_type=Path))
@click.argument("track")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Page to write, .html.")
@click.option("--no-audio", is_flag=True, help="Leave the recordings out: the page is small, and has no players.")
@milvus_options
@collection_option
@bundle_option
@device_option
def explain(
    query: Path,
    track: str,
    out: Path,
    no_audio: bool,
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    device: str,
) -> None:
    """Show where the same music runs in two recordings, in a page of one file.

    QUERY is an audio file, and TRACK is one, or the track_id of a track of the collection. The page has the
    cross-similarity of both with the longest path through it, their chromagrams, which stretches and octaves of the
    query the similarity of the embeddings rests on, and two players that jump to the matched place together. It holds
    both recordings, small, and requests nothing.

    \b
    Example:
      bytecover2-milvus explain cover.mp3 original.flac --out page.html
    """
    from ..embedding.embedder import Embedder
    from ..pages.explain import write_page
    from ..second_stage.explain import contributions_in_words, in_words, verdict_in_words

    if out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: its name must end in .html")
    embedder = Embedder(bundle, device)
    path, beside = (Path(track), None) if Path(track).exists() else stored_track(track, milvus, collection, embedder)
    explanation = write_page(query, path, embedder, out, sound=not no_audio, beside=beside)
    say(f"{in_words(explanation)} {verdict_in_words(explanation)}")
    if explanation.contributions:
        say(contributions_in_words(explanation.contributions))
    if explanation.score is not None:
        others = f"the tracks of {collection}" if beside else "typical tracks"
        say(f"Score {explanation.score:+.2f}, probability {explanation.probability:.3f}, beside {others}.")
    say(f"The page is {out}")


def stored_track(
    track_id: str, milvus: MilvusTarget, collection: str, embedder: Embedder
) -> tuple[Path, Beside | None]:
    """The path of the file of a track of the collection and beside what it is judged; None without a second stage."""
    from ..errors import CollectionError
    from ..milvus.cohort import Cohort
    from ..milvus.collection import TrackCollection
    from ..pages.explain import Beside
    from ..second_stage.rerank import QUERY_COHORT, why_no_verdict

    beside = None
    try:
        with open_milvus(milvus, reads=True) as client:
            tracks = TrackCollection.open(client, collection)
            rows = tracks.rows_of([track_id])
            verdict = embedder.verdict
            if verdict and not why_no_verdict(tracks, embedder, verdict):
                cohort = Cohort(tracks.cohort()[:QUERY_COHORT], verdict.backgrounds)
                known = tracks.stored_chroma([track_id]).get(track_id)
                beside = Beside(cohort, known.statistics) if known else None
    except CollectionError as error:
        raise click.ClickException(f"{track_id}: no such file, and not found as a track_id ({error})") from error
    if not rows:
        raise click.ClickException(f"{track_id}: no such file, and no track_id of {collection} at {milvus}")
    return Path(rows[0].path), beside
