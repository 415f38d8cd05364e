"""The comparison of systems, at a size that takes seconds: trained, ranked, written, and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from benchmarks.quality.table1 import HeardTrack, main, ranked
from benchmarks.systems.trained import NAMES, Budget
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render

LEARN = ("--songs", "composed@0-4", "--arrangements", "2", "--samples", "1", "--share", "0.0625", "--device", "cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Two arrangements of two songs and a stranger, ten seconds of each; one track asks, one is missing."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = ["path,work_id,role", "gone.flac,w9,"]
    for work, version, role in ((0, 0, "query"), (0, 1, ""), (1, 0, ""), (1, 1, ""), (2, 0, "gallery")):
        name = f"{work}-{version}.flac"
        soundfile.write(folder / name, render(arrange(compose(100 + work), version), 10.0), SAMPLE_RATE)
        rows.append(f"{name},w{work},{role}")
    path = folder / "covers.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(out: Path, manifest: Path, *options: str) -> Result:
    sets = ["--sets", "traditional", "--works", "2", "--tracks", "2", "--cache", str(manifest.parent / "cache")]
    return CliRunner().invoke(main, [*LEARN, *sets, "--workers", "1", "--out", str(out), *options])


def _not_banks(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("tones-")]


@pytest.fixture(scope="module")
def table(manifest, tone_folder, tmp_path_factory) -> tuple[Path, Result]:
    shutil.copytree(tone_folder, manifest.parent / "cache" / "cqt", ignore=lambda _, names: _not_banks(names))
    out = tmp_path_factory.mktemp("table1")
    return out, run(out, manifest, "--manifest", str(manifest))


@pytest.mark.skipif(not Path("/usr/share/sounds/sf2/TimGM6mb.sf2").exists(), reason="needs timgm6mb-soundfont")
class TestTable:
    def test_every_system_stands_in_it_with_its_cost(self, table, manifest):
        out, done = table
        assert done.exit_code == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["system"] for row in rows] == [*NAMES, *NAMES]
        assert json.loads((out / "table1.json").read_text()) == rows
        by_name = {row["system"]: row for row in rows if row["set"] == str(manifest)}
        assert {row["queries"] for row in by_name.values()} == {3} and by_name["Qmax"]["tracks"] == 5
        dimensions = {name: row["dimensions"] for name, row in by_name.items()}
        assert dimensions["Qmax"] is None and dimensions["MOVE"] == 1000 and dimensions["Re-MOVE"] == 16
        assert dimensions["ByteCover"] == dimensions["ByteCover2-128"] == 128 and dimensions["ByteCover2-1536"] == 96
        assert by_name["MOVE"]["bytes_per_track"] == 4 * 1000
        assert all(0 < row["map_low"] <= row["map"] <= row["map_high"] <= 1 for row in rows)
        text = (out / "table1.md").read_text()
        assert all(f"| {name} |" in text for name in NAMES)
        assert (out / "table1.png").read_bytes().startswith(b"\x89PNG")
        assert "left out" in done.stderr and "gone.flac" in done.stderr

    def test_what_is_trained_is_not_trained_again(self, table, manifest):
        out, _ = table
        (out / "before.json").write_bytes((out / "table1.json").read_bytes())
        before = {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()}
        again = run(out, manifest, "--system", "Re-MOVE", "--system", "ByteCover2-1536")
        assert again.exit_code == 0, again.stderr
        assert {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()} == before
        known = {(row["system"], row["set"]): row["map"] for row in json.loads((out / "before.json").read_text())}
        rows = [json.loads(line) for line in again.stdout.splitlines()]
        assert [(row["system"], row["map"]) for row in rows] == [
            (name, known[name, "traditional"]) for name in ("Re-MOVE", "ByteCover2-1536")
        ]

    def test_a_folder_of_another_run_is_refused(self, table, manifest):
        out, _ = table
        other = run(out, manifest, "--samples", "500")
        assert other.exit_code == 1 and "run.json" in other.stderr and len(other.stderr.splitlines()) == 1


def test_scores_of_any_kind_are_ranked_as_cosines_are():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    works, ids = [f"w{i % 4}" for i in range(12)], [f"t{(7 * i) % 12:02}" for i in range(12)]
    roles = ["query", *[""] * 9, "gallery", "gallery"]
    tracks = [HeardTrack(*names, np.zeros((84, 1), np.float16)) for names in zip(ids, works, roles, strict=True)]
    expected = evaluate(rows, works, ids, roles=roles)
    found = ranked((rows @ rows.T).astype(np.float32), tracks)
    assert found == expected and found.average_precisions.tolist() == expected.average_precisions.tolist()


def test_three_quarters_of_the_channels_stay_three_quarters():
    assert Budget(1.0, 1).dim("ByteCover2-1536") == 1536
    assert Budget(0.25, 1).dim("ByteCover2-1536") == 384
    assert Budget(0.25, 1).dim("ByteCover2-128") == 128
    assert Budget(0.25, 12_800, works_per_batch=8).steps == 400
