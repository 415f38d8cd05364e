"""Options that several commands have, and what they name: tracks, a Milvus, segments, limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from click.core import ParameterSource

from ..audio.limits import GIB, HOURS, Limits
from ..milvus.connection import without_password

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..audio.segments import Segments
    from ..manifest import Track

STANDARD_INPUT = Path("-")
ASK = "\0"  # what --token without a value stands for; no command line can hold it

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="BYTECOVER2_BUNDLE",
    show_envvar=True,
    help="Exported model; the default is the one that comes with the package.",
)


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
    """Options for the length, size and rates of audio files; the command takes `Limits` as `limits`."""
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
        help="CSV or JSON lines with path and work_id, - for standard input; FILE@SPLIT takes one split of it.",
    )
    return manifest(types(command))


def tracks_at(
    paths: Sequence[Path], manifest: Path | None = None, types: Mapping[str, str] | None = None
) -> list[Track]:
    """The tracks of a manifest, then those of files and folders; that there are none is an error."""
    from ..manifest import read_manifest, tracks_in

    from_input = manifest is not None and manifest.name.partition("@")[0] == str(STANDARD_INPUT)
    if from_input and STANDARD_INPUT in paths:
        raise click.UsageError("- and --manifest -: standard input is one of the two")
    tracks = read_manifest(manifest, types, _read_input() if from_input else None) if manifest else []
    tracks += tracks_in(found for path in paths for found in (_read_list() if path == STANDARD_INPUT else [path]))
    if not tracks:
        raise click.ClickException(f"{', '.join(map(str, paths))}: no audio files there")
    return tracks


@contextmanager
def audio_at(paths: Sequence[Path], limits: Limits) -> Iterator[list[tuple[Path, Path]]]:
    """The files of recordings with the names to show for them: those at `paths`, and standard input for ``-``.

    What comes from there is in a temporary file, which goes at the end.

    Raises
    ------
    AudioBeyondLimits
        If it is larger than the limit.
    """
    from ..errors import AudioBeyondLimits

    if STANDARD_INPUT not in paths:
        yield [(track.path, track.path) for track in tracks_at(paths)]
        return
    others = [path for path in paths if path != STANDARD_INPUT]
    with TemporaryDirectory(prefix="bytecover2-") as folder:
        copy = Path(folder) / "audio"  # libsndfile seeks, and the decoder of MP4 has to
        source = _standard_input()
        with copy.open("wb") as file:
            while block := source.read(1 << 20):
                if file.tell() + len(block) > limits.maximum_bytes:
                    raise AudioBeyondLimits(
                        f"standard input: more than {limits.maximum_bytes / 2**30:.3g} GiB; raise --maximum-gib"
                    )
                file.write(block)
        files = [track.path for track in tracks_at(others)] if others else []
        yield [(copy, STANDARD_INPUT), *((path, path) for path in files)]


def _read_input() -> bytes:
    """The manifest or list on standard input."""
    from ..manifest import MAX_BYTES

    content = _standard_input().read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise click.ClickException(f"standard input: more than {MAX_BYTES:,} bytes; split it")
    return content


def _read_list() -> list[Path]:
    """The paths on standard input, one in a line, relative to where the command runs; or those of a playlist."""
    content = _read_input()
    if b"\0" in content:
        raise click.ClickException("standard input: it holds zeros; give a list of paths, one in a line")
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    is_playlist = bool(lines) and lines[0].startswith(b"#EXTM3U")
    found = [Path(os.fsdecode(line)) for line in lines if line.strip() and not (is_playlist and line.startswith(b"#"))]
    if not found:
        raise click.ClickException("standard input: no paths; give one in a line")
    return found


def _standard_input() -> BinaryIO:
    """Standard input as bytes; nobody is to type them."""
    if sys.stdin.isatty():
        raise click.UsageError("- stands for standard input, which is a terminal; pipe something into it")
    return sys.stdin.buffer


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
