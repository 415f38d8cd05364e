"""A page of cards with recordings: a search among the cards, and two players that any of them can be heard with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template

from .document import document, escape, template


def cards_page(
    kind: str,
    name: str,
    cards: Iterable[str],
    *,
    title: str,
    summary: str,
    remark: str,
    placeholder: str,
    unsettled: str,
    searchable: bool,
    overview: str = "",
    styles: Sequence[str] = (),
) -> str:
    """The HTML of the page.

    Parameters
    ----------
    kind, name, title, summary, remark : str
        Plain text: above the heading, the heading, of the window, and two paragraphs below the heading.
    cards : iterable of str
        HTML of each card, from `card`.
    placeholder : str
        What the search looks in.
    unsettled : str
        What is left when "only ..." is chosen: the cards that are `unsettled`.
    searchable : bool
        Whether there is a search.
    overview : str
        HTML before the search.
    styles : sequence of str
        Further style sheets of this package.
    """
    body = Template(template("cards.html")).substitute(
        kind=escape(kind),
        name=escape(name),
        summary=escape(summary),
        remark=escape(remark),
        overview=overview,
        placeholder=escape(placeholder),
        unsettled=escape(unsettled),
        nothing_hidden="" if searchable else "hidden",
        cards="".join(cards),
    )
    return document(
        title,
        body,
        styles=("page.css", "cards.css", *styles),
        scripts=("duet.mjs", "cards.mjs"),
        media="'self' file: blob:",
    )


def card(
    number: int, title: str, facts: str, rows: Iterable[str], *, notes: Iterable[str] = (), unsettled: bool
) -> str:
    """The HTML of a card of rows, from `card_row`; the texts are plain."""
    return Template(template("card.html")).substitute(
        number=number,
        title=escape(title),
        facts=escape(facts),
        notes=" ".join(f'<span class="note">{escape(note)}</span>' for note in notes),
        unsettled="true" if unsettled else "false",
        rows="".join(rows),
    )


def card_row(name: str, about: str, path: str, verdict: str, buttons: str) -> str:
    """The HTML of a recording in a card: `name`, `verdict` and `buttons` are HTML already, the others plain text."""
    return Template(template("card_row.html")).substitute(
        name=name, about=escape(about), path=escape(path), verdict=verdict, buttons=buttons
    )
