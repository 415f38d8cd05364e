"""Options that several commands have: the bundle, segments, limits of audio files, manifests."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..audio.limits import GIB, HOURS, Limits

if TYPE_CHECKING:
    from ..audio.segments import Segments

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="BYTECOVER2_BUNDLE",
    show_envvar=True,
    help="Exported model; the default is the one that comes with the package.",
)


def segment_options(told: str) -> Callable[[Callable[..., object]], Any]:
    """Options of segments: the command takes `Segments` as `segments`, or None where --segment is not given."""

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
