"""Options that commands and benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Processor for the network; cuda where it does not work is an error.",
)


cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/cqt"),
    show_default=True,
    help="Folder for the CQTs of tracks, and for the tones that songs are drawn with; may be deleted.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Processes that prepare tracks and batches.",
)
runs_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the runs."
)


def several_of(flag: str, name: str, choices: Sequence[str]) -> Callable[[Any], Any]:
    """An option that may be given several times, each time one of `choices`; by default all of them."""
    return click.option(
        flag,
        name,
        multiple=True,
        type=click.Choice(choices),
        default=choices,
        show_default=True,
        help="May be given several times.",
    )


def corpus_options(command: Callable[..., object]) -> Any:
    """Options of the training data: the command takes a `DataSources`, `cache` and `workers`."""

    @wraps(command)
    def with_sources(*args: Any, **kwargs: Any) -> object:
        if not (kwargs["songs"] or kwargs["manifest"] or kwargs["unlabelled"]):
            raise click.UsageError("nothing to learn from: give --songs, --manifest or --unlabelled")
        from .training.data.sources import DataSources

        sources = DataSources(**{field.name: kwargs.pop(field.name) for field in fields(DataSources)})
        return command(*args, sources=sources, **kwargs)

    for option in (
        workers_option,
        cache_option,
        click.option(
            "--sound-font",
            "sound_fonts",
            multiple=True,
            type=click.Path(dir_okay=False, exists=True, path_type=Path),
            help="General MIDI sound font that plays a part of the arrangements, by FluidSynth. May be given several "
            "times.",
        ),
        click.option(
            "--degraded",
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            help="Share of the played arrangements that go through what recordings do: codecs, rooms, noise.",
        ),
        click.option(
            "--spectral",
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            help="Share of the arrangements that are drawn straight to a CQT: twenty times as fast as playing them.",
        ),
        click.option(
            "--strangers",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Songs composed over the chords of each song and played by its bands, in the same batch: works of "
            "their own, which only the tune tells apart.",
        ),
        click.option(
            "--arrangements",
            type=click.IntRange(2),
            default=4,
            show_default=True,
            help="Tracks made of each song, also of those held out.",
        ),
        click.option(
            "--degradation",
            "degradations",
            multiple=True,
            metavar="KIND",
            help="A kind of degradation, such as codec or room, for degraded arrangements and copies of --unlabelled "
            "recordings; all kinds by default. May be given several times.",
        ),
        click.option(
            "--variants",
            type=click.IntRange(1),
            default=3,
            show_default=True,
            help="Degraded copies of each --unlabelled recording.",
        ),
        click.option(
            "--unlabelled",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Recordings without labels, files or folders: each is a work of its own, with degraded copies for "
            "covers. May be given several times.",
        ),
        click.option(
            "--manifest",
            type=click.Path(path_type=Path),
            help="Recordings: CSV or JSON lines with path and work_id; FILE@SPLIT takes one split of it.",
        ),
        click.option(
            "--songs",
            multiple=True,
            metavar="SONGS",
            help="Songs to arrange: composed@FROM-TO, traditional, a score or folder of scores, with or without "
            "@FROM-TO, or a manifest of scores (.csv, .jsonl), whose work_id says which are one work. May be given "
            "several times.",
        ),
    ):
        with_sources = option(with_sources)
    return with_sources
