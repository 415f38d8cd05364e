"""The page of groups: tracks that are one work, each under those before it, with two players to compare them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from string import Template
from urllib.parse import quote

from ..groups.group import Group, GroupedTrack, Link, in_order
from ..second_stage.explain import clock, pitch_in_words, share_in_words, tempo_in_words
from .document import document, escape, template

MOST_GROUPS = 2_000  # of one page: browsers take a second or two for as many


def groups_page(groups: Iterable[Group], name: str, folder: Path, *, total: int | None = None) -> str:
    """The HTML of the page.

    Parameters
    ----------
    groups : iterable of Group
        In the order of the page, which has the first `MOST_GROUPS` of them.
    name : str
        Of the collection, say.
    folder : Path
        Where the page is to lie: files are named from there, so that both can be moved together.
    total : int, optional
        How many groups there are; by default as many as are given.
    """
    shown = list(islice(groups, MOST_GROUPS))
    total = len(shown) if total is None else total
    n_tracks = sum(len(group.tracks) for group in shown)
    body = Template(template("groups.html")).substitute(
        name=escape(name),
        summary=f"{total:,} works with more than one track" if total != 1 else "One work with more than one track",
        shown=(
            f"The page has {len(shown):,} of them with {n_tracks:,} tracks."
            if len(shown) < total
            else f"{n_tracks:,} tracks in all."
        ),
        nothing_hidden="hidden" if shown else "",
        groups="".join(_card(group, number, folder) for number, group in enumerate(shown, 1)),
    )
    return document(
        f"{name}: works with several tracks",
        body,
        styles=("page.css", "groups.css"),
        scripts=("duet.mjs", "groups.mjs"),
        media="'self' file: blob:",
    )


def _card(group: Group, number: int, folder: Path) -> str:
    order = in_order(group)
    work_ids = sorted({track.work_id for track in group.tracks if track.work_id})
    unlabelled = any(not track.work_id for track in group.tracks)
    n_same = sum(link is not None and link.same_recording for _, link in order)
    n_recordings = len(order) - n_same
    facts = [f"{len(order)} tracks", f"{n_recordings} recording{'s' * (n_recordings > 1)}"]
    weakest = min((link.probability for _, link in order if link and not link.same_recording), default=None)
    if weakest is not None:
        facts.append(f"weakest link {share_in_words(weakest)}")
    notes = [f"{len(work_ids)} different work_ids"] if len(work_ids) > 1 else []
    notes += ["work_id missing"] if unlabelled and work_ids else ["no work_id"] if unlabelled else []
    names = {track.track_id: (_name(track), _address(track.path, folder)) for track in group.tracks}
    return Template(template("groups_card.html")).substitute(
        number=number,
        title=escape(next((track.title for track, _ in order if track.title), "") or _name(order[0][0])),
        facts=escape(" · ".join(facts)),
        notes=" ".join(f'<span class="note">{escape(note)}</span>' for note in notes),
        unsettled="true" if notes else "false",
        rows="".join(_row(track, link, names) for track, link in order),
    )


def _row(track: GroupedTrack, link: Link | None, names: dict[str, tuple[str, str]]) -> str:
    name, address = names[track.track_id]
    about = " · ".join(filter(None, (track.artist, clock(track.duration_s), track.work_id and f"work {track.work_id}")))
    button = (
        f'<button type="button" class="plain" data-track="{escape(address)}" data-name="{escape(name)}">Play</button>'
    )
    verdict = ""
    if link is not None:
        other, other_address = names[link.second if link.first == track.track_id else link.first]
        kind = (
            '<b class="same">Same recording</b> as'
            if link.same_recording
            else '<b class="version">Another version</b> of'
        )
        verdict = (
            f"<p>{kind} {escape(other)} · "
            f'{share_in_words(link.probability)} <span class="quiet">(score {link.score:+.1f}, '
            f"similarity {link.similarity:.2f})</span></p>"
        )
        stretch = link.stretch
        if stretch is not None:
            turned = link.second == track.track_id  # `first` is the query, and comes before this track
            here, there = (stretch.start_s, stretch.end_s), (stretch.query_start_s, stretch.query_end_s)
            here, there = (here, there) if turned else (there, here)
            semitones = stretch.transposition if turned else -stretch.transposition
            ratio = stretch.tempo_ratio if turned else 1 / stretch.tempo_ratio
            verdict += (
                f"<p>{clock(here[0])}–{clock(here[1])} here runs as {clock(there[0])}–{clock(there[1])} there,"
                f" {pitch_in_words(semitones)}, {tempo_in_words(ratio)}</p>"
            )
            button = (
                f'<button type="button" data-query="{escape(other_address)}" data-query-name="{escape(other)}"'
                f' data-query-s="{there[0]:.2f}" data-end-s="{there[1]:.2f}" data-track="{escape(address)}"'
                f' data-name="{escape(name)}" data-track-s="{here[0]:.2f}" data-ratio="{ratio:.4f}">Compare</button>'
                + button
            )
    return Template(template("groups_row.html")).substitute(
        name=escape(name), about=escape(about), path=escape(track.path), verdict=verdict, buttons=button
    )


def _name(track: GroupedTrack) -> str:
    return track.title or Path(track.path).name or track.track_id


def _address(path: str, folder: Path) -> str:
    """A file as a page in `folder` names it."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))
