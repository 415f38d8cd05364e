"""The page of groups: its order by hand, and the page in a browser with real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from chromium import Chromium
from written_tune import played, slower, tune

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.groups.group import Group, GroupedTrack, Link, in_order
from bytecover2_milvus.pages.groups import MOST_GROUPS, groups_page
from bytecover2_milvus.second_stage.explain import Stretch


def link(first: str, second: str, score: float) -> Link:
    return Link(first, second, similarity=0.5, probability=0.9, score=score)


def test_each_track_stands_under_those_before_by_its_strongest_link():
    tracks = [GroupedTrack(letter, f"{letter}.wav", 10.0) for letter in "abcde"]
    links = [link("a", "b", 1), link("b", "c", 3), link("c", "d", 2), link("a", "d", 0.5), link("b", "d", 1.5)]
    # c-b, 3, is the strongest; d joins by c-d, 2; a by a-b, 1; nothing links e.
    order = [(track.track_id, by and by.score) for track, by in in_order(Group(tracks, links))]
    assert order == [("b", None), ("c", 3), ("d", 2), ("a", 1), ("e", None)]


NASTY = '</p><script>alert("1")</script>'


@pytest.fixture(scope="module")
def groups(tmp_path_factory) -> tuple[Path, list[Group]]:
    """The folder of the files, and two groups of them; one file is gone."""
    folder = tmp_path_factory.mktemp("catalogue")
    names = ("one song #1 100%.wav", "übersetzt & <b>.flac", "copy.ogg")
    for name, notes in zip(names, (tune(1, 20), [*tune(2, 6), *slower(tune(1, 20, 2), 0.8)], tune(1, 20)), strict=True):
        soundfile.write(folder / name, played(notes), SAMPLE_RATE)
    one, other, copy = (str(folder / name) for name in names)
    first = Group(
        [
            GroupedTrack("one", one, 20, NASTY, "Somebody", "w1"),
            GroupedTrack("other", other, 22, "", "", "w2"),
            GroupedTrack("copy", copy, 20, "Copied"),
        ],
        [
            Link("one", "copy", 0.99, 0.9999, 12.0, True, Stretch(0, 20, 0, 20, 0, 1.0)),
            # What is known of a pair may be told from either side: here the query is the track that comes later.
            Link("other", "one", 0.4, 0.93, 2.6, False, Stretch(7, 20, 2, 18.25, -2, 0.8)),
        ],
    )
    second = Group(
        [
            GroupedTrack("x", str(folder / "gone.wav"), 9, "Lost", "", "w3"),
            GroupedTrack("y", copy, 20, "Found", "", "w3"),
        ],
        [link("x", "y", 1.0)],
    )
    return folder, [first, second]


@pytest.fixture(scope="module")
def page(browser: Chromium, groups) -> Iterator[Chromium]:
    folder, listed = groups
    path = folder / "pages" / "groups.html"
    path.parent.mkdir()
    path.write_text(groups_page(listed, "tracks & more", path.parent), encoding="utf-8")
    browser.open(path.as_uri())
    yield browser
    assert browser.errors == []


def test_the_page_lists_tracks_with_their_verdicts(page):
    assert page.text("h1") == "tracks & more"
    assert page.text(".words") == "2 works with more than one track"
    assert page.text("#group-1") == NASTY  # escaped
    facts = " ".join(page.text(".group .hint").split())
    assert facts == "3 tracks · 2 recordings · weakest link 93 % 2 different work_ids work_id missing"
    rows = page.evaluate("[...document.querySelectorAll('.group:first-of-type li')].map((row) => row.innerText)")
    assert "Same recording" not in rows[0] and f"Same recording as {NASTY} · above 99 %" in rows[1]
    assert f"Another version of {NASTY} · 93 %" in rows[2]
    assert "0:07–0:20 here runs as 0:02–0:18 there, 2 semitones higher, 1.25 times as fast" in rows[2]


def test_comparing_two_tracks_puts_both_players_to_the_match(page):
    page.click("li:nth-of-type(3) [data-query]")
    page.wait("query.readyState > 0 && track.readyState > 0 && !query.seeking && !track.seeking")
    assert page.evaluate("[query.currentTime, track.currentTime]") == pytest.approx([2, 7], abs=0.01)
    assert page.text("#query-name") == NASTY and page.text("#track-name") == "übersetzt & <b>.flac"
    page.click("#together")
    page.wait(
        "!query.paused && !track.paused && Math.abs((query.currentTime - 2) / 1.25 - track.currentTime + 7) < 0.5"
    )
    page.wait("query.currentTime > 3")
    page.click("#together")
    assert page.evaluate("query.paused && track.paused")


def test_one_track_is_played_alone_and_one_that_is_gone_is_named(page):
    page.click("li:nth-of-type(2) [data-track]:not([data-query])")
    page.wait("!track.paused && track.currentTime > 0.2")
    assert page.evaluate("query.parentElement.hidden && document.querySelector('#together').hidden")
    page.evaluate("track.pause()")
    page.click(".group:nth-of-type(2) li [data-track]")
    page.wait("!document.querySelector('#trouble').hidden")
    assert page.text("#trouble") == "Lost: this browser cannot play the file; is it still there?"
    page.errors.clear()  # the browser reports the file


def test_the_page_requests_nothing_but_the_files(page):
    assert {request["url"].partition(":")[0] for request in page.requests} <= {"file", "data"}
    blocked = (
        "new Promise((resolve) => {"
        " document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));"
        " fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert page.evaluate(blocked) == "connect-src"
    page.errors.clear()


def test_a_search_shows_the_works_that_hold_its_text(page):
    assert page.evaluate("search.getBoundingClientRect().width") > 100
    visible = "[...document.querySelectorAll('.group')].map((card) => !card.hidden)"

    def search(text: str) -> None:
        page.evaluate(f"search.value = '{text}'; search.dispatchEvent(new Event('input'))")

    search("ÜBERSETZT")
    assert page.evaluate(visible) == [True, False] and page.text("#count") == "1 of 2"
    search("")
    page.evaluate("unsettled.click()")
    assert page.evaluate(visible) == [True, False]  # the works of the second are one and known
    page.evaluate("unsettled.click()")
    assert page.evaluate(visible) == [True, True] and page.text("#count") == ""


def test_every_control_has_a_name_and_the_page_fits_a_phone(page):
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "searchbox", "checkbox")
    controls = [node for node in nodes if node["role"]["value"] in roles and not node["ignored"]]
    assert controls and all(node["name"]["value"] for node in controls)
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.send("Emulation.clearDeviceMetricsOverride")


def test_a_page_holds_so_many_groups_and_says_how_many_there_are(tmp_path):
    pair = [GroupedTrack("x", "x.wav", 9), GroupedTrack("y", "y.wav", 9)]
    made = (Group(pair, [link("x", "y", 1.0)]) for _ in range(MOST_GROUPS + 1))
    text = groups_page(made, "tracks", tmp_path, total=MOST_GROUPS + 1)
    assert text.count('class="card group"') == MOST_GROUPS
    assert "2,001 works with more than one track" in text and "The page has 2,000 of them with 4,000 tracks." in text


def test_a_catalogue_without_groups_says_so(tmp_path):
    page = groups_page([], "tracks", tmp_path)
    assert "0 works with more than one track" in page and 'role="search" hidden' in page
