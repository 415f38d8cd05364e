"""Names and titles come from anywhere: people see them escaped, programs get them exactly."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest
from audio_files import write_tone
from click.testing import CliRunner

from bytecover2_milvus.cli import main
from bytecover2_milvus.cli.output import print_json
from bytecover2_milvus.terminal import printable

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x1b\\"  # OSC 52 writes into the clipboard
CLEAR, C1_CLEAR = "\x1b[2J", "\x9b2J"
BACKWARDS = "\u202egpj.3pm\u202c"
FORGED = "x\n9999 added; 9999 rows in tracks at prod"
HOSTILE = CLIPBOARD + CLEAR + C1_CLEAR + BACKWARDS + "\u2028\x7f"
RAW = ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\u2028", "\x7f")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bytecover2_milvus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "500"}, check=False)


def fit_for_a_terminal(*texts: str) -> bool:
    return not any(raw in text or line.startswith("9999") for text in texts for raw in RAW for line in text.split("\n"))


def test_what_a_terminal_obeys_is_escaped_and_nothing_else() -> None:
    obeyed = {"Cc", "Cs", "Zl", "Zp"}
    for code in range(0x110000):
        character = chr(code)
        turns = unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        marks = character in "\u061c\u200e\u200f\ufeff"
        escaped = unicodedata.category(character) in obeyed or turns or marks
        assert (printable(character) != character) == escaped, hex(code)
    assert printable(HOSTILE).isprintable() and printable(FORGED) == r"x\n9999 added; 9999 rows in tracks at prod"
    for name in ("Dvořák: Má vlast", "יְרוּשָׁלַיִם", "می‌خواهم", "👩‍🎤.mp3", "C:\\music\\a.wav", "[bold]x[/bold]"):
        assert printable(name) == name


@pytest.mark.parametrize("text", [HOSTILE, FORGED, "Má vlast", "\udcff", "tab\tand \\u0041", '"'])
def test_json_is_exact_and_fit_for_a_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"title": text})
    line = capsys.readouterr().out
    assert json.loads(line) == {"title": text} and line.rstrip("\n").isprintable()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of one good track with a hostile title, in a folder with two broken files of hostile names."""
    place = tmp_path_factory.mktemp("hostile")
    write_tone(place / "good.wav", 1)
    for name in (FORGED, HOSTILE.replace("/", "")):
        (place / f"{name}.wav").write_bytes(b"junk")
    with (place / "m.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "work_id", "title"), ("good.wav", "w", "Title " + BACKWARDS + CLIPBOARD)])
    done = run("ingest", "--manifest", place / "m.csv", "--uri", place / "x.db")
    assert done.returncode == 0, done.stderr
    return place


def test_tables_escape_and_json_does_not_change_a_title(hostile: Path) -> None:
    table = run("query", hostile / "good.wav", "--uri", hostile / "x.db")
    assert table.returncode == 0 and fit_for_a_terminal(table.stdout, table.stderr)
    assert r"Title \u202egpj.3pm\u202c\x1b]52" in table.stdout
    exact = run("query", hostile / "good.wav", "--uri", hostile / "x.db", "--json")
    assert json.loads(exact.stdout)["title"] == "Title " + BACKWARDS + CLIPBOARD
    assert fit_for_a_terminal(exact.stdout)


@pytest.mark.parametrize("command", ["ingest", "query", "embed"])
def test_reports_of_files_are_one_line_each(command: str, hostile: Path, tmp_path: Path) -> None:
    into = ["--out", tmp_path / "x.npz"] if command == "embed" else ["--uri", hostile / "x.db"]
    done = run(command, *sorted(hostile.glob("*.wav")), *into)
    assert done.returncode == 1 and fit_for_a_terminal(done.stdout, done.stderr)
    assert sum(r"x\n9999 added; 9999 rows" in line for line in done.stderr.splitlines()) == 1
    assert sum(r"\x1b[2J" in line for line in done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", HOSTILE + ".wav", "--out", "x.npz"),
        ("embed", "a.wav", "--out", HOSTILE + ".csv"),
        ("embed", "a.wav", f"--{HOSTILE}"),
        (HOSTILE,),
        ("query", FORGED, "--uri", f"{HOSTILE}.db"),
        ("query", "a.wav", "--device", HOSTILE),
        ("query", "a.wav", "--uri", f"http://{HOSTILE}"),
        ("verify", HOSTILE),
        ("collections", "drop", FORGED + HOSTILE, "--yes"),
        ("evaluate", "--collection", FORGED + HOSTILE),
        ("ingest", "--manifest", HOSTILE),
    ],
    ids=" ".join,
)
def test_errors_quote_the_command_line_escaped(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, arguments, env={"BYTECOVER2_URI": str(tmp_path / "x.db")})
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit)
    assert fit_for_a_terminal(done.output), done.output
    assert all(line.isprintable() for line in done.output.split("\n"))


def test_the_progress_bar_shows_no_name_raw(hostile: Path, tmp_path: Path) -> None:
    """On a terminal, where the bar itself is drawn by escape sequences."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "bytecover2_milvus", "ingest", *map(str, hostile.glob("*.wav"))]
    subprocess.run([*command, "--uri", str(tmp_path / "x.db")], stderr=theirs, stdout=subprocess.DEVNULL, check=False)
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = shown.decode()
    assert "1 added" in text and fit_for_a_terminal(text.replace("\r\n", "\n"))
