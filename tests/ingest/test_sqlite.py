"""A staging file that is not as we wrote it is refused in one line, whatever was done to it."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from band_embedder import BandEmbedder

from bytecover2_milvus.errors import BytecoverError, OutputError
from bytecover2_milvus.ingest.sqlite import Staging
from bytecover2_milvus.milvus.schema import Row

EMBEDDING = np.eye(1, 128, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "embedded.sqlite"
    with Staging(path, BandEmbedder()) as staging:
        staging.upsert([Row("a", "0" * 64, 2.0, 0.0, 2.0, warning="cut off")], EMBEDDING)
    return path


def read_all(path: Path) -> None:
    with Staging(path, BandEmbedder()) as staging:
        assert staging.rows_of(["a"]) or list(staging.pages(["id"])) is not None
        staging.features_of(["0" * 64])
        list(staging.pages(["id", "metadata", "embedding"]))


def test_what_was_written_is_read(path: Path) -> None:
    with Staging(path, BandEmbedder()) as staging:
        assert staging.rows_with(["0" * 64]) == [Row("a", "0" * 64, 2.0, 0.0, 2.0, warning="cut off")]
        [[entity]] = staging.pages(["id", "metadata", "embedding"])
    assert entity == {"id": "0" * 64, "metadata": {"bytecover2.warning": "cut off"}, "embedding": EMBEDDING[0].tolist()}


def damaged_rows() -> list[object]:
    row = {"track_id": "a", "content_hash": "0" * 64, "duration_s": 2.0, "start_s": 0.0, "end_s": 2.0, "work_id": ""}
    row |= {"title": "", "artist": "", "path": "", "size": 0, "mtime_ns": 0, "metadata": {}}
    odd = {"track_id": 5, "duration_s": float("nan"), "start_s": -1.0, "end_s": "2", "size": 2**70, "mtime_ns": True}
    odd |= {"metadata": [1], "title": None, "content_hash": "x", "path": "\ud800"}
    rows: list[object] = [json.dumps(row | {name: value}) for name, value in odd.items()]
    del row["artist"]
    return [*rows, json.dumps(row), "", "{", "[]", "null", "9" * 5000, "[" * 100_000, b"\xff\xfe", 7]


@pytest.mark.parametrize("row", damaged_rows(), ids=lambda row: str(row)[:20])
def test_a_row_that_is_none(path: Path, row: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rows SET row = ?", [row])
    db.close()
    with pytest.raises(OutputError, match=f"{path}: damaged .*; delete it, and run again from the start") as told:
        read_all(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(512), b"\xff" * 512, EMBEDDING[0, :64].tobytes(), "text", 3])
def test_an_embedding_that_is_none(path: Path, data: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rows SET embedding = ?", [data])
    db.close()
    with pytest.raises(OutputError, match=f"{path}: damaged "):
        read_all(path)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT OR REPLACE INTO facts VALUES ('bytecover2.segment_s', 'nan')",
        "INSERT OR REPLACE INTO facts VALUES ('bytecover2.segment_s', 'x')",
        "INSERT OR REPLACE INTO facts VALUES ('bytecover2.segment_s', '0.001')",
        "UPDATE facts SET value = x'00ff'",
        "DROP TABLE facts; CREATE TABLE facts (name)",
        "DROP TABLE rows; CREATE TABLE rows (id)",
        "DROP TABLE rows; CREATE VIEW rows AS WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT * FROM n) SELECT * FROM n",
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
    ],
)
def test_facts_and_tables_that_are_others(path: Path, change: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(change)
    db.close()
    with pytest.raises(BytecoverError, match=str(path)) as told:
        read_all(path)
    assert "\n" not in str(told.value)


def test_files_that_are_none_of_ours(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    (tmp_path / "cut").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "cut", "link", "folder", "pipe"):
        with pytest.raises(OutputError, match=str(tmp_path / name)):
            read_all(tmp_path / name)
    assert (tmp_path / "text").read_text() == "no database" * 100
