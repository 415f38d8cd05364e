"""Files are whole or absent, and nobody decides where they are written but the caller."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bytecover2_milvus.atomic import atomic_write, check_writable
from bytecover2_milvus.errors import OutputError


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "out.txt"
    with atomic_write(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(ZeroDivisionError), atomic_write(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_half_written_files_follow_no_links_and_have_the_usual_mode(tmp_path: Path) -> None:
    path, victim = tmp_path / "out.txt", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f"out.txt.{os.getpid()}.part").symlink_to(victim)
    check_writable(path)
    names = set()
    for _ in range(2):
        with atomic_write(path) as part:
            assert part.lstat().st_size == 0 and part not in names
            names.add(part)
            part.write_text("ours")
    assert victim.read_text() == "mine"
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        for attempt in (check_writable, lambda path: atomic_write(path).__enter__()):
            with pytest.raises(OutputError, match=f"{path}: cannot be written .*; choose another place"):
                attempt(path)
    with pytest.raises(OutputError, match="Is a directory"):
        check_writable(tmp_path)
