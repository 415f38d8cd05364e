"""Options of several commands, the progress bar on stderr, tables and JSON lines on stdout.

Names of files, titles and reasons come from anywhere. `printable` is what becomes of them wherever people read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..audio.limits import GIB, HOURS, Limits
from ..milvus.connection import without_password

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..audio.segments import Segments
    from ..manifest import Track
    from ..milvus.search import Match

ASK = "\0"  # what --token without a value stands for; no command line can hold it
# Control characters of ASCII and Latin-1, what turns the direction of writing, ends of lines, bytes that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
STRETCH_CELLS = ("of the query", "in the track")
VERDICT_CELLS = ("probability", *STRETCH_CELLS, "semitones", "tempo")
FILE_COLUMNS = 200  # of a table that goes to a file or a pipe; it is only as wide as it needs to be

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network runs; asking for cuda and not getting it is an error.",
)
bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="BYTECOVER2_BUNDLE",
    show_envvar=True,
    help="Exported model; the default is the one that comes with the package.",
)


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


@dataclass(frozen=True)
class MilvusTarget:
    """The Milvus that the options name."""

    uri: str
    token: str = field(default="", repr=False)
    database: str = ""
    server_pem: Path | None = None

    def __str__(self) -> str:
        return without_password(self.uri)


def milvus_options(command: Callable[..., object]) -> Any:
    """Options that name a Milvus: the command takes a `MilvusTarget` as `milvus`."""

    @wraps(command)
    def with_place(*args: Any, uri: str, token: str, database: str, server_pem: Path | None, **kwargs: Any) -> object:
        return command(*args, milvus=MilvusTarget(uri, token, database, server_pem), **kwargs)

    for option in (
        click.option(
            "--server-pem",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="BYTECOVER2_SERVER_PEM",
            show_envvar=True,
            help="Certificate that the server at https:// must show, or its authority's.",
        ),
        click.option(
            "--database", envvar="BYTECOVER2_DATABASE", show_envvar=True, default="", help="Database in that Milvus."
        ),
        click.option(
            "--token",
            envvar="BYTECOVER2_TOKEN",
            show_envvar=True,
            is_flag=False,
            flag_value=ASK,
            default="",
            metavar="",
            callback=_hidden_token,
            help="Ask for user:password or an API key, unseen; scripts set the variable.",
        ),
        click.option(
            "--uri",
            envvar="BYTECOVER2_URI",
            show_envvar=True,
            default="bytecover2.db",
            show_default=True,
            callback=_public_uri,
            help="Milvus server (http://host:19530), or a folder *.db for the embedded Milvus Lite.",
        ),
    ):
        with_place = option(with_place)
    return with_place


def _hidden_token(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The token of the environment, or typed; never of the command line, which every user of the machine can read."""
    if context.get_parameter_source(str(parameter.name)) is not ParameterSource.COMMANDLINE:
        return value
    if value != ASK:
        raise click.UsageError(
            "--token takes no value, which others could see in the list of processes: set BYTECOVER2_TOKEN, or let"
            " --token ask, as the last option"
        )
    return click.prompt("Token", hide_input=True, err=True)


