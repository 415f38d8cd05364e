"""A training from beginning to end: its start and its data, the checks of both, and the loop of its phase.

Progress and warnings go to stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..atomic import check_writable
from ..config import AUTO, JOINED_WHITENING, WHITENING, Config, Training
from ..errors import ConfigError, TrainingError
from ..model.note_map import NOTE_POOLING
from ..terminal import Bar, progress_bar, say
from .checkpoint import LAST, Checkpoint, load_checkpoint
from .data.corpus import Corpus
from .data.feature_cache import FeatureCache
from .data.sources import DataSources
from .distributed import launched, torch_device
from .insert_pca import check_joinable, check_reducible, insert_embedding_pca, insert_pca_fc, join_chroma_network
from .precision import choose_precision
from .start import check_disjoint, check_start
from .train import Progress, train
from .train_notes import NOTE_VALIDATION, NoteProgress, train_notes
from .validation import VALIDATION, pooled_embeddings

PCA_OF = {"embedding": insert_embedding_pca, "pooled": insert_pca_fc}


@dataclass(frozen=True)
class Trained:
    """The result of a run."""

    checkpoint: Path  # the best
    steps: int
    validation_map: float | None  # of that checkpoint; None without validation


def run_training(
    sources: DataSources,
    out: Path,
    *,
    cache: Path,
    workers: int,
    held_out: DataSources | None = None,
    init: Path | None = None,
    config_file: Path | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    go_on: bool = False,
) -> Trained | None:
    """Train the network, or in phase "notes" the note map; a run that was cut off goes on where it stopped.

    Parameters
    ----------
    sources : DataSources
        What is trained on.
    out : Path
        Folder of the run, as `train` describes it.
    cache : Path
        Folder of CQTs.
    workers : int
        Processes that prepare tracks and batches.
    held_out : DataSources, optional
        What is validated on.
    init : Path, optional
        Checkpoint or bundle to start from.
    config_file, settings : Path and sequence of str, optional
        As `configuration` reads them.
    device : {"auto", "cpu", "cuda"}
    go_on : bool
        The run in `out` goes on with what fits of it, where settings, tracks or validation are others by now.

    Returns
    -------
    trained : Trained or None
        None in all processes of torchrun but the first.

    Raises
    ------
    BytecoverError
        If a source, the checkpoint or the configuration cannot be used, or they do not fit together: of these whatever
        can be known is found before anything is computed. Else as `train` and `train_notes`.
    """
    initial = load_checkpoint(init) if init else None
    config = configuration(config_file, settings, initial)
    of_notes = config.training.phase == "notes"
    check_start(config, initial)
    torch_device(device)
    check_writable(out / LAST)
    if config.training.precision == AUTO and not of_notes:
        say(str(choose_precision(config, device, out)))
    if of_notes and go_on:
        raise ConfigError('--go-on is for the network for the vector; phase "notes" resumes its own run alone')
    features = FeatureCache.of(cache, config)
    corpus, validation = _works(config, sources, held_out, features, workers)

    rank, _ = launched()
    if rank == 0:
        judged = f", validated on {len(validation.works)} works with {validation.n_tracks}" if validation else ""
        say(f"training on {len(corpus.works)} works with {corpus.n_tracks} tracks{judged}")
    facts = {
        "Trained on": _trained_on(", ".join(sources.names), initial),
        "Works": str(len(corpus.works)),
        "Tracks": str(corpus.n_tracks),
    }
    loop = train_notes if of_notes else partial(train, go_on=go_on)
    with progress_bar("train", config.training.steps or None, quiet=rank > 0) as bar:
        watch = _Watch(bar)
        try:
            best = loop(
                config,
                corpus,
                features,
                out,
                init=initial,
                validation=validation,
                device=device,
                data_workers=workers,
                facts=(initial.facts if initial else {}) | facts,
                report=watch,
            )
        except KeyboardInterrupt:
            if rank == 0:
                every = f"saved every {config.training.save_every} steps"
                saved = every if (out / LAST).exists() else "nothing saved yet"
                after = f" after step {watch.done}" if watch.done else ""
                say("")
                say(f"stopped{after}, {saved}; the same command goes on")
            raise
    if rank > 0:
        return None
    reached = load_checkpoint(best).facts.get(NOTE_VALIDATION if of_notes else VALIDATION)
    return Trained(best, config.training.steps, None if reached is None else float(reached))


class _Watch:
    """The reports of a loop, shown on a progress bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self.done = 0  # steps

    def __call__(self, progress: Progress | NoteProgress) -> None:
        self.done = progress.step
        loss = f"loss {progress.loss:.3f}, {progress.tracks_per_s:.0f} tracks/s" if progress.step else "the start"
        if progress.validation:
            self._bar.print(f"step {progress.step}: {loss}, validation {progress.validation}")
        self._bar.update(completed=progress.step, note=loss)


