"""The Milvus that the options of a command name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..milvus.connection import without_password

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ASK = "\0"  # the value of --token where none is given; no command line can hold it


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


@contextmanager
def open_milvus(place: MilvusTarget, *, make: bool = False, reads: bool = False) -> Iterator[MilvusClient]:
    """A connected client, closed at the end so that others may open the folder; `make` makes a missing folder.

    A folder that may not be written is refused, unless the command only `reads`: then a temporary copy is opened.
    """
    from ..errors import CollectionError, CollectionMissing
    from ..milvus.connection import connected, is_folder
    from ..milvus.read_only import is_read_only, stand_in
    from ..terminal import say

    uri = place.uri
    if not make and is_folder(uri) and not Path(uri).expanduser().exists():
        raise CollectionMissing(f"{uri}: no such folder; ingest makes it")
    with ExitStack() as stack:
        if is_folder(uri) and is_read_only(folder := Path(uri).expanduser()):
            if not reads:
                raise CollectionError(f"{uri}: read-only; copy it to where you may write, or mend its permissions")
            uri = str(stack.enter_context(stand_in(folder)))
            say(f"note: {folder} is read-only, and Milvus Lite writes wherever it opens: a temporary copy is read")
        options: dict[str, Any] = {"database": place.database, "server_pem": place.server_pem}
        yield stack.enter_context(connected(uri, place.token, **options))
