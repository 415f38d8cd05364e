"""The page of a query: what was found for each recording that was asked for, with two players to compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..milvus.search import Match
from ..second_stage.explain import clock
from .cards import card, card_row, cards_page
from .document import escape
from .pair import Named, Shared, address_of, compare_button, play_button, shared_in_words, told_apart, verdict_of


@dataclass(frozen=True)
class Asked:
    """A recording that was asked for, and the answer."""

    path: Path
    matches: Sequence[Match]  # the best first
    note: str = ""  # why there are none, or why none was judged


def matches_page(asked: Sequence[Asked], name: str, folder: Path) -> str:
    """The HTML of the page.

    Parameters
    ----------
    asked : sequence of Asked
        In the order of the page.
    name : str
        Of the collection.
    folder : Path
        Where the page is to lie: files are named from there, so that both can be moved together.
    """
    names = told_apart([one.path for one in asked])
    n_found = sum(bool(one.matches) for one in asked)
    return cards_page(
        "Query",
        name,
        (_card(*one, number, folder) for number, one in enumerate(zip(asked, names, strict=True), 1)),
        title=f"{name}: matches",
        summary=f"{n_found:,} of {len(asked):,} queries found a track" if len(asked) != 1 else _count(asked[0].matches),
        remark="The best match stands first.",
        placeholder="Query, title, artist, path or work_id",
        unsettled="queries for which nothing was found",
        searchable=len(asked) > 1,
    )


def _count(matches: Sequence[Match]) -> str:
    return "One track found" if len(matches) == 1 else f"{len(matches)} tracks found" if matches else "No track found"


def _card(asked: Asked, name: str, number: int, folder: Path) -> str:
    query = Named(name, address_of(str(asked.path), folder))
    heading = card_row('<span class="query">The query</span>', "", str(asked.path), "", play_button(query))
    return card(
        number,
        query.name,
        " · ".join(filter(None, (_count(asked.matches), asked.note))),
        [heading, *(_row(match, query, folder) for match in asked.matches)],
        unsettled=not asked.matches,
    )


def _row(match: Match, query: Named, folder: Path) -> str:
    this = Named(match.title or Path(match.path).name or match.track_id, address_of(match.path, folder))
    about = " · ".join(filter(None, (match.artist, clock(match.duration_s), match.work_id and f"work {match.work_id}")))
    kind = "Close to" if match.probability is None else '<b class="version">A version</b> of'
    verdict = verdict_of(kind, query.name, match.probability, match.score, match.similarity)
    buttons = play_button(this)
    if match.transposition is not None and match.tempo_ratio and None not in (match.query_start_s, match.query_end_s):
        assert match.query_start_s is not None and match.query_end_s is not None
        there = (match.query_start_s, match.query_end_s)
        shared = Shared(match.start_s, match.end_s, *there, match.transposition, match.tempo_ratio)
        verdict += shared_in_words(shared)
        buttons = compare_button(this, query, shared) + buttons
    return card_row(f"{match.rank}. {escape(this.name)}", about, match.path, verdict, buttons)
