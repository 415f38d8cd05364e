"""Lists on stdout in the form that is asked for: a table for a terminal, columns for a pipe, CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import click

from ..terminal import printable

FORMATS = ("table", "plain", "csv", "tsv", "json")
FILE_COLUMNS = 200  # of a table that goes to a file or a pipe; it is only as wide as it needs to be
NARROWEST = 8  # characters that a cell is shortened to
ELLIPSIS = "…"
_CHOSEN = "bytecover2_milvus.format"


def listing_options(json_help: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The options ``--format`` and ``--json``: the command takes `as_json`, `print_table` knows the other formats."""

    def choose(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value:
            context.meta[_CHOSEN] = value

    def as_json(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        chosen = context.meta.setdefault(_CHOSEN, "json" if value else None)
        if value and chosen != "json":
            raise click.BadParameter(f"another format than --format {chosen}; choose one.")
        return bool(chosen == "json")

    def options(command: Callable[..., object]) -> Callable[..., object]:
        named = click.option(
            "--format",
            type=click.Choice(FORMATS),
            callback=choose,
            expose_value=False,
            is_eager=True,  # before --json
            help="Form of what is listed: by default a table in a terminal, and plain columns elsewhere.",
        )
        short = click.option("--json", "as_json", is_flag=True, callback=as_json, help=f"As --format json: {json_help}")
        return named(short(command))

    return options


def for_programs() -> bool:
    """True if CSV or TSV is asked for: what people are told goes to stderr then."""
    return _chosen() in ("csv", "tsv")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str | None = None,
    records: Sequence[Mapping[str, object]] | None = None,
    shorten: Sequence[str] = (),
) -> None:
    """A list on stdout.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequences
        Of a value for each column, for people: text is shown, never obeyed as markup or by the terminal.
    title : str, optional
    records : sequence of mappings, optional
        The fields of each row for programs, in CSV and TSV: those of the JSON lines. By default `columns` and `rows`.
    shorten : sequence of str
        Columns that lose the middle of their texts where a terminal is too narrow for a row on one line; text of others
        goes on in the next line.
    """
    form = _chosen() or ("table" if sys.stdout.isatty() else "plain")
    if form == "table":
        _print_drawn(columns, rows, title, shorten)
    elif form == "plain":
        _print_plain(columns, rows, title)
    else:
        known = [dict(zip(columns, row, strict=True)) for row in rows] if records is None else records
        _print_separated(known, columns, "," if form == "csv" else "\t")


def _chosen() -> str | None:
    context = click.get_current_context(silent=True)
    return context.meta.get(_CHOSEN) if context else None


def _print_drawn(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None, shorten: Sequence[str]
) -> None:
    """With lines, and without columns that have nothing to say, where there are any rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_COLUMNS
    kept = [i for i in range(len(columns)) if not rows or any(row[i] not in ("", None) for row in rows)]
    cells = [[_text(row[i]) for i in kept] for row in rows]
    widths = [max([len(columns[i]), *(len(line[k]) for line in cells)]) for k, i in enumerate(kept)]
    least = [
        max(NARROWEST, len(columns[i])) if columns[i] in shorten else width
        for i, width in zip(kept, widths, strict=True)
    ]
    narrow = _fitted(widths, least, console.width - 3 * len(kept) - 1)
    table = Table(title=Text(printable(title)) if title else None, title_justify="left")
    for i in kept:
        table.add_column(columns[i], justify="right" if _are_numbers(rows, i) else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(_shortened(cell, width)) for cell, width in zip(line, narrow, strict=True)))
    console.print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    """Columns with two blanks between, nothing shortened: for a pipe, or a file."""
    lines = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [_are_numbers(rows, i) for i in range(len(columns))]
    if title:
        click.echo(printable(title))
    for line in lines:
        parts = zip(line, widths, right, strict=True)
        click.echo(
            "  ".join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in parts).rstrip()
        )


def _print_separated(records: Sequence[Mapping[str, object]], columns: Sequence[str], delimiter: str) -> None:
    """CSV or TSV with a header: exact in a file, and fit for a terminal in one."""
    names = list(dict.fromkeys(name for record in records for name in record)) or list(columns)
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    show = printable if sys.stdout.isatty() else str
    table.writerow(names)
    for record in records:
        values = (record.get(name) for name in names)
        table.writerow(
            "" if value is None else show(json.dumps(value) if isinstance(value, (dict, list, bool)) else value)
            for value in values
        )
    click.echo(text.getvalue(), nl=False, color=True)  # it would strip what looks like colours


def _text(cell: object) -> str:
    return "" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else printable(cell)


def _are_numbers(rows: Sequence[Sequence[object]], i: int) -> bool:
    return all(isinstance(row[i], (int, float)) for row in rows)


def _fitted(widths: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Widths with the sum `width` where that is possible: of those above their `least`, the widest gives way."""
    fitted = list(widths)
    while sum(fitted) > width and (wide := [k for k, own in enumerate(fitted) if own > least[k]]):
        fitted[max(wide, key=lambda k: fitted[k])] -= 1
    return fitted


def _shortened(text: str, width: int) -> str:
    """The text without its middle, where it is too long: what tells two paths apart is at their ends."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3
    return text[: width - 1 - end] + ELLIPSIS + text[len(text) - end :]
