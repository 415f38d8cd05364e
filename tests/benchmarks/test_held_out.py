"""Benchmarks of held-out sets: the same options, and one line for what is not there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.held_out import HeldOut, in_processes

COMMANDS = ("calibration", "chroma", "excerpts", "group_works", "jingles", "segments", "validation")
MAINS = [*(f"benchmarks.quality.{name}" for name in COMMANDS), "benchmarks.robustness.severity"]


@pytest.mark.parametrize("module", MAINS)
def test_a_sound_font_that_is_not_there_is_one_line(module: str, tmp_path: Path) -> None:
    arguments = ["--scores", tmp_path, "--sets", "traditional", "--soundfont", tmp_path / "none.sf2"]
    done = CliRunner().invoke(import_module(module).main, list(map(str, arguments)))
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("Error: ") and "none.sf2" in done.stderr and done.stderr.count("\n") == 1
    assert not done.stdout


def test_recordings_are_the_tracks_of_each_work_and_their_work_names_its_set(tmp_path: Path) -> None:
    """The sounds lie in the cache already, so that nothing is played."""
    import soundfile

    sets = HeldOut(tmp_path, ("traditional",), tmp_path / "none.sf2", tmp_path / "audio", n_works=2, n_tracks=2)
    works = sets.works()
    for number, work in enumerate(works):
        for track in range(2):
            path = tmp_path / "audio" / "traditional" / work.work_id / f"{track}" / "whole.flac"
            path.parent.mkdir(parents=True)
            soundfile.write(path, np.full(1_000 * (number + 1), 0.25), 22_050)
    found = [recording for work in works for recording in sets.recordings(work)]
    assert [(one.track_id, one.work_id, len(one.waveform)) for one in found] == [
        (f"traditional/{work.work_id}/{track}", f"traditional/{work.work_id}", 1_000 * (number + 1))
        for number, work in enumerate(works)
        for track in range(2)
    ]


def test_results_come_in_the_order_of_the_works() -> None:
    assert list(in_processes(abs, [-3, 1, -2], workers=2)) == [3, 1, 2]
