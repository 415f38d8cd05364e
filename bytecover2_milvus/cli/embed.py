"""``embed``: audio files to vectors in a file, no Milvus involved."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import device_option
from ..terminal import progress_bar, say
from .inputs import tracks_at
from .options import bundle_option, limits_options, manifest_options, segment_options
from .output import about

if TYPE_CHECKING:
    from ..audio.limits import Limits
    from ..audio.segments import Segments
    from ..embedding.embedder import Embedder
    from ..manifest import Track


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@manifest_options
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write, .npz or .parquet."
)
@bundle_option
@device_option
@limits_options
@segment_options(
    "For .parquet: seconds of the segments to embed beside whole tracks; the default is whole tracks only."
)
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that decode for .parquet; by default one per core, at most 8."
)
def embed(
    files: tuple[Path, ...],
    manifest: Path | None,
    types: dict[str, str],
    out: Path,
    bundle: Path | None,
    device: str,
    segments: Segments | None,
    limits: Limits,
    workers: int | None,
) -> None:
    """Write the embeddings of audio files, or all in folders, to a NumPy or Parquet file.

    An .npz holds `embeddings` (N, D) float32, `paths` (N,) and `model_id`. A .parquet holds the rows of a collection:
    `ingest --vectors` stores them without the audio, and the same command goes on where it was cut off. A file that
    cannot be read is reported and left out. - stands for a list of paths on standard input, one in a line.

    \b
    Example:
      bytecover2-milvus embed music/ --out vectors.parquet
    """
    from ..embedding.embedder import Embedder

    if not (files or manifest):
        raise click.UsageError("nothing to embed: give files, folders or --manifest")
    if out.suffix not in (".npz", ".parquet"):
        raise click.UsageError(f"--out {out}: its name must end in .npz or .parquet")
    if segments and out.suffix != ".parquet":
        raise click.UsageError("--segment needs a .parquet file, where each segment has a row")
    tracks = tracks_at(files, manifest, types)
    embedder = Embedder(bundle, device)
    if out.suffix == ".parquet":
        n_embedded, n_failed = _write_parquet(tracks, out, embedder, segments, limits, workers)
    else:
        n_embedded, n_failed = _write_npz([track.path for track in tracks], out, embedder, limits)
    say(f"{n_embedded} embeddings of {embedder.dim} values in {out}")
    if n_failed:
        sys.exit(1)


def _write_npz(paths: list[Path], out: Path, embedder: Embedder, limits: Limits) -> tuple[int, int]:
    """The numbers of files that were embedded and that failed."""
    import numpy as np

    from ..atomic import atomic_write
    from ..audio.load import load_audio
    from ..errors import AudioError

    embeddings, embedded = [], []
    with atomic_write(out) as part, part.open("wb") as file:  # first: that it cannot be written is known at once
        with progress_bar("embed", len(paths)) as bar:
            for path in paths:
                try:
                    embeddings.append(embedder.embed(load_audio(path, limits)))
                    embedded.append(str(path))
                except AudioError as error:
                    bar.print(f"Error: {about(path, error)}")
                bar.update(advance=1, note=path.name)
        if not embedded:
            raise click.ClickException(f"{out}: no embedding to write, as every file failed")
        np.savez(file, embeddings=np.stack(embeddings), paths=np.array(embedded), model_id=embedder.model_id)
    return len(embedded), len(paths) - len(embedded)


def _write_parquet(
    tracks: list[Track],
    out: Path,
    embedder: Embedder,
    segments: Segments | None,
    limits: Limits,
    workers: int | None,
) -> tuple[int, int]:
    """The number of rows in the file, and of tracks that failed."""
    from ..audio.segments import WHOLE
    from ..ingest.parquet import staging_for, write_vectors
    from ..ingest.pipeline import ingest

    statuses: Counter[str] = Counter()
    listed = set()
    with staging_for(out, embedder) as staging:
        staging.set_segmentation(segments or WHOLE)  # whatever a run that was cut off was told
        records = ingest(tracks, embedder, staging, workers=workers, limits=limits)
        with progress_bar("embed", len(tracks)) as bar, closing(records):
            for record in records:
                statuses[record.status] += 1
                listed.add(record.track_id)
                for problem in filter(None, (record.reason if record.status == "failed" else "", record.warning)):
                    bar.print(f"{record.status}: {problem}")
                bar.update(advance=1, note=record.track_id)
        staging.keep_only(sorted(listed))  # a run that was cut off may have had others
        if not staging.count():
            raise click.ClickException(f"{out}: no embedding to write, as every file failed")
        n_rows = write_vectors(staging, out)
        staging.delete()
    return n_rows, statuses["failed"]
