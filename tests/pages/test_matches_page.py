"""The page of a query in a browser, with real files."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from chromium import Chromium
from written_tune import played, slower, tune

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.milvus.search import Match
from bytecover2_milvus.pages.matches import Asked, matches_page
from bytecover2_milvus.pages.pair import told_apart

NASTY = '</p><script>alert("1")</script>'


@pytest.fixture(scope="module")
def page(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    folder = tmp_path_factory.mktemp("catalogue")
    soundfile.write(folder / "a query #1.wav", played(tune(1, 20)), SAMPLE_RATE)
    soundfile.write(folder / "cover.ogg", played([*tune(2, 6), *slower(tune(1, 20, 2), 0.8)]), SAMPLE_RATE)
    here = {"path": str(folder / "cover.ogg"), "duration_s": 22.0}
    judged = {"score": 2.6, "probability": 0.93, "transposition": 2, "tempo_ratio": 0.8}
    matches = [
        Match(1, "a", "w1", NASTY, "Somebody", **here, similarity=0.4, start_s=7, end_s=20,
              query_start_s=2, query_end_s=12.4, **judged),
        Match(2, "b", "", "", "", **here, similarity=0.3, start_s=0, end_s=22),
    ]  # fmt: skip
    asked = [Asked(folder / "a query #1.wav", matches), Asked(folder / "other.wav", [], "no cover found")]
    path = folder / "pages" / "matches.html"
    path.parent.mkdir()
    path.write_text(matches_page(asked, "tracks & more", path.parent), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.errors == []
    return browser


def test_each_query_has_its_matches_with_their_verdicts(page):
    assert page.text(".words") == "1 of 2 queries found a track" and page.text("h1") == "tracks & more"
    rows = page.evaluate("[...document.querySelectorAll('.group:first-of-type li')].map((row) => row.innerText)")
    assert len(rows) == 3 and f"1. {NASTY}" in rows[1]
    assert "A version of a query #1 · 93 % (score +2.6, similarity 0.40)" in " ".join(rows[1].split())
    assert "0:07–0:20 here runs as 0:02–0:12 there, 2 semitones higher, 0.80 times as fast" in rows[1]
    assert "2. cover.ogg" in rows[2] and "Close to a query #1" in rows[2]
    assert " ".join(page.text(".group:nth-of-type(2) .hint").split()) == "No track found · no cover found"


def test_both_players_are_put_to_the_match(page):
    page.click("[data-query]")
    page.wait("query.readyState > 0 && track.readyState > 0 && !query.seeking && !track.seeking")
    assert page.evaluate("[query.currentTime, track.currentTime]") == pytest.approx([2, 7], abs=0.01)
    assert page.text("#query-name") == "a query #1" and page.text("#track-name") == NASTY


def test_queries_without_a_match_can_be_shown_alone(page):
    page.evaluate("unsettled.click()")
    assert page.evaluate("[...document.querySelectorAll('.group')].map((card) => card.hidden)") == [True, False]
    page.evaluate("unsettled.click()")


def test_queries_are_named_by_as_many_folders_as_tell_them_apart():
    paths = ["songs/a/1.mp3", "songs/b/1.flac", "songs/b/2.mp3", "x/c/3.mp3", "y/c/3.mp3", "4.mp3", "4.mp3"]
    assert told_apart([Path(path) for path in paths]) == ["a/1", "b/1", "2", "x/c/3", "y/c/3", "4", "4"]
