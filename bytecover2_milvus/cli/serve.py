"""``serve``: a catalogue behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..options import device_option
from .milvus_target import MilvusTarget, collection_option, milvus_options, open_milvus
from .options import bundle_option

_MIB = 2**20


@click.command()
@milvus_options
@collection_option
@bundle_option
@device_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; others need a token.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True, help="0 for any free one.")
@click.option("--without-token", is_flag=True, help="Let others in without a token, as a network keeps strangers out.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder below which requests may name files; by default they have to upload.",
)
@click.option("--allow-audio", is_flag=True, help="Give out the audio of stored tracks whose files are here.")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that judgements of people are appended to as JSON lines: same work or not.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="A web page elsewhere that may ask, e.g. https://music.example; for several, several times.",
)
@click.option(
    "--maximum-mib", type=click.IntRange(1), default=200, show_default=True, help="Size of the largest file taken."
)
@click.option(
    "--maximum-minutes",
    type=click.FloatRange(0, 180, min_open=True),
    default=15.0,
    show_default=True,
    help="Duration of the longest recording taken.",
)
@click.option(
    "--at-once", type=click.IntRange(1), help="Recordings that are worked on at a time; by default one per core."
)
@click.option(
    "--waiting",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Recordings that wait meanwhile; more are refused with status 429.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that a request may take.",
)
def serve(
    milvus: MilvusTarget,
    collection: str,
    bundle: Path | None,
    device: str,
    host: str,
    port: int,
    without_token: bool,
    folder: Path | None,
    allow_audio: bool,
    labels: Path | None,
    origins: tuple[str, ...],
    maximum_mib: int,
    maximum_minutes: float,
    at_once: int | None,
    waiting: int,
    timeout_s: float,
) -> None:
    """Answer queries over HTTP: POST a recording to /v1/query, and its covers come back as JSON.

    / is a page for people: drop or record a song, see its covers, compare them by ear and by eye.

    /openapi.json describes all of it. Whoever asks needs the token that BYTECOVER2_SERVE_TOKEN holds, if it is set; to
    listen at more than this machine it has to be. The log goes to stderr as lines of JSON. SIGTERM and Ctrl-C end the
    service when what is under way is answered.

    \b
    Example:
      bytecover2-milvus serve --uri http://localhost:19530 --port 8765
    """
    from ..audio.limits import Limits
    from ..cpu import usable_cores
    from ..embedding.embedder import Embedder
    from ..errors import ConfigError
    from ..serve.server import run
    from ..serve.settings import TOKEN, Settings

    try:
        settings = Settings(
            host=host,
            port=port,
            token=os.environ.get(TOKEN, ""),
            without_token=without_token,
            folder=folder,
            limits=Limits(maximum_s=60 * maximum_minutes, maximum_bytes=maximum_mib * _MIB),
            at_once=at_once or usable_cores(),
            waiting=waiting,
            timeout_s=timeout_s,
            allow_audio=allow_audio,
            labels=labels,
            origins=origins,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    embedder = Embedder(bundle, device)
    with open_milvus(milvus, reads=True) as client:
        run(settings, client, collection, embedder)
