"""The page of the service in a browser: a cover is dropped or recorded, its match is seen, heard and judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest
import soundfile
from chromium import Chromium
from serving import Running
from written_tune import played, tune

from bytecover2_milvus.audio.decode_pool import hash_content
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.labels import read_labels

SECRET = "not-for-anybody-else"
NASTY = "</p><script>alert('1')</script> & cover.flac"
COVER_STARTS_S = 10.0


@pytest.fixture(scope="module")
def cover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other music, and then song-3, of which song-3.wav and again.flac are in the catalogue."""
    path = tmp_path_factory.mktemp("cover") / NASTY.replace("/", "|")
    soundfile.write(path, played([*tune(20, COVER_STARTS_S), *tune(3, 40)]), SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels") / "labels.jsonl"


@pytest.fixture(scope="module")
def service(filled: Path, bundle: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with Running(filled, bundle, folder, "--allow-audio", "--labels", labels) as running:
        yield running


@pytest.fixture(scope="module")
def page(browser: Chromium, service: Running, cover: Path) -> Iterator[Chromium]:
    """The page after the cover was dropped, its first match open."""
    browser.open(f"http://127.0.0.1:{service.port}/")
    browser.wait("!document.querySelector('#ask').hidden")
    browser.drop(".drop", cover)
    browser.wait("document.querySelector('#drawings').children.length > 0")
    browser.wait("query.readyState > 0 && track.readyState > 0 && !query.seeking && !track.seeking")
    yield browser
    assert browser.errors == []


def answer_of(service: Running, cover: Path) -> dict:
    return service.ask(cover, min_probability=0, features=True).json()


def test_a_dropped_cover_finds_its_song_in_the_words_of_the_explain_page(
    page: Chromium, service: Running, cover: Path
) -> None:
    answer = answer_of(service, cover)
    assert page.text("#summary").startswith(f"2 probable covers of {cover.name} (0:")
    titles = page.evaluate("[...document.querySelectorAll('.title')].map((title) => title.textContent)")
    assert {*titles[:2]} == {"song-3", "again"} and len(titles) == 6
    verdicts = page.evaluate("[...document.querySelectorAll('.match .verdict')].map((verdict) => verdict.textContent)")
    assert verdicts == [match["verdict"] for match in answer["matches"]]
    assert verdicts[0].startswith("Probably one work (") and verdicts[-1].startswith("Probably two works (")
    assert page.text("#words").endswith("; there the track is in the same key and at the same tempo.")
    assert page.text("#query-name") == cover.name  # no element of it
    facts = page.evaluate("[...document.querySelectorAll('.facts dt')].map((name) => name.textContent)")
    assert "Key of the track" in facts and "Tempo of the track" in facts
    assert page.evaluate("document.querySelectorAll('.view').length") == 2
    assert page.evaluate("document.querySelectorAll('.view:not([hidden]) image').length") == 5
    assert page.evaluate("document.querySelector('.matrix').getBoundingClientRect().height") > 100


def test_both_players_stand_at_the_matched_place(page: Chromium) -> None:
    page.click("#start")
    page.wait("!query.seeking && !track.seeking")
    query_s, track_s = page.evaluate("[query.currentTime, track.currentTime]")
    assert query_s - track_s == pytest.approx(COVER_STARTS_S, abs=1.5)
    page.click(".view:not([hidden]) .matrix", x=0.5, y=0.6)
    page.wait("!query.seeking && !track.seeking")
    query_s, track_s = page.evaluate("[query.currentTime, track.currentTime]")
    assert query_s - track_s == pytest.approx(COVER_STARTS_S, abs=2)  # a window of the alignment
    assert page.text("#place").endswith(" of the track")


def test_they_play_together_and_in_turns(page: Chromium) -> None:
    page.click("#start")
    page.click("#together")
    page.wait("!query.paused && !track.paused && query.currentTime > 11")
    page.click("#together")
    page.wait("query.paused && track.paused")
    page.click("#turns")
    page.wait("!query.paused && track.paused")
    page.click("#turns")
    page.wait("query.paused && track.paused")


def test_judgements_are_written_and_the_last_one_counts(page: Chromium, labels: Path, cover: Path) -> None:
    pressed = "['same', 'other'].map((id) => document.getElementById(id).ariaPressed)"
    assert page.evaluate(pressed) == ["false", "false"]
    page.click("#other")
    page.wait("document.querySelector('#kept').value === 'Saved'")
    assert page.evaluate(pressed) == ["false", "true"]
    page.click("#same")
    page.wait("document.querySelector('#same').ariaPressed === 'true'")
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    assert [line["same_work"] for line in lines] == [False, True]
    (label,) = read_labels([labels])
    with cover.open("rb") as file:
        assert label.content_hash == hash_content(file)
    assert label.same_work and label.track_id in ("song-3", "again") and label.path.endswith((".wav", ".flac"))
    assert label.query == cover.name and label.probability is not None and label.probability > 0.75


def test_the_keyboard_is_enough(page: Chromium) -> None:
    page.evaluate("document.querySelectorAll('.match')[2].focus()")
    page.press("Enter")
    expanded = "[...document.querySelectorAll('.match')].map((match) => match.ariaExpanded)"
    assert page.evaluate(expanded) == ["false", "false", "true", "false", "false", "false"]
    page.wait("document.querySelector('#drawings').children.length > 0")
    assert page.evaluate("document.querySelector('#same').ariaPressed") == "false"  # of another track
    seen = []
    for _ in range(30):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className.baseVal || ''"))
    for name in ("same", "other", "start", "together", "turns", "balance", "matrix"):
        assert name in seen
    page.evaluate("document.querySelectorAll('.match')[0].focus()")
    page.press("Enter")
    page.wait("document.querySelector('#same').ariaPressed === 'true'")  # it remembers


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_screen_in_both_colours_and_all_controls_have_names(page: Chromium, width: int) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    papers = set()
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    page.send("Emulation.clearDeviceMetricsOverride")
    page.send("Emulation.setEmulatedMedia", features=[])
    assert len(papers) == 2
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "radio", "slider", "image", "progressbar")
    controls = [node for node in nodes if node["role"]["value"] in roles and not node["ignored"]]
    assert len(controls) > 10 and all(node["name"]["value"] for node in controls)


def test_it_requests_nothing_but_the_service_and_obeys_no_markup(page: Chromium, service: Running) -> None:
    here = f"http://127.0.0.1:{service.port}/"
    assert all(request["url"].startswith((here, "data:", "blob:")) for request in page.requests)
    blocked = (
        "new Promise((resolve) => {"
        " document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));"
        "{} })"
    )
    for attempt, directive in (
        ("fetch('http://127.0.0.1:9/').catch(() => {});", "connect-src"),
        ("document.body.append(Object.assign(document.createElement('script'), {text: '1'}));", "script-src-elem"),
    ):
        assert page.evaluate(blocked.replace("{}", attempt)) == directive
    page.errors.clear()  # the browser reports what it blocked


def test_a_stranger_has_no_cover_and_a_text_is_refused_in_one_line(page: Chromium, music: Path, tmp_path: Path) -> None:
    page.choose("#file", music / "stranger.ogg")
    page.wait("document.querySelector('#summary').textContent.startsWith('No probable cover of stranger.ogg')")
    assert page.evaluate("document.querySelector('#compared').hidden")
    (tmp_path / "notes.wav").write_text("no audio " * 1000)
    page.choose("#file", tmp_path / "notes.wav")
    page.wait("document.querySelector('#status').className === 'failed'")
    assert page.text("#status").startswith("notes.wav: ") and page.evaluate("document.querySelector('#found').hidden")
    page.errors.clear()  # the browser reports the status 422


def test_a_song_is_recorded_from_a_microphone(service: Running, chromium_program: str, tmp_path: Path) -> None:
    heard = tmp_path / "room.wav"
    soundfile.write(heard, np.tile(played(tune(3, 40)), 3), SAMPLE_RATE)
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options += [f"--use-file-for-fake-audio-capture={heard}", "--autoplay-policy=no-user-gesture-required"]
    with Chromium(chromium_program, tmp_path / "profile", *options) as page:
        page.open(f"http://127.0.0.1:{service.port}/")
        page.wait("!document.querySelector('#record').hidden")
        page.click("#record")
        page.wait("parseInt(document.querySelector('#record').textContent.slice(8)) >= 6")
        page.click("#record")
        page.wait("document.querySelectorAll('.match').length === 6")
        assert "recording.webm (0:0" in page.text("#summary")
        if page.evaluate("document.querySelector('#compared').hidden"):
            page.click(".match")
        # When the alignment is there, the players jump to where it begins.
        page.wait("document.querySelector('#drawings').children.length > 0 && query.readyState > 0 && !query.seeking")
        page.evaluate("query.currentTime = 3")
        page.wait("!query.seeking && query.currentTime === 3")
        assert page.errors == []


def test_with_a_token_and_nothing_allowed(
    browser: Chromium, filled: Path, bundle: Path, cover: Path, tmp_path: Path
) -> None:
    with Running(filled, bundle, tmp_path, BYTECOVER2_SERVE_TOKEN=SECRET) as service:
        browser.open(f"http://127.0.0.1:{service.port}/")
        browser.wait("!document.querySelector('#access').hidden && document.activeElement.id === 'token'")
        for token in ("a-wrong-one-of-16", SECRET):
            browser.evaluate(f"document.querySelector('#token').value = '{token}'")
            browser.press("Enter")
        browser.wait("!document.querySelector('#ask').hidden && document.querySelector('#access').hidden")
        browser.choose("#file", cover)
        browser.wait("document.querySelector('#drawings').children.length > 0")
        assert browser.evaluate("document.querySelector('.judging').hidden && track.parentElement.hidden")
        assert "no audio of tracks" in browser.text("#silent")
        response = service.http.post("/v1/labels", json={}, headers={"Authorization": f"Bearer {SECRET}"})
        assert response.status_code == 403 and "--labels" in response.json()["error"]
        assert service.http.post("/v1/alignment", json={}).status_code == 401
        assert service.http.get("/").status_code == 200  # which tells nothing
    browser.errors.clear()  # the browser reports the status 401


def test_with_a_token_the_track_is_fetched_and_heard(
    browser: Chromium, filled: Path, bundle: Path, cover: Path, tmp_path: Path
) -> None:
    with Running(filled, bundle, tmp_path, "--allow-audio", BYTECOVER2_SERVE_TOKEN=SECRET) as service:
        browser.open(f"http://127.0.0.1:{service.port}/")
        browser.wait("document.activeElement.id === 'token'")
        browser.evaluate(f"document.querySelector('#token').value = '{SECRET}'")
        browser.press("Enter")
        browser.wait("!document.querySelector('#ask').hidden")
        browser.choose("#file", cover)
        browser.wait("query.readyState > 0 && track.readyState > 0 && !query.seeking && !track.seeking")
        assert browser.evaluate("track.src").startswith("blob:")
        query_s, track_s = browser.evaluate("[query.currentTime, track.currentTime]")
        assert query_s - track_s == pytest.approx(COVER_STARTS_S, abs=1.5)
        assert not [request for request in browser.requests if SECRET in request["url"]]
    browser.errors.clear()  # the browser reports the status 401


# Without the page


def pair_of(answer: dict, **changes: object) -> dict:
    match = answer["matches"][0]
    told = {name: match[name] for name in ("track_id", "similarity", "score", "probability")}
    return {name: answer[name] for name in ("query", "duration_s", "chroma")} | told | changes


def refused(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert words in response.json()["error"] and "\n" not in response.text


def test_alignments_of_what_is_none_are_refused(service: Running, cover: Path) -> None:
    answer = answer_of(service, cover)
    post = service.http.post
    assert post("/v1/alignment", json=pair_of(answer)).status_code == 200
    short = service.ask(cover).json()
    assert short["chroma"] is None  # it was not asked for
    refused(post("/v1/alignment", json=pair_of(answer, chroma="damaged")), 422, "damaged")
    refused(post("/v1/alignment", json=pair_of(answer, track_id="none")), 404, "no track")
    refused(post("/v1/alignment", json=pair_of(answer, duration_s=0)), 422, "duration_s")
    refused(post("/v1/alignment", json=pair_of(answer, more=1)), 422, "more")
    refused(post("/v1/alignment", content=b"{}"), 415, "application/json")
    kind = {"Content-Type": "application/json"}
    refused(post("/v1/alignment", content=b"{", headers=kind), 422, "the object")
    refused(post("/v1/alignment", content=b" " * 300_000, headers=kind), 413, "at most 262144 bytes")


def test_labels_that_are_none_are_refused_and_not_written(service: Running, labels: Path) -> None:
    before = labels.read_bytes()
    label = {"query": "a.wav", "content_hash": "0" * 64, "track_id": "song-1", "same_work": True}
    for changes, status, words in (
        ({"same_work": "yes"}, 422, "same_work"),
        ({"content_hash": "0"}, 422, "content_hash"),
        ({"track_id": "none"}, 404, "no track"),
        ({"probability": 2}, 422, "probability"),
    ):
        refused(service.http.post("/v1/labels", json=label | changes), status, words)
    # What a web page elsewhere can send unasked.
    plain = {"Content-Type": "text/plain", "Origin": "https://elsewhere.example"}
    refused(service.http.post("/v1/labels", content=json.dumps(label), headers=plain), 415, "application/json")
    assert labels.read_bytes() == before


def test_what_the_openapi_document_says_of_these_holds(service: Running, cover: Path) -> None:
    document = service.http.get("/openapi.json").json()
    answer = answer_of(service, cover)
    answers = {
        "QueryAnswer": answer,
        "AlignmentAnswer": service.http.post("/v1/alignment", json=pair_of(answer)).json(),
        "ServiceFacts": service.http.get("/v1/service").json(),
    }
    for name, told in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(told, schema, jsonschema.Draft202012Validator)
    for route in ("/v1/alignment", "/v1/labels"):
        schema = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
