"""``train`` and ``fit-pca``: from songs or recordings to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import device_option, progress_bar

if TYPE_CHECKING:
    from ..config import Config
    from ..training.corpus import Corpus, FeatureCache


def corpus_options(command: Any) -> Any:
    """What to learn from, shared by ``train`` and ``fit-pca``."""
    for option in (
        click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes that prepare."),
        click.option(
            "--cache",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".cache/cqt"),
            show_default=True,
            help="Folder for the CQTs of tracks; may be deleted.",
        ),
        click.option(
            "--arrangements", type=click.IntRange(2), default=4, show_default=True, help="Tracks made of each song."
        ),
        click.option(
            "--manifest", type=click.Path(path_type=Path), help="Recordings: CSV or JSON lines with path and work_id."
        ),
        click.option(
            "--songs",
            multiple=True,
            metavar="SONGS",
            help="Songs to arrange: composed@FROM-TO, traditional, or a score or folder of scores, with or without "
            "@FROM-TO. May be given several times.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@corpus_options
@click.option("--validation-songs", multiple=True, metavar="SONGS", help="Songs held out for validation.")
@click.option("--validation-manifest", type=click.Path(path_type=Path), help="Recordings held out for validation.")
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
    help="Checkpoint to start from; the network and its front end are as they are there.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
def train(
    songs: tuple[str, ...],
    manifest: Path | None,
    arrangements: int,
    cache: Path,
    workers: int,
    validation_songs: tuple[str, ...],
    validation_manifest: Path | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    init: Path | None,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Train the network on songs or recordings; the same command resumes a run that was cut off.

    Under torchrun the processes share every batch, one GPU or some cores each.

    \b
    Example:
      bytecover2-milvus train --songs composed@0-1000 --validation-songs traditional \\
        --set 'network.feature_dim="none"' --out runs/bytecover
      torchrun --nproc-per-node 4 -m bytecover2_milvus train --songs composed@0-1000 --out runs/bytecover
    """
    from ..training.checkpoint import load_checkpoint
    from ..training.ranks import launched
    from ..training.train import VALIDATION
    from ..training.train import train as run

    initial = load_checkpoint(init) if init else None
    config = _config(config_file, settings, initial.config if initial else None)
    corpus, features = _corpus(songs, manifest, arrangements, cache, workers, config)
    validation = None
    if validation_songs or validation_manifest:
        validation, _ = _corpus(validation_songs, validation_manifest, arrangements, cache, workers, config)

    rank, _ = launched()
    with progress_bar("train", config.training.steps, quiet=rank > 0) as bar:

        def report(progress: Any) -> None:
            loss = f"loss {progress.loss:.3f}, {progress.tracks_per_s:.0f} tracks/s"
            if progress.validation:
                bar.print(f"step {progress.step}: {loss}, validation MAP {progress.validation.map:.3f}")
            bar.update(completed=progress.step, note=loss)

        facts = {
            "Trained on": ", ".join(Path(source).name for source in (*songs, *filter(None, [manifest]))),
            "Works": str(len(corpus.works)),
            "Tracks": str(corpus.n_tracks),
        }
        best = run(
            config,
            corpus,
            features,
            out,
            init=initial,
            validation=validation,
            device=device,
            data_workers=workers,
            facts=(initial.facts if initial else {}) | facts,
            report=report,
        )
    if rank > 0:
        return
    reached = load_checkpoint(best).facts.get(VALIDATION)
    result = {
        "checkpoint": str(best),
        "steps": config.training.steps,
        "validation_map": None if reached is None else float(reached),
    }
    click.echo(json.dumps(result) if as_json else f"{best}")


@click.command("fit-pca")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@corpus_options
@click.option("--dim", type=click.IntRange(1), default=128, show_default=True, help="D, the width of the embedding.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Checkpoint to write.")
def fit_pca(
    checkpoint: Path,
    songs: tuple[str, ...],
    manifest: Path | None,
    arrangements: int,
    cache: Path,
    workers: int,
    dim: int,
    out: Path,
) -> None:
    """Insert a PCA-FC layer, fitted on the pooled embeddings of whole tracks, into a ByteCover checkpoint.

    \b
    Example:
      bytecover2-milvus fit-pca runs/bytecover/best.safetensors --songs composed@0-1000 --dim 128 \\
        --out runs/pca.safetensors
    """
    from ..training.checkpoint import load_checkpoint
    from ..training.train import insert_pca_fc, pooled_embeddings

    start = load_checkpoint(checkpoint)
    corpus, features = _corpus(songs, manifest, arrangements, cache, workers, start.config)
    pooled = pooled_embeddings(start.network, start.config, corpus, features)
    insert_pca_fc(start, pooled, dim).save(out)
    click.echo(f"{out}")


def _config(path: Path | None, settings: tuple[str, ...], initial: Config | None) -> Config:
    """The TOML file's tables, front end and network those of the initial checkpoint if there is one, then settings."""
    import tomllib

    from ..config import Config
    from ..errors import ConfigError

    table = (Config.from_toml(path) if path else Config()).to_dict()
    if initial:
        table |= {part: initial.to_dict()[part] for part in ("front_end", "network")}
    for setting in settings:
        try:
            parsed = tomllib.loads(setting)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"--set {setting}: not KEY=VALUE in TOML; a word needs quotes ({error})") from error
        for part, values in parsed.items():
            if not isinstance(values, dict):
                raise ConfigError(f"--set {setting}: name the table too, as training.{setting}")
            table[part] = table.get(part, {}) | values
    return Config.from_dict(table)


def _corpus(
    songs: tuple[str, ...], manifest: Path | None, arrangements: int, cache: Path, workers: int, config: Config
) -> tuple[Corpus, FeatureCache]:
    """The works to learn from, every track's CQT in the cache; of several ranks, each computes its share of them."""
    from ..manifest import read_manifest
    from ..songs.select import select_songs
    from ..training.corpus import Corpus, FeatureCache
    from ..training.ranks import launched

    if not songs and not manifest:
        raise click.UsageError("nothing to learn from: give --songs or --manifest")
    corpus = Corpus.of_songs((song for spec in songs for song in select_songs(spec)), arrangements)
    if manifest:
        corpus += Corpus.of_manifest(read_manifest(manifest))
    features = FeatureCache(cache, config.front_end)
    rank, ranks = launched()
    share = Corpus(dict(list(corpus.works.items())[rank::ranks]))
    with progress_bar("prepare", share.n_tracks, quiet=rank > 0) as bar:
        for track_id in features.fill(share, workers):
            bar.update(advance=1, note=track_id)
    return corpus, features
