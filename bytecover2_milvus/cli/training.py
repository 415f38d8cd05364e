"""``train`` and ``fit-pca``: from songs or recordings to a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import JOINED_WHITENING, WHITENING
from ..options import corpus_options, device_option
from .output import print_json

if TYPE_CHECKING:
    from ..training.data.sources import DataSources


@click.command()
@corpus_options
@click.option("--validation-songs", multiple=True, metavar="SONGS", help="Songs held out for validation.")
@click.option(
    "--validation-manifest",
    type=click.Path(path_type=Path),
    help="Recordings held out for validation; FILE@SPLIT takes one split.",
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file; the defaults are the paper's."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, e.g. 'training.phase=\"frozen\"'.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Checkpoint or bundle to start from, with its network and front end. More network.stage_blocks in --config or "
    "--set add residual blocks, which start as their shortcut; --set 'network.feature_dim=\"none\"' leaves PCA-FC out.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--go-on",
    is_flag=True,
    help="The run in the folder goes on with what fits of it, where settings, songs or what arranges them changed; "
    "else it is refused.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
def train(
    cache: Path,
    workers: int,
    validation_songs: tuple[str, ...],
    validation_manifest: Path | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    init: Path | None,
    out: Path,
    go_on: bool,
    device: str,
    as_json: bool,
    sources: DataSources,
) -> None:
    """Train the network on songs or recordings; the same command resumes a run that was cut off.

    The checkpoint of the best validation is kept, which may be the one it starts from. A recording that cannot be used
    is left out with a warning. Under torchrun the processes share every batch, one GPU or some cores each.

    \b
    Example:
      bytecover2-milvus train --songs composed@0-1000 --validation-songs traditional \\
        --set 'network.feature_dim="none"' --out runs/bytecover
      bytecover2-milvus train --unlabelled music/ --songs composed@0-200 --init bundles/mine \\
        --config recipes/finetune.toml --set 'network.feature_dim="none"' --out runs/adapted
      torchrun --nproc-per-node 4 -m bytecover2_milvus train --songs composed@0-1000 \\
        --set 'network.feature_dim="none"' --out runs/bytecover
    """
    from ..training.data.sources import DataSources
    from ..training.run import run_training

    held_out = None
    if validation_songs or validation_manifest:
        held_out = DataSources(validation_songs, validation_manifest, arrangements=sources.arrangements)
    trained = run_training(
        sources,
        out,
        cache=cache,
        workers=workers,
        held_out=held_out,
        init=init,
        config_file=config_file,
        settings=settings,
        device=device,
        go_on=go_on,
    )
    if trained is None:  # another process of torchrun prints it
        return
    if as_json:
        print_json(asdict(trained) | {"checkpoint": str(trained.checkpoint)})
    else:
        click.echo(f"{trained.checkpoint}")


@click.command("fit-pca")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@corpus_options
@click.option("--dim", type=click.IntRange(1), default=128, show_default=True, help="D, the width of the embedding.")
@click.option(
    "--of",
    type=click.Choice(["embedding", "pooled"]),
    default="embedding",
    show_default=True,
    help="Principal axes of the embedding, behind BNNeck, or of the pooled embedding before it, as in the paper.",
)
@click.option(
    "--whitening",
    type=click.FloatRange(0, 1),
    show_default=f"{WHITENING}, or {JOINED_WHITENING} with a chroma network",
    help="Power of its deviation that every axis is divided by; 0 is the paper's, 1 makes all axes count alike.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Checkpoint to write.")
@device_option
def fit_pca(
    checkpoint: Path,
    cache: Path,
    workers: int,
    dim: int,
    of: str,
    whitening: float | None,
    out: Path,
    device: str,
    sources: DataSources,
) -> None:
    """Insert a PCA-FC layer, fitted on whole tracks, into a ByteCover checkpoint.

    If the checkpoint has a chroma network, the layer joins both; a PCA-FC that is there becomes a part of it.

    \b
    Example:
      bytecover2-milvus fit-pca runs/bytecover/best.safetensors --songs composed@0-1000 --dim 128 \\
        --out runs/pca.safetensors
    """
    from ..training.run import fit_pca_fc

    fit_pca_fc(
        checkpoint,
        sources,
        out,
        dim=dim,
        of=of,
        whitening=whitening,
        cache=cache,
        workers=workers,
        device=device,
    )
    click.echo(f"{out}")
