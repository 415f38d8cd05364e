"""The benchmark of jingles at toy size, by an untrained bundle: what is as good as a copy is found, jingles or not."""

from __future__ import annotations

import json

import numpy as np
from calibrated import VERDICT, with_calibration
from click.testing import CliRunner
from written_tune import played, tune

from benchmarks import held_out
from benchmarks.quality import jingles


def test_excerpts_find_their_recording_and_no_jingle(monkeypatch, tiny_notes_bundle, tmp_path):
    songs = [played(tune(seed, 40)) for seed in range(3)]
    found = [jingles.Recording(f"song {i}", f"work {i}", song) for i, song in enumerate(songs)]
    found.append(jingles.Recording("jingle of 5.0 s", jingles.JINGLE, played(tune(9, 40))[: 5 * 22_050]))
    monkeypatch.setattr(jingles, "recordings", lambda *_: found)
    monkeypatch.setattr(held_out, "find_soundfont", lambda path: path)
    for name, value in (("TRACKS", 3), ("ASKING", 2), ("EXCERPTS_S", (20.0,)), ("CANDIDATES", 10)):
        monkeypatch.setattr(jingles, name, value)
    bundle = with_calibration(tiny_notes_bundle, tmp_path / "bundle", VERDICT.to_json())
    result = CliRunner().invoke(jingles.main, ["--scores", str(tmp_path), "--bundle", str(bundle)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["stored"] for line in lines} == set(jingles.CUTS)
    assert len(lines) == len(jingles.CUTS) * 2 * 2  # by candidates and stages
    for line in lines:
        assert line["queries"] == 2 and line["jingle_shown"] <= line["jingle"] <= 2 - line["right"]
        if line["stage"] == "both stages" and "recording" in line["among"]:
            assert (line["right"], line["jingle"]) == (2, 0)
        if "recording" not in line["among"]:
            assert line["right"] == 0  # no song has a cover


def test_tracks_come_first_and_jingles_are_the_beginnings_of_other_works(monkeypatch, tmp_path):
    works = [held_out.Work("traditional", str(i), tmp_path, 2) for i in range(5)]
    sound = np.concatenate([np.zeros(22_050), np.full(20 * 22_050, 0.5)]).astype(np.float32)
    monkeypatch.setattr(held_out, "works_of", lambda *_: works)
    monkeypatch.setattr(held_out, "clean_tracks", lambda work, *_: [(f"{work.work_id}/{n}", sound) for n in range(2)])
    monkeypatch.setattr(jingles, "TRACKS", 4)
    monkeypatch.setattr(jingles, "JINGLES_S", np.array([2.0, 6.0]))
    sets = held_out.HeldOut(tmp_path, ("traditional",), tmp_path, tmp_path, n_works=0, n_tracks=3)
    found = list(jingles.recordings(sets))
    assert [one.track_id for one in found[:4]] == ["0/0", "0/1", "1/0", "1/1"]
    assert [(one.work_id, len(one.waveform) / 22_050) for one in found[4:]] == [("jingle", 2.0), ("jingle", 6.0)]
    assert all(np.all(one.waveform == 0.5) for one in found[4:])  # what is silent at the beginning is cut
