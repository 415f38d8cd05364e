"""``train`` and ``fit-pca``: from songs or recordings to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import AUTO, WHITENING
from ..errors import ConfigError
from .options import device_option
from .output import print_json, progress_bar, say

if TYPE_CHECKING:
    from ..config import Config
    from ..training.checkpoint import Checkpoint
    from ..training.data.corpus import Corpus
    from ..training.data.feature_cache import FeatureCache
    from ..training.data.sources import DataSources


def corpus_options(command: Callable[..., object]) -> Any:
    """Options of the training data: the command takes a `DataSources`, `cache` and `workers`."""

    @wraps(command)
    def with_material(*args: Any, **kwargs: Any) -> object:
        if not (kwargs["songs"] or kwargs["manifest"] or kwargs["unlabelled"]):
            raise click.UsageError("nothing to learn from: give --songs, --manifest or --unlabelled")
        from ..training.data.sources import DataSources

        material = DataSources(**{field.name: kwargs.pop(field.name) for field in fields(DataSources)})
        return command(*args, material=material, **kwargs)

    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=2,
            show_default=True,
            help="Processes that prepare tracks and batches.",
        ),
        click.option(
            "--cache",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".cache/cqt"),
            show_default=True,
            help="Folder for the CQTs of tracks; may be deleted.",
        ),
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
        with_material = option(with_material)
    return with_material


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
    material: DataSources,
) -> None:
    """Train the network on songs or recordings; the same command resumes a run that was cut off.

    The checkpoint of the best validation is kept, which may be the one it starts from. A recording that cannot be used
    is left out with a warning. Under torchrun the processes share every batch, one GPU or some cores each.

    \b
    Example:
      bytecover2-milvus train --songs composed@0-1000 --validation-songs traditional \\
        --set 'network.feature_dim="none"' --out runs/bytecover
      bytecover2-milvus train --unlabelled music/ --songs composed@0-200 --init bundles/mine \\
        --config recipes/finetune.toml --out runs/adapted
      torchrun --nproc-per-node 4 -m bytecover2_milvus train --songs composed@0-1000 \\
        --set 'network.feature_dim="none"' --out runs/bytecover
    """
    from ..atomic import check_writable
    from ..training.checkpoint import LAST, load_checkpoint
    from ..training.data.feature_cache import FeatureCache
    from ..training.data.sources import DataSources
    from ..training.distributed import launched, torch_device
    from ..training.precision import choose_precision
    from ..training.train import VALIDATION, check_disjoint, check_start
    from ..training.train import train as run
    from ..training.train_notes import NOTE_VALIDATION, train_notes

    initial = load_checkpoint(init) if init else None
    config = _config(config_file, settings, initial.config if initial else None)
    check_start(config, initial)
    torch_device(device)
    check_writable(out / LAST)
    if config.training.precision == AUTO and config.training.phase != "notes":
        say(str(choose_precision(config, device, out)))
    of_notes = config.training.phase == "notes"
    if of_notes and go_on:
        raise ConfigError('--go-on is for the network for the vector; phase "notes" resumes its own run alone')
    features = FeatureCache.of(cache, config)
    corpus, validation = material.corpus(features, workers), None
    if validation_songs or validation_manifest:
        held_out = DataSources(validation_songs, validation_manifest, arrangements=material.arrangements)
        validation = held_out.corpus(features, workers)
        check_disjoint(corpus, validation)
        validation = validation if of_notes else prepare(validation, features, workers)
    if config.training.hearings:  # songs are drawn as they are needed
        songs, recordings = corpus.parts()
        corpus = songs + prepare(recordings, features, workers) if recordings.works else songs
    elif not of_notes:  # so are they for a note map
        corpus = prepare(corpus, features, workers)

    rank, _ = launched()
    if rank == 0:
        judged = f", validated on {len(validation.works)} works with {validation.n_tracks}" if validation else ""
        say(f"training on {len(corpus.works)} works with {corpus.n_tracks} tracks{judged}")
    done = 0  # steps
    with progress_bar("train", config.training.steps or None, quiet=rank > 0) as bar:

        def report(progress: Any) -> None:
            nonlocal done
            done = progress.step
            loss = f"loss {progress.loss:.3f}, {progress.tracks_per_s:.0f} tracks/s" if progress.step else "the start"
            if progress.validation:
                bar.print(f"step {progress.step}: {loss}, validation {progress.validation}")
            bar.update(completed=progress.step, note=loss)

        facts = {
            "Trained on": _trained_on(", ".join(material.names), initial),
            "Works": str(len(corpus.works)),
            "Tracks": str(corpus.n_tracks),
        }
        try:
            best = (train_notes if of_notes else partial(run, go_on=go_on))(
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
        except KeyboardInterrupt:
            if rank == 0:
                saved = (
                    f"saved every {config.training.save_every} steps" if (out / LAST).exists() else "nothing saved yet"
                )
                after = f" after step {done}" if done else ""
                click.echo(err=True)
                say(f"stopped{after}, {saved}; the same command goes on")
            raise
    if rank > 0:
        return
    reached = load_checkpoint(best).facts.get(NOTE_VALIDATION if of_notes else VALIDATION)
    result = {
        "checkpoint": str(best),
        "steps": config.training.steps,
        "validation_map": None if reached is None else float(reached),
    }
    if as_json:
        print_json(result)
    else:
        click.echo(f"{best}")


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
    default=WHITENING,
    show_default=True,
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
    whitening: float,
    out: Path,
    device: str,
    material: DataSources,
) -> None:
    """Insert a PCA-FC layer, fitted on whole tracks, into a ByteCover checkpoint.

    \b
    Example:
      bytecover2-milvus fit-pca runs/bytecover/best.safetensors --songs composed@0-1000 --dim 128 \\
        --out runs/pca.safetensors
    """
    from ..atomic import check_writable
    from ..training.checkpoint import load_checkpoint
    from ..training.data.feature_cache import FeatureCache
    from ..training.distributed import torch_device
    from ..training.insert_pca import check_reducible, insert_embedding_pca, insert_pca_fc
    from ..training.train import pooled_embeddings

    start = load_checkpoint(checkpoint)
    check_reducible(start, dim)
    check_writable(out)
    on = torch_device(device)
    features = FeatureCache.of(cache, start.config)
    corpus = material.corpus(features, workers)
    _check_axes(corpus, dim)
    corpus = prepare(corpus, features, workers)
    _check_axes(corpus, dim)
    with progress_bar("embed", corpus.n_tracks) as bar:
        watch = partial(bar.update, advance=1)
        pooled = pooled_embeddings(
            start.network.to(on), start.config, corpus, features, on, watch, note_map=start.note_map
        )
    start.network.cpu()
    insert = {"embedding": insert_embedding_pca, "pooled": insert_pca_fc}[of]
    insert(start, pooled, dim, whitening).save(out)
    click.echo(f"{out}")


def _check_axes(corpus: Corpus, dim: int) -> None:
    if corpus.n_tracks <= dim:
        raise ConfigError(f"{corpus.n_tracks} tracks tell no {dim} axes: give more than {dim}, or a smaller --dim")


def _trained_on(names: str, initial: Checkpoint | None) -> str:
    """The names of the sources, after those of what the run starts from."""
    before = initial.facts.get("Trained on", names) if initial else names
    return before if before == names or before.endswith(f"; then {names}") else f"{before}; then {names}"


def _config(path: Path | None, settings: tuple[str, ...], initial: Config | None) -> Config:
    """The paper's configuration, with front end and network of the initial checkpoint, then the file, then settings."""
    from ..config import Config

    base = Config(initial.front_end, initial.network, notes=initial.notes) if initial else Config()
    config = Config.from_toml(path, base) if path else base
    if initial:  # a recipe has one file for phases without PCA-FC and with it
        config = replace(config, network=replace(config.network, feature_dim=initial.network.feature_dim))
    return config.with_settings(settings)


def prepare(corpus: Corpus, features: FeatureCache, workers: int) -> Corpus:
    """The works of `corpus` with every CQT in the cache, without what gives none; each file's fault is said once."""
    from ..training.distributed import launched

    rank, ranks = launched()
    usable, said = [], set()
    if ranks > 1:  # each computes its share, then sees what the others made of theirs
        for prepared in features.fill(corpus.share(rank, ranks), workers):
            if prepared.usable and prepared.warning and prepared.warning not in said:  # what is not, is said below
                say(f"warning: {prepared.warning}")
                said.add(prepared.warning)
    with progress_bar("prepare", corpus.n_tracks, quiet=rank > 0) as bar:
        for prepared in features.fill(corpus, workers):
            bar.update(advance=1, note=prepared.track_id)
            usable.append(prepared.usable)
            if prepared.warning and prepared.warning not in said:
                bar.print(f"{'warning' if prepared.usable else 'left out'}: {prepared.warning}")
            said.add(prepared.warning)
    return corpus.where(usable)
