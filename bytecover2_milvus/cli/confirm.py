"""Confirmation by the user before rows or collections are changed for good."""

from __future__ import annotations

import sys

import click

from ..terminal import printable

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(question: str) -> None:
    """Ask on stderr, and end the command if the answer is no.

    Raises
    ------
    click.Abort
        If the answer is no, or Ctrl-C.
    click.UsageError
        If standard input is no terminal and holds no answer.
    """
    try:
        confirmed = click.confirm(printable(question), err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("nobody there to ask; --yes does without") from None
    if not confirmed:
        raise click.Abort
