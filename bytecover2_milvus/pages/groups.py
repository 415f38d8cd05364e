"""The page of groups: tracks that are one work, each under those before it, with two players to compare them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ..groups.group import Group, GroupedTrack, Link, in_order
from ..second_stage.explain import Stretch, clock, share_in_words
from .cards import card, card_row, cards_page
from .document import escape
from .pair import Named, Shared, address_of, compare_button, play_button, shared_in_words, verdict_of

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
    return cards_page(
        "Works",
        name,
        (_card(group, number, folder) for number, group in enumerate(shown, 1)),
        title=f"{name}: works with several tracks",
        summary=f"{total:,} works with more than one track" if total != 1 else "One work with more than one track",
        remark=(
            f"The page has {len(shown):,} of them with {n_tracks:,} tracks."
            if len(shown) < total
            else f"{n_tracks:,} tracks in all."
        )
        + " Each track stands under those before it, with its strongest link to one of them.",
        placeholder="Title, artist, path or work_id",
        unsettled="those whose work_ids differ or are missing",
        searchable=bool(shown),
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
    names = {track.track_id: Named(_name(track), address_of(track.path, folder)) for track in group.tracks}
    return card(
        number,
        next((track.title for track, _ in order if track.title), "") or _name(order[0][0]),
        " · ".join(facts),
        (_row(track, link, names) for track, link in order),
        notes=notes,
        unsettled=bool(notes),
    )


def _row(track: GroupedTrack, link: Link | None, names: dict[str, Named]) -> str:
    this = names[track.track_id]
    about = " · ".join(filter(None, (track.artist, clock(track.duration_s), track.work_id and f"work {track.work_id}")))
    verdict, buttons = "", play_button(this)
    if link is not None:
        other = names[link.second if link.first == track.track_id else link.first]
        same, version = '<b class="same">Same recording</b> as', '<b class="version">Another version</b> of'
        kind = same if link.same_recording else version
        verdict = verdict_of(kind, other.name, link.probability, link.score, link.similarity)
        if link.stretch is not None:
            shared = _shared(link.stretch, turned=link.second == track.track_id)
            verdict += shared_in_words(shared)
            buttons = compare_button(this, other, shared) + buttons
    return card_row(escape(this.name), about, track.path, verdict, buttons)


def _shared(stretch: Stretch, *, turned: bool) -> Shared:
    """The stretch of a link from its second track if `turned`, or from its first, which is the query."""
    query, track = (stretch.query_start_s, stretch.query_end_s), (stretch.start_s, stretch.end_s)
    if turned:
        return Shared(*track, *query, stretch.transposition, stretch.tempo_ratio)
    return Shared(*query, *track, -stretch.transposition, 1 / stretch.tempo_ratio)


def _name(track: GroupedTrack) -> str:
    return track.title or Path(track.path).name or track.track_id
