"""``embed``: audio files to vectors in a file, no Milvus involved."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .output import bundle_option, device_option, progress_bar


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write, .npz.")
@bundle_option
@device_option
def embed(files: tuple[Path, ...], out: Path, bundle: Path | None, device: str) -> None:
    """Write the embeddings of audio files, or all in folders, to a NumPy file.

    It holds `embeddings` (N, D) float32, `paths` (N,) and `model_id`; a file that cannot be read is reported and left
    out.

    \b
    Example:
      bytecover2-milvus embed a.wav b.mp3 --out embeddings.npz
    """
    import numpy as np

    from ..audio import find_audio, load_audio
    from ..embedder import Embedder
    from ..errors import AudioError
    from ..writing import whole_file

    paths = find_audio(files)
    embedder = Embedder(bundle, device)
    embeddings, embedded = [], []
    with progress_bar("embed", len(paths)) as bar:
        for path in paths:
            try:
                embeddings.append(embedder.embed(load_audio(path)))
                embedded.append(str(path))
            except AudioError as error:
                bar.print(f"Error: {error}")
            bar.update(advance=1, note=path.name)
    if not embedded:
        raise click.ClickException("no embedding to write")
    with whole_file(out) as part, part.open("wb") as file:
        np.savez(file, embeddings=np.stack(embeddings), paths=np.array(embedded), model_id=embedder.model_id)
    click.echo(f"{len(embedded)} embeddings of {embedder.dim} values in {out}", err=True)
    if len(embedded) < len(paths):
        sys.exit(1)