def _public_uri(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The address, refused if the command line shows a password in it."""
    shown = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    if shown and value != without_password(value):
        raise click.UsageError(
            "--uri holds a password, which others could see in the list of processes: set BYTECOVER2_TOKEN to"
            " user:password, or BYTECOVER2_URI"
        )
    return value


collection_option = click.option(
    "--collection", default="tracks", show_default=True, help="Collection of embeddings in that Milvus."
)


def segment_options(told: str) -> Callable[[Callable[..., object]], Any]:
    """Options of segments: the command takes `Segments` as `segments`, or None where the user said nothing."""

    def decorate(command: Callable[..., object]) -> Any:
        @wraps(command)
        def with_segments(*args: Any, segment: float | None, hop: float | None, **kwargs: Any) -> object:
            return command(*args, segments=_segments(segment, hop), **kwargs)

        hop_help = "Seconds from one segment to the next; the default is half a segment."
        return click.option("--segment", type=float, help=told)(
            click.option("--hop", type=float, help=hop_help)(with_segments)
        )

    return decorate


def _segments(segment: float | None, hop: float | None) -> Segments | None:
    from ..audio.segments import Segments
    from ..errors import ConfigError

    if segment is None:
        if hop is not None:
            raise click.UsageError("--hop needs --segment, the seconds of a segment")
        return None
    try:
        return Segments(segment, segment / 2 if hop is None else hop)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def limits_options(command: Callable[..., object]) -> Any:
    """What a file of audio may ask of this machine: the command takes `Limits` as `limits`."""
    defaults = Limits()

    @wraps(command)
    def with_limits(
        *args: Any, maximum_hours: float, maximum_gib: float, rates: tuple[int, int], **kwargs: Any
    ) -> object:
        if rates[0] > rates[1]:
            raise click.UsageError(f"--rates {rates[0]} {rates[1]}: the lowest comes first")
        limits = Limits(maximum_hours * 3600, round(maximum_gib * 2**30), *rates)
        return command(*args, limits=limits, **kwargs)

    for option in (
        click.option(
            "--rates",
            nargs=2,
            type=click.IntRange(1, 2**31 - 1),
            default=(defaults.minimum_rate, defaults.maximum_rate),
            show_default=True,
            metavar="LOWEST HIGHEST",
            help="Sample rates in Hz that are read.",
        ),
        click.option(
            "--maximum-gib",
            type=float,
            callback=_positive,
            envvar=GIB,
            show_envvar=True,
            default=defaults.maximum_bytes / 2**30,
            show_default=True,
            help="Size of the largest file of audio that is read.",
        ),
        click.option(
            "--maximum-hours",
            type=float,
            callback=_positive,
            envvar=HOURS,
            show_envvar=True,
            default=defaults.maximum_s / 3600,
            show_default=True,
            help="Duration of the longest recording that is read.",
        ),
    ):
        with_limits = option(with_limits)
    return with_limits


def _positive(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 < value < 1e9:  # click's own ranges hold NaN
        raise click.BadParameter(f"{value:g} is not a positive number.")
    return value


def manifest_options(command: Callable[..., object]) -> Callable[..., object]:
    """Options of a manifest: the command takes its path as `manifest`, and types by names of its columns as `types`."""

    def parse(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
        from ..manifest import TYPES

        pairs = [value.rpartition("=") for value in values]
        for name, _, kind in pairs:
            if not name or kind not in TYPES:
                raise click.BadParameter(f"{name or kind!r}: write COLUMN=text or COLUMN=number.")
        return {name: kind for name, _, kind in pairs}

    types = click.option(
        "--types",
        metavar="COLUMN=TYPE",
        multiple=True,
        callback=parse,
        help="Type of a column of the CSV manifest, text or number; by default, one of nothing but numbers is numbers.",
    )
    manifest = click.option(
        "--manifest",
        type=click.Path(path_type=Path),
        help="CSV or JSON lines with path and work_id; FILE@SPLIT takes one split of it.",
    )
    return manifest(types(command))


def tracks_at(
    paths: Sequence[Path], manifest: Path | None = None, types: Mapping[str, str] | None = None
) -> list[Track]:
    """The tracks of a manifest, then those of files and folders; that there are none is an error."""
    from ..manifest import read_manifest, tracks_in

    tracks = (read_manifest(manifest, types) if manifest else []) + tracks_in(paths)
    if not tracks:
        raise click.ClickException(f"{', '.join(map(str, paths))}: no audio files there")
    return tracks


def about(path: Path, error: Exception) -> str:
    """One line that names a file and what is wrong with it: who embeds a waveform does not know of its file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


@contextmanager
def open_milvus(place: MilvusTarget, *, make: bool = False) -> Iterator[MilvusClient]:
    """A connected client, closed at the end so that others may open the folder; `make` makes a missing folder."""
    from ..errors import CollectionMissing
    from ..milvus.connection import connected, is_folder

    uri = place.uri
    if not make and is_folder(uri) and not Path(uri).expanduser().exists():
        raise CollectionMissing(f"{uri}: no such folder; ingest makes it")
    with connected(uri, place.token, database=place.database, server_pem=place.server_pem) as client:
        yield client


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
