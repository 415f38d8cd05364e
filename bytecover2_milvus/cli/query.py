"""``query``: the covers of recordings in a collection."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import device_option
from ..terminal import printable, progress_bar
from .inputs import STANDARD_INPUT, audio_at
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option, limits_options, segment_options
from .output import STRETCH_CELLS, VERDICT_CELLS, about, print_json, verdict_cells
from .tables import for_programs, listing_options, print_table

if TYPE_CHECKING:
    from ..audio.limits import Limits
    from ..audio.segments import Segments
    from ..milvus.search import Match
    from ..pages.matches import Asked
    from ..terminal import Bar


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@milvus_options
@collection_option
@bundle_option
@device_option
@limits_options
@segment_options("Seconds of segments of a longer query to search by, too; by default only the whole is searched by.")
@click.option("--limit", type=click.IntRange(1, 16_384), default=10, show_default=True, help="Matches per query.")
@click.option(
    "--group-by",
    type=click.Choice(["track", "work"]),
    default="track",
    show_default=True,
    help="Matches are tracks, or works, of which the closest track counts.",
)
@click.option("--whole", is_flag=True, help="Compare with whole tracks only, as if there were no segments.")
@click.option(
    "--rerank",
    type=click.IntRange(0, 16_384),
    help="Number of the closest tracks that the second stage aligns and judges; 0 for none. The default is 100, and up"
    " to 400 for a query of less than a minute and a half.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    default=0.75,
    show_default=True,
    help="Probability of being a cover from which a match is shown, where there is a second stage.",
)
@click.option("--nearest", is_flag=True, help="Show the nearest even if they are no covers.")
@click.option("--distinct", is_flag=True, help="Of tracks that are one recording in several encodings, show one.")
@click.option("--exclude-self", is_flag=True, help="Leave out the track that the file itself is in the collection.")
@click.option("--filter", "expression", default="", help='In Milvus\' language, e.g. artist == "Trad."')
@listing_options("one object per match.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the tracks that were found: .csv for a manifest, .m3u8 for a playlist.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A page of the matches, to see and hear them.",
)
def query(
    files: tuple[Path, ...],
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    device: str,
    segments: Segments | None,
    limits: Limits,
    limit: int,
    group_by: str,
    whole: bool,
    rerank: int | None,
    min_probability: float,
    nearest: bool,
    distinct: bool,
    exclude_self: bool,
    expression: str,
    as_json: bool,
    out: Path | None,
    page: Path | None,
) -> None:
    """Find the covers of audio files in a collection.

    The closest tracks are aligned with the query: a match tells how probably it is of the same work, from where to
    where the tune runs in both, in which key and at what tempo. What is improbable is not shown. Without a second
    stage, in the bundle or the collection, the closest are shown, and a match tells which part of the track is closest.

    With --segment, tracks are found by parts of the query, too. Where tracks are stored in segments, --whole searches
    whole tracks only. - is a recording on standard input.

    \b
    Example:
      bytecover2-milvus query cover.mp3 --uri bytecover2.db --limit 5
    """
    from ..atomic import atomic_write, check_writable
    from ..audio.load import load_audio
    from ..audio.segments import WHOLE
    from ..embedding.embedder import Embedder
    from ..embedding.query import embed_query
    from ..errors import AudioError, ChromaError
    from ..milvus.collection import TrackCollection
    from ..milvus.filters import and_filter
    from ..milvus.schema import WHOLE_TRACKS
    from ..pages.match_files import WRITERS
    from ..pages.matches import Asked, matches_page
    from ..second_stage.answer import Catalogue, Question

    if out and out.suffix not in WRITERS:
        raise click.UsageError(f"--out {out}: its name must end in {' or '.join(WRITERS)}")
    if page and STANDARD_INPUT in files:
        raise click.UsageError("--html needs files, which its players can play; standard input is gone afterwards")
    for written in (page, out):
        if written:
            check_writable(written)
    embedder = Embedder(bundle, device)
    filter = and_filter(expression, WHOLE_TRACKS) if whole else expression
    question = Question(limit, group_by, filter, rerank, 0.0 if nearest else min_probability, distinct)
    asked: list[Asked] = []
    no_covers: list[str] = []  # a line for each recording that has none
    with (
        audio_at(files, limits) as audio,
        open_milvus(milvus, reads=True) as client,
        progress_bar("query", len(audio)) as bar,
    ):
        catalogue = Catalogue(TrackCollection.open(client, collection, embedder.model_id), embedder)
        lack = catalogue.lack if rerank != 0 else "--rerank 0"
        if lack and distinct:
            raise click.UsageError(f"--distinct needs the second stage: {lack}")
        for path, file in audio:
            try:
                embedded = embed_query(load_audio(path, limits), embedder, segments or WHOLE)
                own = catalogue.collection.tracks_of(path) if exclude_self else ()
                answer = catalogue.answer(embedded, replace(question, exclude=tuple(own)))
            except (AudioError, ChromaError) as error:
                bar.print(f"Error: {about(path, error).replace(str(path), _shown(file))}")
            else:
                none = _no_cover(answer.nearest) if answer.judged and not answer.matches else ""
                asked.append(Asked(file, answer.matches, none or answer.note or lack))
                no_covers += [f"{_shown(file)}: {none}"] if none else []
                _print_at_once(asked[-1], answer.note, none, bar, as_json)
            bar.update(advance=1, note=file.name)
        if lack and asked:
            bar.print(f"note: {lack}{'' if rerank != 0 else ': ranked by similarity alone, without a verdict'}")
    if asked and not as_json:
        stretches = bool(segments or catalogue.collection.segments)
        _print_answers(asked, no_covers, stretches=stretches, judged=not lack)
    if out:
        WRITERS[out.suffix]([match for one in asked for match in one.matches], out)
    if page:
        with atomic_write(page) as part:
            part.write_text(matches_page(asked, collection, page.parent), encoding="utf-8")
    if len(asked) < len(audio):
        sys.exit(1)


def _shown(file: Path) -> str:
    return "standard input" if file == STANDARD_INPUT else str(file)


def _print_at_once(asked: Asked, note: str, none: str, bar: Bar, as_json: bool) -> None:
    """Print what need not wait for the other recordings: matches as JSON, and remarks."""
    if note:
        bar.print(f"note: {_shown(asked.path)}: {note}")
    if as_json:
        for match in asked.matches:
            print_json({"query": str(asked.path)} | asdict(match))
        if none:
            bar.print(f"{_shown(asked.path)}: {none}")


def _print_answers(asked: Sequence[Asked], no_covers: Sequence[str], *, stretches: bool, judged: bool) -> None:
    """Print the matches of all recordings as a table, then a line for each recording that has none."""
    matches = [(one.path, match) for one in asked for match in one.matches]
    if matches or not no_covers or for_programs():
        _print_matches(matches, stretches=stretches, judged=judged)
    for line in no_covers:
        click.echo(printable(line), err=for_programs())


def _no_cover(nearest: Match | None) -> str:
    """The answer where nothing that was found is probable."""
    from ..alignment.verdict import probability
    from ..second_stage.explain import share_in_words

    if nearest is None:
        return "no cover found, as there are no tracks to compare with"
    share = share_in_words(probability(nearest.score or 0.0))
    return f"no cover found; the nearest is {nearest.title or nearest.path} ({share}), --nearest shows it"


def _print_matches(matches: Sequence[tuple[Path, Match]], *, stretches: bool, judged: bool) -> None:
    """The matches as a table, with what the second stage says if there is one."""
    columns = ["query", "rank"] if judged else ["query", "rank", "similarity"]
    columns += ["work_id", "title", "path"]
    told = [*VERDICT_CELLS] if judged else [*STRETCH_CELLS] if stretches else []
    rows = []
    for file, match in matches:
        values = {"query": file} | asdict(match) | verdict_cells(match)
        rows.append([values[column] for column in columns + told])
    records = [{"query": str(file)} | asdict(match) for file, match in matches]
    print_table(columns + told, rows, records=records, shorten=("query", "work_id", "title", "path"))
