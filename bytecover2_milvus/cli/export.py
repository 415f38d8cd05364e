"""``export``: from a checkpoint to the bundle that is handed over."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--fact", "facts", multiple=True, metavar="NAME=TEXT", help="A row of the model card, e.g. Limits=...")
@click.option(
    "--checkpoint/--no-checkpoint",
    "with_checkpoint",
    default=True,
    show_default=True,
    help="Whether the bundle carries the weights to train on from; without them it is half the size.",
)
@click.option("--cqt", is_flag=True, help="Add model_cqt.onnx, for those who have the pooled CQT already.")
def export(checkpoint: Path, out: Path, facts: tuple[str, ...], with_checkpoint: bool, cqt: bool) -> None:
    """Write the ONNX bundle of a checkpoint: waveform in, unit embedding out.

    The exported graph is compared with the network at several lengths and batch sizes; where they differ, nothing is
    written.

    \b
    Example:
      bytecover2-milvus export runs/joint/best.safetensors --out bundles/mine
    """
    from ..export.exporter import write_bundle
    from ..training.checkpoint import load_checkpoint

    for fact in facts:
        if "=" not in fact:
            raise click.UsageError(f"--fact {fact}: give NAME=TEXT")
    named = dict(fact.partition("=")[::2] for fact in facts)
    loaded = load_checkpoint(checkpoint)
    bundle = write_bundle(
        loaded.config, loaded.network, out, facts=loaded.facts | named, checkpoint=with_checkpoint, cqt=cqt
    )
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    click.echo(f"{bundle.path}: model {bundle.contract.model_id}, {size / 1e6:.1f} MB", err=True)
