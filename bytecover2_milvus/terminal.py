"""Lines and a progress bar on stderr, for people.

Names of files, titles and reasons come from anywhere. `printable` is what becomes of them wherever people read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

# Control characters of ASCII and Latin-1, what turns the direction of writing, ends of lines, bytes that are no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

NO_PROGRESS = "bytecover2_milvus.no_progress"  # in the meta of Click's context: nobody wants to see a bar


def printable(text: object) -> str:
    """The text on one line, with escapes as Python writes them for whatever a terminal would obey instead of show."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def say(line: object) -> None:
    """A line on stderr, for people."""
    click.echo(printable(line), err=True)


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
    """A bar while a terminal watches; nothing where stderr is a file, after ``--no-progress``, or if `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    context = click.get_current_context(silent=True)
    unwanted = bool(context and context.meta.get(NO_PROGRESS))
    progress = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=quiet or unwanted or not Console(stderr=True).is_terminal,
    )
    with progress:
        yield Bar(progress, progress.add_task(title, total=total, note=""), quiet)
