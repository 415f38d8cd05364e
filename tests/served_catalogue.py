"""A catalogue to be served, as fixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from calibrated import VERDICT, with_calibration
from click.testing import CliRunner
from written_tune import played, tune

from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE


@pytest.fixture(scope="session", name="bundle")
def served_bundle(tiny_notes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_calibration(tiny_notes_bundle, tmp_path_factory.mktemp("bundle") / "calibrated", VERDICT.to_json())


@pytest.fixture(scope="session", name="music")
def served_music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four songs and a folder of one with an odd name, which are ingested, and recordings to ask with."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "catalogue" / "odd").mkdir(parents=True)
    for seed in range(4):
        soundfile.write(folder / "catalogue" / f"song-{seed}.wav", played(tune(seed, 40)), SAMPLE_RATE)
    soundfile.write(folder / "catalogue" / "odd" / "audio.wav", played(tune(9, 40)), SAMPLE_RATE)
    soundfile.write(folder / "inside.wav", played([*tune(20, 10), *tune(3, 40)]), SAMPLE_RATE)
    soundfile.write(folder / "again.flac", np.round(played(tune(3, 40)) * 500) / 500, SAMPLE_RATE)
    soundfile.write(folder / "stranger.ogg", played(tune(77, 40)), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="session", name="filled")
def served_milvus(music: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Milvus Lite with the catalogue; a process has it to itself, so each takes a copy."""
    folder = tmp_path_factory.mktemp("milvus") / "music.db"
    named = [music / "catalogue", music / "again.flac"]
    result = CliRunner().invoke(main, ["ingest", *map(str, named), "--uri", str(folder), "--bundle", str(bundle)])
    assert result.exit_code == 0, result.output
    return folder
