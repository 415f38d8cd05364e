"""Tables and JSON lines on stdout, lines and the progress bar on stderr, the order of the help.

Names of files, titles and reasons come from anywhere. `printable` is what becomes of them wherever people read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..milvus.search import Match

# Control characters of ASCII and Latin-1, what turns the direction of writing, ends of lines, bytes that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
STRETCH_CELLS = ("of the query", "in the track")
VERDICT_CELLS = ("probability", *STRETCH_CELLS, "semitones", "tempo")
FILE_COLUMNS = 200  # of a table that goes to a file or a pipe; it is only as wide as it needs to be


def printable(text: object) -> str:
    """The text on one line, with escapes as Python writes them for whatever a terminal would obey instead of show."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def say(line: object) -> None:
    """A line on stderr, for people."""
    click.echo(printable(line), err=True)


def print_json(record: Mapping[str, object]) -> None:
    """A line of JSON on stdout: exact, and escaped as JSON does it for whatever a terminal would obey."""
    line = json.dumps(record, ensure_ascii=False)
    click.echo(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line))


class InOrder(click.Group):
    """Commands are listed in the order of use, as they are written down."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def about(path: Path, error: Exception) -> str:
    """One line that names a file and what is wrong with it: who embeds a waveform does not know of its file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


class Bar:
    """A progress bar on stderr with rate and time left."""

    def __init__(self, progress: Any, task: Any, quiet: bool) -> None:
        self._progress = progress
        self._task = task
        self._quiet = quiet

    def update(
        self,
        *,
        advance: float | None = None,
        completed: float | None = None,
        total: float | None = None,
        note: str = "",
    ) -> None:
        from rich.markup import escape

        done = {"advance": advance, "completed": completed, "total": total}
        self._progress.update(self._task, **done, note=escape(printable(note)))

    def print(self, line: str) -> None:
        """A line on stderr, above the bar; none if the bar is quiet."""
        from rich.text import Text

        if self._quiet:
            return
        self._progress.console.print(Text(printable(line)), soft_wrap=True)


@contextmanager
def progress_bar(title: str, total: int | None, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar while a terminal watches; nothing where stderr is a file, or if `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    progress = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=quiet or not Console(stderr=True).is_terminal,
    )
    with progress:
        yield Bar(progress, progress.add_task(title, total=total, note=""), quiet)


def verdict_cells(match: Match) -> dict[str, str]:
    """Cells of a table with the verdict on a match, as `VERDICT_CELLS`; empty where there is none."""
    from ..second_stage.explain import clock, share_in_words

    def stretch(start_s: float | None, end_s: float | None) -> str:
        return "" if start_s is None or end_s is None else f"{clock(start_s)}-{clock(end_s)}"

    values = (
        "" if match.probability is None else share_in_words(match.probability),
        stretch(match.query_start_s, match.query_end_s),
        stretch(match.start_s, match.end_s),
        "" if match.transposition is None else f"{match.transposition:+d}",
        "" if match.tempo_ratio is None else f"{match.tempo_ratio:.2f}",
    )
    return dict(zip(VERDICT_CELLS, values, strict=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout; numbers to the right. Text is shown, never obeyed as markup or by the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:.4f}" if isinstance(cell, float) else printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_COLUMNS
    console.print(table)
