"""Two recordings, explained in words and in a page, which is opened in a browser."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from band_embedder import BandEmbedder
from chromium import Chromium
from click import ClickException
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from written_tune import FRAME_S, GROUPS, chroma_of, played, slower, tune

from bytecover2_milvus.alignment.chroma import fold, to_levels
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.cli import main
from bytecover2_milvus.cli.explain import stored_track
from bytecover2_milvus.cli.milvus_target import MilvusTarget
from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.embedding.contract import ChromaFacts
from bytecover2_milvus.embedding.embedder import Embedder, Heard
from bytecover2_milvus.errors import AudioError, BundleError, ChromaError, OutputError, ShortChroma
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.pages.drawing import points
from bytecover2_milvus.pages.explain import explain_page, write_page
from bytecover2_milvus.pages.image import LARGEST, of_chroma, of_recurrence, png
from bytecover2_milvus.pages.sound import BIT_RATES, compress
from bytecover2_milvus.second_stage.attribution import Contributions, Part
from bytecover2_milvus.second_stage.explain import (
    Explanation,
    Recording,
    clock,
    contributions_in_words,
    explain_pair,
    in_words,
    verdict_in_words,
)

QUERY_NAME = 'live </script><script>alert("1")</script> & loud.mp3'

# The same 50 seconds, in the track 3 semitones higher and 1.25 times as fast, with other music around them.
QUERY = [*tune(2, 15), *tune(1, 50), *tune(3, 10)]
TRACK = [*tune(4, 10), *slower(tune(1, 50, transposition=3), 0.8), *tune(5, 20)]
CONTRIBUTIONS = Contributions(
    0.62,
    (Part(0, 20, -0.02), Part(20, 40, 0.11), Part(40, 60, 0.08), Part(60, 75, 0.0)),
    (Part(130.8, 261.6, 0.01), Part(261.6, 523.3, 0.31), Part(523.3, 1046.5, -0.04)),
)
STARTS_S = sum(duration for _, duration in tune(2, 15)), sum(duration for _, duration in tune(4, 10))


def recording(name: str, notes: list[tuple[int, float]], seed: int = 0) -> Recording:
    return Recording(name, sum(duration for _, duration in notes), to_levels(chroma_of(notes, seed)))


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    pair = recording(QUERY_NAME, QUERY), recording("cover.flac", TRACK, 1)
    return explain_pair(*pair, GROUPS, FRAME_S, contributions=CONTRIBUTIONS)


# In words


def test_says_where_the_tune_runs_how_much_higher_and_how_fast(explanation):
    window_s = 9 * FRAME_S
    for group in GROUPS:
        stretch = explanation.stretch(group)
        assert stretch is not None
        assert (stretch.query_start_s, stretch.start_s) == pytest.approx(STARTS_S, abs=2 * window_s)
        assert stretch.query_end_s - stretch.query_start_s > 40
        assert stretch.transposition == 3
        assert stretch.tempo_ratio == pytest.approx(1.25, abs=0.05)
    scores = {group: seen.score for group, seen in explanation.evidence.items()}
    assert explanation.best == max(scores, key=scores.get)
    stretch = explanation.stretch(explanation.best)
    assert in_words(explanation) == (
        f"From {clock(stretch.query_start_s)} to {clock(stretch.query_end_s)} the query runs as the track does from "
        f"{clock(stretch.start_s)} to {clock(stretch.end_s)}; there the track is 3 semitones higher and "
        f"{stretch.tempo_ratio:.2f} times as fast."
    )


def test_a_copy_is_in_the_same_key_and_at_the_same_tempo():
    track = recording("a.wav", tune(6, 60))
    words = in_words(explain_pair(track, Recording("b.mp3", track.duration_s, track.chroma), GROUPS, FRAME_S))
    assert words == (
        f"From 0:00 to {clock(len(track.chroma) * FRAME_S)} the query runs as the track does from 0:00 to "
        f"{clock(len(track.chroma) * FRAME_S)}; there the track is in the same key and at the same tempo."
    )


def test_a_copy_agrees_throughout_and_unrelated_tunes_do_not(explanation):
    track = explanation.track
    copy = explain_pair(track, track, GROUPS, FRAME_S)
    strangers = explain_pair(recording("a.wav", tune(6, 60)), recording("b.wav", tune(7, 60)), GROUPS, FRAME_S)
    for group in GROUPS:
        assert copy.agreement(group) == 1 > explanation.agreement(group) > 0.8 > strangers.agreement(group)


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.9999, "Probably one work (above 99 %)."),
        (0.731, "Probably one work (73 %)."),
        (0.2, "Probably two works (20 % that it is one)."),
        (0.0, "Probably two works (below 1 % that it is one)."),
    ],
)
def test_a_probability_becomes_a_verdict_that_is_never_certain(explanation, probability, words):
    judged = replace(explanation, probability=probability, score=0.0)
    assert verdict_in_words(judged) == words
    assert words in explain_page(judged)


def test_says_what_the_similarity_rests_on_most():
    assert contributions_in_words(CONTRIBUTIONS) == (
        "Of the query, the embeddings' similarity of 0.62 rests most on 0:20 to 0:40 (0.51 without) and on what sounds "
        "between 262 and 523 Hz (0.31 without)."
    )
    nothing = Contributions(-0.1, (Part(0, 20, -0.02),), (Part(33, 65, 0.0),))
    assert contributions_in_words(nothing).startswith("No part of the query makes the embeddings alike")


def test_says_that_nothing_recurs():
    silence = Recording("silence.wav", 60.0, np.zeros((120, 36), np.uint8))
    found = explain_pair(recording("a.wav", tune(6, 60)), silence, GROUPS, FRAME_S)
    assert found.best is None and found.stretch("lead") is None
    assert in_words(found).startswith("Nothing recurs")


def test_what_cannot_be_aligned_is_refused_by_name():
    long, short = recording("long.wav", tune(6, 60)), recording("short.wav", tune(7, 2))
    for pair in ((long, short), (short, long)):
        with pytest.raises(ShortChroma, match=r"short\.wav: \d\.\d s are too short to be aligned; 1\.9 s are needed"):
            explain_pair(*pair, GROUPS, FRAME_S)
    with pytest.raises(ChromaError, match=r"long\.wav: 36 channels of chroma; 2 groups of 12 needed"):
        explain_pair(long, long, GROUPS[:2], FRAME_S)


# Images and sound


def pixels(image: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(image))) // 17  # Pillow stretches four bits to eight


@pytest.mark.parametrize("shape", [(1, 1), (12, 7), (5, 30)])
def test_a_png_holds_the_levels(shape):
    levels = np.random.default_rng(0).integers(0, 16, shape).astype(np.uint8)
    np.testing.assert_array_equal(pixels(png(levels)), levels)


def test_large_images_shrink_and_a_diagonal_stays_as_bright():
    diagonal = pixels(of_recurrence(np.eye(3 * LARGEST, dtype=bool)))
    np.testing.assert_array_equal(diagonal, 15 * np.eye(LARGEST))
    chroma = np.zeros((2 * LARGEST + 2, 12), np.uint8)
    chroma[-1, 0] = 15  # the last block has one frame
    image = pixels(of_chroma(chroma))
    assert image.shape == (12, (2 * LARGEST + 2) // 3 + 1)
    assert image[-1, -1] == 15 and image.sum() == 15  # C is the lowest row


def test_a_recording_becomes_an_mp3_within_the_bound(tmp_path):
    waveform = played(tune(1, 15))
    duration_s = len(waveform) / SAMPLE_RATE
    for most in (10_000_000, 50_000, 20_000):
        sound = compress(waveform, most)
        assert sound is not None and len(sound) <= most
        (tmp_path / "small.mp3").write_bytes(sound)
        decoded = load_audio(tmp_path / "small.mp3")
        assert len(decoded) == pytest.approx(len(waveform), abs=0.1 * SAMPLE_RATE)
        assert np.std(decoded) == pytest.approx(np.std(waveform), rel=0.2)
    assert compress(waveform, int(BIT_RATES[-1] / 8 * duration_s)) is None


# From files to a page


class Ear:
    """Chroma by a Fourier transform: enough for sines."""

    def __init__(self) -> None:
        self.contract = SimpleNamespace(
            sample_rate=SAMPLE_RATE,
            silence_peak=1e-3,
            front_end=FrontEnd(),
            chroma=ChromaFacts("0" * 32, GROUPS, 10_240),
        )
        self.verdict = None

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        if 2 * len(waveform) < 3 * SAMPLE_RATE:
            raise AudioError("too short for this ear")
        frames = waveform[: len(waveform) // 10_240 * 10_240].reshape(-1, 10_240)
        power = np.abs(np.fft.rfft(frames * np.hanning(10_240))) ** 2
        edges = 32.703 * 2 ** ((np.arange(85) - 0.5) / 12) * 10_240 / SAMPLE_RATE
        bins = np.digitize(np.arange(power.shape[1]), edges) - 1
        notes = np.stack([power[:, bins == semitone].sum(axis=1) for semitone in range(84)])
        return Heard(np.ones(1, np.float32), np.tile(fold(notes), (1, 3)))


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    soundfile.write(folder / "query.wav", played(QUERY), SAMPLE_RATE)
    soundfile.write(folder / "track.flac", played(TRACK), SAMPLE_RATE)
    soundfile.write(folder / "short.wav", played(tune(1, 2.6)), SAMPLE_RATE)
    soundfile.write(folder / "blip.wav", played(tune(1, 2))[:SAMPLE_RATE], SAMPLE_RATE)
    return folder


@pytest.mark.parametrize("sound", [True, False])
def test_two_files_become_one_page(music, tmp_path, sound):
    out = tmp_path / "page.html"
    found = write_page(music / "query.wav", music / "track.flac", Ear(), out, sound=sound)
    stretch = found.stretch(found.best)
    assert stretch.transposition == 3 and stretch.tempo_ratio == pytest.approx(1.25, abs=0.05)
    text = out.read_text(encoding="utf-8")
    assert in_words(found) in text and "query.wav" in text and "track.flac" in text
    assert (len(text) > 500_000) == sound


def test_a_page_that_cannot_be_made_leaves_what_was_there(music, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("before")
    for query, track, error, message in (
        ("query.wav", "query.wav", AudioError, r"query\.wav: the same file as the query"),
        ("query.wav", "short.wav", ShortChroma, r"short\.wav: 1\.\d s are too short"),
        ("query.wav", "gone.wav", AudioError, r"gone\.wav: No such file"),
        ("blip.wav", "query.wav", AudioError, r"blip\.wav: too short for this ear"),
    ):
        with pytest.raises(error, match=message):
            write_page(music / query, music / track, Ear(), out)
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]
    with pytest.raises(OutputError, match=r"before: cannot be written|page\.html"):
        write_page(music / "query.wav", music / "track.flac", Ear(), out / "page.html")


def test_a_bundle_without_a_second_stage_is_refused(music, tmp_path, tiny_bundle):
    with pytest.raises(BundleError, match="this bundle has no second stage"):
        write_page(music / "query.wav", music / "track.flac", Embedder(tiny_bundle, "cpu", 1), tmp_path / "page.html")


def test_the_command_writes_the_page_of_a_real_bundle(music, tmp_path, tiny_notes_bundle):
    out = tmp_path / "new" / "page.html"
    files = str(music / "query.wav"), str(music / "track.flac")
    done = CliRunner().invoke(
        main,
        ["explain", *files, "--out", str(out), "--no-audio", "--bundle", str(tiny_notes_bundle), "--device", "cpu"],
    )
    assert (done.exit_code, done.stdout) == (0, "")
    words, rests, told = done.stderr.splitlines()
    assert rests.startswith(("Of the query, the embeddings' similarity of ", "No part of the query makes"))
    assert rests.replace("'", "&#x27;") in out.read_text(encoding="utf-8")
    assert re.match(r"From \d+:\d\d to \d+:\d\d the query runs as the track does from \d+:\d\d to \d+:\d\d; ", words)
    assert told == f"The page is {out}"
    assert words.partition(" Any two recordings")[0] in out.read_text(encoding="utf-8")


def test_the_command_refuses_what_it_cannot_use(music, tmp_path):
    def explain(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["explain", *map(str, arguments)])
        return done.exit_code, " ".join(done.stderr.split())

    audio, uri = music / "query.wav", tmp_path / "none.db"
    code, told = explain(audio, music / "track.flac", "--out", tmp_path / "page.mp3")
    assert code == 2 and "must end in .html" in told
    code, told = explain(audio, "no/such", "--out", tmp_path / "page.html", "--uri", uri)
    assert (
        code == 1 and told.startswith("Error: no/such: no such file, and not found as a track_id") and "none.db" in told
    )
    assert list(tmp_path.iterdir()) == []


def test_a_track_is_also_named_by_its_id(folder, tmp_path):
    uri = str(tmp_path / "catalogue.db")
    with connected(uri) as client:
        collection = TrackCollection.open_or_create(client, "tracks", BandEmbedder())
        assert [record.status for record in ingest(tracks_in([folder]), BandEmbedder(), collection, workers=0)]
    assert stored_track("b", MilvusTarget(uri), "tracks", BandEmbedder()) == ((folder / "b.wav").resolve(), None)
    with pytest.raises(ClickException, match=r"^e: no such file, and no track_id of tracks at .*catalogue\.db$"):
        stored_track("e", MilvusTarget(uri), "tracks", BandEmbedder())


# In the browser


@pytest.fixture(scope="module")
def page(browser: Chromium, explanation: Explanation, tmp_path_factory) -> Iterator[Chromium]:
    path = tmp_path_factory.mktemp("page") / "explain.html"
    path.write_text(explain_page(explanation, (compress(played(QUERY)), compress(played(TRACK)))), encoding="utf-8")
    browser.open(path.as_uri())
    browser.wait("[...document.querySelectorAll('audio')].every((player) => player.readyState > 0)")
    yield browser
    assert browser.errors == []


MATRIX = ".view:not([hidden]) .matrix"


def times_s(page: Chromium) -> list[float]:
    """Where the two players stand, when they are done with seeking."""
    page.wait("[...document.querySelectorAll('audio')].every((player) => !player.seeking)")
    return page.evaluate("[...document.querySelectorAll('audio')].map((player) => player.currentTime)")


def path_s(explanation: Explanation) -> NDArray:
    return points(explanation.evidence[explanation.best]) * FRAME_S


def test_the_page_loads_whole_and_requests_nothing(page, explanation):
    assert page.errors == []
    assert {request["url"].partition(":")[0] for request in page.requests[1:]} <= {"data", "blob"}
    assert page.text("h1") == f"{QUERY_NAME} and cover.flac"  # escaped
    assert page.text(".words") == in_words(explanation)
    assert page.text(".verdict") == verdict_in_words(explanation)
    assert page.evaluate("document.scripts.length") == 4
    assert page.text(".facts").count("semitones higher") == 1
    durations = page.evaluate("[...document.querySelectorAll('audio')].map((player) => player.duration)")
    assert durations == pytest.approx([explanation.query.duration_s, explanation.track.duration_s], abs=0.2)
    assert times_s(page) == pytest.approx(path_s(explanation)[0].tolist(), abs=0.01)


def test_the_page_may_reach_no_server(page):
    blocked = (
        "new Promise((resolve) => {"
        " document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));"
        " fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert page.evaluate(blocked) == "connect-src"
    page.errors.clear()  # the browser reports what it blocked


def test_a_click_by_the_path_makes_both_players_jump_to_the_match(page, explanation):
    path = path_s(explanation)
    lengths_s = [len(recording.chroma) * FRAME_S for recording in (explanation.query, explanation.track)]
    for share in (0.25, 0.7):
        query_s, track_s = path[int(share * len(path))]
        page.click(MATRIX, x=(track_s + 2) / lengths_s[1], y=query_s / lengths_s[0])  # two seconds beside it
        found = times_s(page)
        assert np.abs(path - found).max(axis=1).min() < 0.01  # on the path
        assert found == pytest.approx([query_s, track_s], abs=3)
        assert page.text("#place") == f"{clock(found[0])} of the query, {clock(found[1])} of the track"


def test_a_click_elsewhere_makes_them_jump_there(page, explanation):
    page.click(MATRIX, x=0.9, y=0.1)
    lengths_s = [len(recording.chroma) * FRAME_S for recording in (explanation.query, explanation.track)]
    assert times_s(page) == pytest.approx([0.1 * lengths_s[0], 0.9 * lengths_s[1]], abs=1)


def test_a_button_goes_to_the_start_of_the_match_and_arrow_keys_along_it(page, explanation):
    path = path_s(explanation)
    page.click("#start")
    assert times_s(page) == pytest.approx(path[0].tolist(), abs=0.01)
    page.evaluate(f"document.querySelector('{MATRIX}').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    expected = path[0, 0] + 10
    assert times_s(page) == pytest.approx([expected, np.interp(expected, path[:, 0], path[:, 1])], abs=0.01)
    assert page.evaluate(f"document.querySelector('{MATRIX}').ariaValueText").endswith("in the track")
    page.press("End")
    assert times_s(page) == pytest.approx(path[-1].tolist(), abs=0.01)


def test_together_they_play_in_step_at_the_tempo_of_the_query(page, explanation):
    path = path_s(explanation)
    page.click("#start")
    page.click("#together")
    page.wait(f"query.currentTime > {path[0, 0] + 1} && !query.paused && !track.paused")
    assert page.text("#together") == "Pause"
    page.wait(  # the track is at the tempo ratio for the whole of the match
        f"Math.abs((track.currentTime - {path[0, 1]}) - (query.currentTime - {path[0, 0]}) / 1.25) < 1.5"
        " && track.playbackRate < 1"
    )
    page.click("#together")
    assert page.evaluate("query.paused && track.paused && track.playbackRate === 1")
    assert page.text("#together") == "Play together"


def test_in_turns_one_plays_and_then_the_other(page):
    page.click("#start")
    page.click("#turns")
    page.wait("!query.paused && track.paused")
    page.evaluate("query.playbackRate = 8")
    page.wait("query.paused && !track.paused")
    page.evaluate("track.playbackRate = 8")
    page.wait("!query.paused && track.paused")
    page.click("#turns")
    assert page.evaluate("query.paused && track.paused")
    page.evaluate("query.playbackRate = 1")


def test_each_group_of_channels_has_its_drawing(page, explanation):
    page.click("#start")
    assert page.evaluate("document.querySelectorAll('.view:not([hidden])').length") == 1
    for number, group in enumerate(GROUPS):
        page.evaluate(f"document.querySelector('[name=group][value=\"{number}\"]').click()")
        assert page.evaluate("document.querySelector('.view:not([hidden])').dataset.view") == str(number)
        assert times_s(page) == pytest.approx((points(explanation.evidence[group])[0] * FRAME_S).tolist(), abs=0.01)
    page.evaluate(f"document.querySelector('[name=group][value=\"{GROUPS.index(explanation.best)}\"]').click()")


def test_bars_beside_the_path_say_what_each_stretch_contributes(page, explanation):
    bars = page.evaluate(
        "[...document.querySelectorAll('.view:not([hidden]) .times rect')].map((bar) => ["
        " bar.classList.value, bar.y.baseVal.value, bar.height.baseVal.value, bar.width.baseVal.value,"
        " bar.textContent])"
    )
    parts = explanation.contributions.times
    assert [bar[0] for bar in bars] == ["against", "for", "for", "for"]
    for bar, part in zip(bars, parts, strict=True):
        assert bar[1:3] == pytest.approx([part.start / FRAME_S, (part.end - part.start) / FRAME_S], abs=0.01)
        assert bar[3] == pytest.approx(100 * abs(part.contribution) / 0.11, abs=0.1)
        assert bar[4] == f"{clock(part.start)} to {clock(part.end)}: {part.contribution:+.3f}"
    boxes = [
        page.evaluate(f"(({{top, height}}) => [top, height])(document.querySelector('{name}').getBoundingClientRect())")
        for name in (MATRIX, ".view:not([hidden]) .times")
    ]
    assert boxes[0] == pytest.approx(boxes[1], abs=1)  # a bar stands beside its part of the path


def test_the_octaves_are_listed_from_the_highest(page, explanation):
    lines = page.evaluate("[...document.querySelectorAll('.bands [role=listitem]')].map((line) => line.textContent)")
    assert lines == ["523 – 1046 Hz-0.040", "262 – 523 Hz+0.310", "131 – 262 Hz+0.010"]
    assert page.text("p.heard") == contributions_in_words(explanation.contributions)


def test_every_control_has_a_name_and_the_drawings_too(page):
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "radio", "slider", "image", "checkbox")
    controls = [node for node in nodes if node["role"]["value"] in roles and not node["ignored"]]
    assert all(node["name"]["value"] for node in controls)
    names = " ".join(node["name"]["value"] for node in controls)
    for name in ("Play together", "Play in turns", "Place in the match", "Balance", "Chromagram of the query"):
        assert name in names


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_as_wide_as_the_screen_and_keeps_to_its_colours(page, width):
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    papers = set()
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    page.send("Emulation.clearDeviceMetricsOverride")
    page.send("Emulation.setEmulatedMedia", features=[])
    assert len(papers) == 2


def test_without_sound_a_click_tells_the_times(browser, explanation, tmp_path):
    path = tmp_path / "silent.html"
    path.write_text(explain_page(explanation), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.evaluate("document.querySelector('.players').hidden")
    browser.click(MATRIX, x=0.9, y=0.1)
    lengths_s = [len(recording.chroma) * FRAME_S for recording in (explanation.query, explanation.track)]
    told = browser.text("#place")
    assert told.startswith(f"{clock(0.1 * lengths_s[0])[:3]}") and told.endswith("of the track")
    assert browser.errors == []


def test_a_page_of_two_that_share_nothing_says_so(browser, tmp_path):
    silence = Recording("silence.wav", 60.0, np.zeros((120, 36), np.uint8))
    found = explain_pair(recording("a.wav", tune(6, 60)), silence, GROUPS, FRAME_S)
    path = tmp_path / "nothing.html"
    sound = compress(played(tune(6, 10)))
    path.write_text(explain_page(found, (sound, sound)), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.text(".words").startswith("Nothing recurs")
    assert browser.evaluate("document.querySelector('.matrix') === null")
    assert browser.evaluate("document.querySelector('[aria-labelledby=heard]').hidden")  # contributions are not known
    browser.click("h1")  # browsers play nothing to who has not touched the page
    browser.evaluate("query.play()")  # each by itself
    browser.wait("query.currentTime > 0.2")
    browser.evaluate("query.pause()")
    assert browser.errors == []
