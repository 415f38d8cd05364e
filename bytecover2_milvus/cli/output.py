"""What commands share: options, the progress bar on stderr, tables on stdout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..milvus import without_password

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..manifest import Track
    from ..segments import Segments

ASK = "\0"  # what --token without a value stands for; no command line can hold it
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


class InOrder(click.Group):
    """Commands are listed in the order of use, as they are written down."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@dataclass(frozen=True)
class Place:
    """Which Milvus, as the options name it."""

    uri: str
    token: str = field(default="", repr=False)
    database: str = ""
    server_pem: Path | None = None

    def __str__(self) -> str:
        return without_password(self.uri)


def milvus_options(command: Callable[..., object]) -> Any:
    """Which Milvus: the command takes a `Place` as `milvus`."""

    @wraps(command)
    def with_place(*args: Any, uri: str, token: str, database: str, server_pem: Path | None, **kwargs: Any) -> object:
        return command(*args, milvus=Place(uri, token, database, server_pem), **kwargs)

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
    """How recordings are cut: the command takes `Segments` as `segments`, or None where the user said nothing."""

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
    from ..errors import ConfigError
    from ..segments import Segments

    if segment is None:
        if hop is not None:
            raise click.UsageError("--hop needs --segment, the seconds of a segment")
        return None
    try:
        return Segments(segment, segment / 2 if hop is None else hop)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def tracks_at(paths: Sequence[Path], manifest: Path | None = None) -> list[Track]:
    """The tracks of a manifest, then those of files and folders; that there are none is an error."""
    from ..manifest import read_manifest, tracks_in

    tracks = (read_manifest(manifest) if manifest else []) + tracks_in(paths)
    if not tracks:
        raise click.ClickException(f"{', '.join(map(str, paths))}: no audio files there")
    return tracks


def about(path: Path, error: Exception) -> str:
    """What is wrong with a file, in one line that names it: who embeds a waveform does not know of its file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


@contextmanager
def open_milvus(place: Place, *, make: bool = False) -> Iterator[MilvusClient]:
    """A connected client, closed at the end so that others may open the folder; `make` makes a missing folder."""
    from ..errors import CollectionMissing
    from ..milvus import connected, is_folder

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

    def update(self, *, advance: float | None = None, completed: float | None = None, note: str = "") -> None:
        from rich.markup import escape

        self._progress.update(self._task, advance=advance, completed=completed, note=escape(note))

    def print(self, line: str) -> None:
        """A line on stderr, above the bar; none if the bar is quiet."""
        from rich.text import Text

        if self._quiet:
            return
        self._progress.console.print(Text(line), soft_wrap=True)


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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout; numbers to the right. Text is shown as it is, never as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:.4f}" if isinstance(cell, float) else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_COLUMNS
    console.print(table)
