"""The page of an evaluation in a browser, with real files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import Chromium
from written_tune import played, tune

from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.milvus.schema import Row
from bytecover2_milvus.pages.evaluation import MOST_QUERIES, MOST_WORKS, Report, evaluation_page
from bytecover2_milvus.pages.mistakes import Shown
from bytecover2_milvus.second_stage.explain import Stretch
from bytecover2_milvus.second_stage.survey import Survey

NASTY = '</p><script>alert("1")</script>'
N = 60  # works of two tracks


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def report(folder: Path, n: int = N) -> Report:
    """Works whose two tracks are near each other, but for noise; the first has an odd name."""
    rng = np.random.default_rng(5)
    centres = np.repeat(unit(rng.standard_normal((n, 16))), 2, axis=0)
    vectors = unit(centres + 0.35 * rng.standard_normal(centres.shape))
    works = [NASTY if i == 0 else f"w{i}" for i in range(n) for _ in range(2)]
    tracks = [f"t{i:04}" for i in range(2 * n)]
    survey = Survey()
    evaluation = evaluate(vectors, works, tracks, judge=survey)
    rows = {
        name: Row(name, "0" * 64, 20.0, 0.0, 20.0, title=NASTY, artist="<b>", path=str(folder / "a song #1.wav"))
        for name in tracks
    }
    met = Stretch(2, 12.4, 7, 18, 2, 0.8)
    worst = [Shown(one, rows, met, None) for one in survey.worst(evaluation, MOST_QUERIES)]
    return Report(evaluation, None, survey, None, worst)


@pytest.fixture(scope="module")
def page(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    folder = tmp_path_factory.mktemp("catalogue")
    soundfile.write(folder / "a song #1.wav", played(tune(1, 20)), SAMPLE_RATE)
    path = folder / "pages" / "evaluation.html"
    path.parent.mkdir()
    path.write_text(evaluation_page(report(folder), "tracks & more", path.parent), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.errors == []
    assert {request["url"].partition(":")[0] for request in browser.requests} <= {"file", "data"}
    return browser


def test_the_page_says_what_the_evaluation_found(page, tmp_path):
    result = report(tmp_path).result
    assert page.text("h1") == "tracks & more"
    assert page.text(".words") == f"MAP {result.map:.3f} by the vector alone: 120 queries of 60 works among 120 tracks"
    charts = page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert charts == ["Distribution of similarities", "Precision and recall by similarity", "Number of works by MAP"]
    drawn = page.evaluate(
        "[...document.querySelectorAll('.chart path, .chart polyline')].every((one) => one.getTotalLength() > 0)"
    )
    assert drawn
    works = page.evaluate("[...document.querySelectorAll('details tbody tr')].map((row) => row.cells[2].textContent)")
    assert len(works) == 60 and works == sorted(works)


def test_the_worst_queries_stand_first_with_what_was_taken_for_them(page):
    facts = page.evaluate("[...document.querySelectorAll('.group .hint')].map((line) => line.textContent)")
    found = [float(re.search(r"average precision ([\d.]+)", line)[1]) for line in facts]
    assert 3 < len(found) <= MOST_QUERIES and found == sorted(found) and found[0] < 0.5
    rows = page.evaluate("[...document.querySelector('.group').querySelectorAll('li')].map((row) => row.textContent)")
    assert len(rows) == 3 and "Another work, ranked for" in rows[1] and "The same work as" in rows[2]
    assert NASTY in rows[1] and "0:07–0:18 here runs as 0:02–0:12 there" in rows[1]


def test_both_players_are_put_to_what_was_taken_for_the_query(page):
    page.click("[data-query]")
    page.wait("query.readyState > 0 && track.readyState > 0 && !query.seeking && !track.seeking")
    assert page.evaluate("[query.currentTime, track.currentTime]") == pytest.approx([2, 7], abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_its_texts_can_be_read(page, scheme):
    """The contrast of every text of a chart with its card is 4.5 at least (WCAG 2.2, 1.4.3)."""
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = page.evaluate(
        "[getComputedStyle(document.querySelector('.chart text')).fill,"
        " getComputedStyle(document.querySelector('.card')).backgroundColor]"
    )
    luminances = sorted(luminance(colour) for colour in colours)
    assert (luminances[1] + 0.05) / (luminances[0] + 0.05) >= 4.5
    page.send("Emulation.clearDeviceMetricsOverride")
    page.send("Emulation.setEmulatedMedia", features=[])


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as WCAG defines it."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_page_is_bounded(tmp_path):
    found = report(tmp_path, 4 * MOST_WORKS)
    text = evaluation_page(found, "tracks", tmp_path)
    assert text.count('class="card group"') == len(found.worst) == MOST_QUERIES
    assert f"The {MOST_WORKS} works that are found worst" in text and text.count("<tr>") == MOST_WORKS + 1
    assert len(text) < 400_000 and "<script>alert" not in text
