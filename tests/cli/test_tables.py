"""Lists in every form: for a terminal of 80 columns, for a pipe, for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bytecover2_milvus.cli.output import print_json
from bytecover2_milvus.cli.tables import for_programs, listing_options, print_table

PATH = "/music/archive/1987/transfers/side a/Some Band/An Album (remastered)/03 A Song With A Long Name.flac"
RECORDS: list[dict[str, Any]] = [
    {"query": "cover.mp3", "rank": 1, "path": PATH, "title": 'A "song", twice', "score": 2.5, "warning": ""},
    {"query": "cover.mp3", "rank": 12, "path": PATH + ".copy.flac", "title": "\x1b[2J\u202e=1+1", "score": None,
     "warning": ""},
]  # fmt: skip
RECORDS[0]["tags"], RECORDS[1]["tags"] = [1], {"a": "é"}
COLUMNS = ("query", "rank", "title", "path", "score", "warning")


@click.command()
@listing_options("one object per match.")
def listing(as_json: bool) -> None:
    if as_json:
        for record in RECORDS:
            print_json(record)
    else:
        rows = [[record[column] for column in COLUMNS] for record in RECORDS]
        print_table(COLUMNS, rows, "found", RECORDS, shorten=("query", "title", "path"))
        click.echo("told", err=for_programs())


def run(*arguments: str, width: str = "80") -> Result:
    return CliRunner().invoke(listing, arguments, env={"COLUMNS": width, "TERM": "dumb"})


def test_a_row_is_one_line_of_a_terminal_with_80_columns():
    lines = run("--format", "table").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (first,) = [line for line in lines if "Long Name.flac" in line and ".copy" not in line]
    assert "/mus" in first and "…" in first and first.count("│") == 6  # no column warning, which says nothing
    assert "warning" not in "".join(lines)
    wide = run("--format", "table", width="300").stdout
    assert PATH in wide and "…" not in wide


def test_a_pipe_has_plain_columns_with_nothing_shortened():
    lines = run().stdout.splitlines()
    assert lines == run("--format", "plain").stdout.splitlines()
    assert lines[0] == "found" and lines[1].split() == list(COLUMNS)
    assert PATH in lines[2] and PATH + ".copy.flac" in lines[3]
    assert r"\x1b[2J\u202e=1+1" in lines[3]
    assert lines[2].index(PATH) == lines[3].index(PATH)  # aligned
    assert lines[2][len("cover.mp3") :].lstrip().startswith("1 ") and lines[4] == "told"


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_programs_get_all_fields_exactly(form, delimiter):
    result = run("--format", form)
    rows = list(csv.DictReader(io.StringIO(result.stdout), delimiter=delimiter))
    assert [set(row) for row in rows] == [set(RECORDS[0])] * 2
    assert [row["title"] for row in rows] == [record["title"] for record in RECORDS]
    assert [row["score"] for row in rows] == ["2.5", ""] and [json.loads(row["tags"]) for row in rows] == [
        [1],
        {"a": "é"},
    ]
    assert result.stderr == "told\n"


def test_json_is_json_by_either_name():
    lines = run("--format", "json").stdout
    assert [json.loads(line) for line in lines.splitlines()] == RECORDS
    assert run("--json").stdout == run("--json", "--format", "json").stdout == lines
    refused = run("--json", "--format", "csv")
    assert refused.exit_code == 2 and "another format than --format csv; choose one" in refused.stderr


def test_an_empty_list_has_its_header(capsys: pytest.CaptureFixture[str]):
    print_table(("one", "two"), [])
    assert capsys.readouterr().out == "one  two\n"
