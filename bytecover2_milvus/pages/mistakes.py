"""The worst queries of an evaluation: each with the track that was ranked wrongly above the first right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..alignment.verdict import probability
from ..second_stage.explain import Stretch, clock
from ..second_stage.survey import Candidate, Mistake, Survey
from .cards import card, card_row
from .document import escape
from .pair import Named, Shared, address_of, compare_button, play_button, shared_in_words, verdict_of

if TYPE_CHECKING:
    from ..milvus.collection import TrackCollection
    from ..milvus.schema import Row


@dataclass(frozen=True)
class Shown:
    """A mistake with what a page needs to show it; rows and stretches may be missing."""

    mistake: Mistake
    rows: Mapping[str, Row]  # by track_id
    wrong: Stretch | None = None  # shared by the query and the track that was ranked above the right one
    right: Stretch | None = None  # shared by the query and the right one


def shown(mistakes: Sequence[Mistake], collection: TrackCollection, survey: Survey) -> list[Shown]:
    """Mistakes with the rows of their tracks, and the stretches that the query shares with both, if it was aligned.

    Raises
    ------
    CollectionError
        If the rows cannot be read.
    """
    ids = {name for one in mistakes for name in (one.track_id, one.wrong.track_id, one.right.track_id)}
    rows = {row.track_id: row for row in collection.rows_of(sorted(ids))} if ids else {}
    found = []
    for one in mistakes:
        pair = (one.wrong, one.right)
        stretches: list[Stretch | None] = [None, None]
        if survey.judge:
            names, similarities = [of.track_id for of in pair], [of.similarity for of in pair]
            stretches = survey.judge.reranker.stored_stretches(one.track_id, names, similarities)
        found.append(Shown(one, rows, *stretches))
    return found


def mistake_card(one: Shown, number: int, folder: Path) -> str:
    """The HTML of a mistake: its query, and the two tracks that are to be compared with it.

    `number` is its place on the page, from 1; files are named as seen from `folder`.
    """
    mistake = one.mistake
    query = _named(mistake.track_id, one.rows, folder)
    facts = [f"average precision {mistake.average_precision:.2f}", f"work {mistake.work_id}"]
    heading = card_row(
        '<span class="query">The query</span>', *_about(mistake.track_id, "", one.rows), "", play_button(query)
    )
    kind = "Another work" if mistake.wrong.work_id else "A track of unknown work"
    rows = [
        heading,
        _row(mistake.wrong, f'<b class="other-work">{kind}</b>, ranked for', query, one.wrong, one.rows, folder),
        _row(mistake.right, '<b class="same">The same work</b> as', query, one.right, one.rows, folder),
    ]
    return card(number, query.name, " · ".join(facts), rows, unsettled=mistake.wrong.rank == 1)


def _row(
    candidate: Candidate, kind: str, query: Named, stretch: Stretch | None, rows: Mapping[str, Row], folder: Path
) -> str:
    this = _named(candidate.track_id, rows, folder)
    share = None if candidate.score is None else probability(candidate.score)
    verdict = verdict_of(kind, query.name, share, candidate.score, candidate.similarity)
    buttons = play_button(this)
    if stretch is not None:
        there = (stretch.query_start_s, stretch.query_end_s)
        shared = Shared(stretch.start_s, stretch.end_s, *there, stretch.transposition, stretch.tempo_ratio)
        verdict += shared_in_words(shared)
        buttons = compare_button(this, query, shared) + buttons
    about, path = _about(candidate.track_id, candidate.work_id, rows)
    return card_row(f"{candidate.rank:,}. {escape(this.name)}", about, path, verdict, buttons)


def _named(track_id: str, rows: Mapping[str, Row], folder: Path) -> Named:
    row = rows.get(track_id)
    return (
        Named(row.title or Path(row.path).name or track_id, address_of(row.path, folder))
        if row
        else Named(track_id, "")
    )


def _about(track_id: str, work_id: str, rows: Mapping[str, Row]) -> tuple[str, str]:
    """Artist, duration and work of a track, in words, and its path."""
    row = rows.get(track_id)
    known = [row.artist, clock(row.duration_s)] if row else []
    return " · ".join(filter(None, (*known, work_id and f"work {work_id}"))), row.path if row else ""
