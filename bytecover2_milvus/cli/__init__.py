"""The command line: parse, one library call, print. stdout is data, stderr is for people.

Nothing heavy is imported here or at the top of the command modules, so ``--help`` is instant.
"""

from __future__ import annotations

import errno
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from .. import __version__
from ..errors import BytecoverError
from ..extras import DISTRIBUTION, why_not_imported
from ..parallel import ended_by_signals
from ..terminal import NO_PROGRESS, printable
from .collections import collections_group
from .demo import demo
from .doctor import doctor
from .embed import embed
from .evaluate import evaluate
from .explain import explain
from .export import export
from .groups import groups
from .ingest import ingest
from .labels import labels
from .manifest import manifest
from .output import InOrder
from .query import query
from .serve import serve
from .training import fit_pca, train
from .verify import verify

_EXTRA_OF = {
    "onnxruntime": "cpu",
    "mirdata": "mirdata",
    **dict.fromkeys(("fastapi", "pydantic", "python_multipart", "starlette", "uvicorn"), "serve"),
}


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Click's errors quote the command line and file names, so their message is made fit for a terminal."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable(error.message)  # type: ignore[misc]  # Final to Click's subclasses, not to its callers
        raise


class _Printable(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


class _Group(InOrder):
    """A group of commands: what the user can mend becomes one line on stderr and exit code 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _printable_errors():
            return super().make_context(*args, **kwargs)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] in collections_group.commands and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}: it is collections {args[0]}.")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with ended_by_signals():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _printable_errors():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BytecoverError as error:
            raise click.ClickException(str(error)) from error
        except ImportError as error:  # training, export and serving each need packages that the others do without
            if (error.name or "").partition(".")[0] == DISTRIBUTION.replace("-", "_"):
                raise  # a fault of this package, which no installation mends
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0], "train")
            raise click.ClickException(why_not_imported(error, extra)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read stdout has seen enough: click ends quietly
                raise
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror or error}") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bytecover2-milvus")
def main() -> None:
    """Find cover songs: ByteCover2 embeddings of audio files, searched in Milvus."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    warnings.formatwarning = lambda message, *_args, **_kwargs: f"warning: {printable(message)}\n"


for command in (
    ingest,
    query,
    explain,
    groups,
    evaluate,
    embed,
    serve,
    labels,
    manifest,
    collections_group,
    doctor,
    demo,
    train,
    fit_pca,
    export,
    verify,
):
    main.add_command(command)


def _no_progress(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[NO_PROGRESS] = value


for command in (ingest, query, groups, evaluate, embed, demo, train, fit_pca, collections_group.commands["promote"]):
    command.params.append(
        click.Option(
            ["--no-progress"],
            is_flag=True,
            expose_value=False,
            callback=_no_progress,
            help="Show no bar while it runs; there is none where stderr is no terminal.",
        )
    )
