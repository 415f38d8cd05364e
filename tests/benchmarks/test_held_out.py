"""Benchmarks of held-out sets: the same options, and one line for what is not there."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.held_out import HeldOut, clean_tracks, in_processes, works_of
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont

CAN_PLAY = shutil.which("fluidsynth") and any(SOUNDFONTS.glob("*.sf2"))
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


@pytest.mark.skipif(not CAN_PLAY, reason="needs apt-get install fluidsynth timgm6mb-soundfont")
def test_a_performance_that_starts_late_is_heard_from_its_first_note(tmp_path: Path) -> None:
    """One of the pianists begins to play four minutes into the file."""
    import mido

    (tmp_path / "asap").mkdir()
    for name, lead in (("at once", 0), ("late", 480_000)):  # 480 ticks to a beat of half a second
        midi = mido.MidiFile(ticks_per_beat=480)
        midi.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)]))
        notes = [mido.Message("program_change", program=0), mido.Message("note_on", note=60, velocity=80, time=lead)]
        notes += [mido.Message("note_off", note=60, time=480), mido.Message("note_on", note=64, velocity=80, time=240)]
        notes += [mido.Message("note_off", note=64, time=480)]
        midi.tracks.append(mido.MidiTrack(notes))
        midi.save(tmp_path / "asap" / f"{name}.mid")
    (tmp_path / "asap" / "manifest.csv").write_text("work_id,path\nduet,at once.mid\nduet,late.mid\n")
    (work,) = works_of("asap", tmp_path, 1, 2)
    first, second = (waveform for _, waveform in clean_tracks(work, find_soundfont(), tmp_path / "audio"))
    assert np.abs(first).max() > 0.5
    np.testing.assert_array_equal(first, second)


def test_results_come_in_the_order_of_the_works() -> None:
    assert list(in_processes(abs, [-3, 1, -2], workers=2)) == [3, 1, 2]
