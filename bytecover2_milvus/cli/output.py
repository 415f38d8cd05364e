"""Tables and JSON lines on stdout, the order of the help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..terminal import UNPRINTABLE

if TYPE_CHECKING:
    from ..milvus.search import Match

STRETCH_CELLS = ("of the query", "in the track")
VERDICT_CELLS = ("probability", *STRETCH_CELLS, "semitones", "tempo")


def print_json(record: Mapping[str, object]) -> None:
    """A line of JSON on stdout: exact, and escaped as JSON does it for whatever a terminal would obey."""
    line = json.dumps(record, ensure_ascii=False)
    click.echo(UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line))


class InOrder(click.Group):
    """Commands are listed in the order of use, as they are written down."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def about(path: Path, error: Exception) -> str:
    """One line that names a file and what is wrong with it: who embeds a waveform does not know of its file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


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
