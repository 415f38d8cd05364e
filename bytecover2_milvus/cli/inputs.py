"""The tracks and audio files that a command is given: by paths, by a manifest, or on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from ..audio.limits import Limits
    from ..manifest import Track

STANDARD_INPUT = Path("-")


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
    """The files of recordings at `paths`, each with the name to show for it; ``-`` is standard input.

    A recording on standard input is copied to a temporary file, which is deleted at the end.

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
    """Standard input as bytes.

    Raises
    ------
    click.UsageError
        If it is a terminal.
    """
    if sys.stdin.isatty():
        raise click.UsageError("- stands for standard input, which is a terminal; pipe something into it")
    return sys.stdin.buffer