def configuration(path: Path | None, settings: Sequence[str], initial: Checkpoint | None) -> Config:
    """The paper's configuration, with front end and network of the initial checkpoint, then the file, then settings.

    Raises
    ------
    ConfigError
        If the file or a setting cannot be read, or names what there is not.
    """
    base = replace(initial.config, training=Training()) if initial else Config()
    config = Config.from_toml(path, base) if path else base
    if initial:  # a recipe has one file for phases without PCA-FC and with it
        config = replace(config, network=replace(config.network, feature_dim=initial.config.network.feature_dim))
    return config.with_settings(settings)


def _works(
    config: Config, sources: DataSources, held_out: DataSources | None, features: FeatureCache, workers: int
) -> tuple[Corpus, Corpus | None]:
    """The works to train on and to validate on, which are others; of each, what the loop needs at once is computed."""
    of_notes = config.training.phase == "notes"
    corpus, validation = sources.corpus(features, workers), None
    if held_out:
        validation = held_out.corpus(features, workers)
        check_disjoint(corpus, validation)
        validation = validation if of_notes else prepare(validation, features, workers)
    if config.training.hearings:  # songs are drawn as they are needed
        songs, recordings = corpus.parts()
        corpus = songs + prepare(recordings, features, workers) if recordings.works else songs
    elif not of_notes:  # so are they for a note map
        corpus = prepare(corpus, features, workers)
    return corpus, validation


def prepare(corpus: Corpus, features: FeatureCache, workers: int) -> Corpus:
    """The works of `corpus` with every CQT in the cache, without what gives none; each file's fault is said once.

    Raises
    ------
    TrainingError
        If nothing is left to learn from.
    """
    rank, ranks = launched()
    usable, told = [], set()
    if ranks > 1:  # each computes its share, then sees what the others made of theirs
        for prepared in features.fill(corpus.share(rank, ranks), workers):
            if prepared.usable and prepared.warning and prepared.warning not in told:  # what is not, is told below
                say(f"warning: {prepared.warning}")
                told.add(prepared.warning)
    with progress_bar("prepare", corpus.n_tracks, quiet=rank > 0) as bar:
        for prepared in features.fill(corpus, workers):
            bar.update(advance=1, note=prepared.track_id)
            usable.append(prepared.usable)
            if prepared.warning and prepared.warning not in told:
                bar.print(f"{'warning' if prepared.usable else 'left out'}: {prepared.warning}")
            told.add(prepared.warning)
    return corpus.where(usable)


def fit_pca_fc(
    checkpoint: Path,
    sources: DataSources,
    out: Path,
    *,
    dim: int,
    of: str,
    whitening: float | None,
    cache: Path,
    workers: int,
    device: str = "auto",
) -> None:
    """Write a ByteCover checkpoint with a PCA-FC, fitted on whole tracks, to the file `out`.

    Parameters
    ----------
    checkpoint : Path
    sources : DataSources
    out : Path
    dim : int
        D, the width of the embedding.
    of : {"embedding", "pooled"}
        A key of `PCA_OF`: what the axes are those of.
    whitening : float or None
        That of `principal_axes`; None is `WHITENING`, or `JOINED_WHITENING` where a chroma network is joined.
    cache, workers, device
        As of `run_training`.

    Raises
    ------
    BytecoverError
        If a source or the checkpoint cannot be used, or there are too few tracks for the axes.
    """
    start = load_checkpoint(checkpoint)
    joins = start.chroma_network is not None
    if joins and of != "embedding":
        raise ConfigError(f"--of {of}: a checkpoint with a chroma network has axes of both embeddings alone")
    if joins:
        check_joinable(start, dim)
    else:
        check_reducible(start, dim)
    check_writable(out)
    on = torch_device(device)
    features = (
        FeatureCache(cache, start.config.front_end, NOTE_POOLING) if joins else FeatureCache.of(cache, start.config)
    )
    corpus = sources.corpus(features, workers)
    _check_axes(corpus, dim)
    corpus = prepare(corpus, features, workers)
    _check_axes(corpus, dim)  # some recordings may have given nothing
    for network in filter(None, (start.network, start.note_map, start.chroma_network)):
        network.to(on)
    with progress_bar("embed", corpus.n_tracks) as bar:
        pooled = pooled_embeddings(
            start.network,
            start.config,
            corpus,
            features,
            on,
            partial(bar.update, advance=1),
            note_map=start.note_map,
            chroma_network=start.chroma_network,
        )
    for network in filter(None, (start.network, start.note_map, start.chroma_network)):
        network.cpu()
    insert, usual = (join_chroma_network, JOINED_WHITENING) if joins else (PCA_OF[of], WHITENING)
    insert(start, pooled, dim, usual if whitening is None else whitening).save(out)


def _check_axes(corpus: Corpus, dim: int) -> None:
    if corpus.n_tracks <= dim:
        raise TrainingError(f"{corpus.n_tracks} tracks tell no {dim} axes: give more than {dim}, or a smaller --dim")


def _trained_on(names: str, initial: Checkpoint | None) -> str:
    """The names of the sources, after those of what the run starts from."""
    before = initial.facts.get("Trained on", names) if initial else names
    return before if before == names or before.endswith(f"; then {names}") else f"{before}; then {names}"
