"""The gain or loss by one setting of the training: the same training with another value, scored on songs held out.

Every run starts from the same checkpoint and sees the same tracks in the same order; one setting differs, such as an
augmentation that is switched off. All are scored after the same number of steps on the validation songs, played and
then as well played as degraded by codecs, rooms and noise (`bytecover2_milvus.audio.degrade`). A difference is the mean
over queries, its 95 % interval bootstrapped by work. Runs are folders under ``--out``: the same command goes on where
it was cut off, and further choices may be added later. Front end and network are those of the checkpoint, so choices of
theirs need trainings of their own.

Prints one JSON object per choice on stdout, a table on stderr, and writes the table to ``choices.md``. Run from the
repository::

    python -m benchmarks.quality.choices runs/bytecover/best.safetensors --songs composed@0-500 \\
        --validation-songs traditional --choice training.room_s=0 --choice training.temperature=0.05 --out runs/choices
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.config import Config, Training
from bytecover2_milvus.errors import BytecoverError, ConfigError
from bytecover2_milvus.metrics import Evaluation, mean_difference
from bytecover2_milvus.options import corpus_options, device_option, runs_option
from bytecover2_milvus.terminal import progress_bar
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.sources import DataSources
from bytecover2_milvus.training.run import prepare
from bytecover2_milvus.training.start import check_start
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import validate

AS_GIVEN = "as given"
START = "start"  # the checkpoint, not trained on

_BETWEEN = re.compile(r"\s+(?=\w+\.\w+=)")  # the settings of a choice; lists hold blanks too


@dataclass(frozen=True)
class Worth:
    """One line of the table: a choice on one set of queries."""

    choice: str
    set: str
    map: float
    difference: float  # to the run with the settings as given, on the same queries
    low: float
    high: float
    queries: int
    works: int


def worth(choice: str, name: str, result: Evaluation, given: Evaluation) -> Worth:
    both = result.average_precisions, given.average_precisions  # in the order of track_id
    difference = mean_difference(*both, result.query_work_ids, seed=0)
    return Worth(choice, name, result.map, *difference, result.queries, result.works)


def table_markdown(lines: Sequence[Worth], steps: int) -> str:
    sets = list(dict.fromkeys(line.set for line in lines))
    by_place = {(line.choice, line.set): line for line in lines}
    text = [
        f"{lines[0].works} works, {lines[0].queries} queries, {steps} steps. Differences are to the settings as given, "
        "query by query, with a 95 % interval bootstrapped by work.",
        "",
        "| choice | " + " | ".join(f"MAP, {name} | difference" for name in sets) + " |",
        "|---|" + "---|---|" * len(sets),
    ]
    for choice in dict.fromkeys(line.choice for line in lines):
        cells = [by_place[choice, name] for name in sets]
        shown = [f"{c.map:.3f} | {c.difference:+.3f} ({c.low:+.3f} to {c.high:+.3f})" for c in cells]
        text.append(f"| {choice} | {' | '.join(shown)} |")
    return "\n".join(text) + "\n"


def _configs(start: Checkpoint, training: Training, choices: Sequence[str]) -> dict[str, Config]:
    """The configuration of every run; the settings of one choice stand with blanks between them."""
    config = replace(start.config, training=training)
    configs = {AS_GIVEN: config} | {choice: config.with_settings(_BETWEEN.split(choice.strip())) for choice in choices}
    for choice, chosen in configs.items():
        if (chosen.front_end, chosen.network) != (config.front_end, config.network):
            raise ConfigError(f"--choice {choice}: front end and network are the checkpoint's; only training.* differs")
        check_start(chosen, start)
    return configs


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@corpus_options
@click.option(
    "--validation-songs", multiple=True, required=True, metavar="SONGS", help="Songs that runs are scored on."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; its [training] is used.")
@click.option(
    "--choice",
    "choices",
    multiple=True,
    metavar="KEY=VALUE ...",
    help="Settings that differ in one run, with blanks between them. May be given several times.",
)
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True, help="Of every run.")
@click.option("--learning-rate", default=5e-4, show_default=True)
@device_option
@runs_option
def main(
    checkpoint: Path,
    cache: Path,
    workers: int,
    validation_songs: tuple[str, ...],
    config_file: Path | None,
    choices: tuple[str, ...],
    steps: int,
    learning_rate: float,
    device: str,
    out: Path,
    sources: DataSources,
) -> None:
    """Train from CHECKPOINT with the settings as given, then with each --choice, and compare."""
    try:
        start = load_checkpoint(checkpoint)
        training = (Config.from_toml(config_file) if config_file else start.config).training
        training = replace(training, steps=steps, learning_rate=learning_rate)
        configs = _configs(start, training, choices)
        features = FeatureCache.of(cache, start.config)
        corpus = prepare(sources.corpus(features, workers), features, workers)
        held_out = DataSources(validation_songs, arrangements=sources.arrangements)
        sets = {
            name: prepare(replace(held_out, degraded=degraded).corpus(features, workers), features, workers)
            for name, degraded in (("played", 0.0), ("degraded", 1.0))
        }
        results = {START: _scores(start, sets, features)}
        for choice, config in configs.items():
            folder = out / re.sub(r"[^\w.=-]+", "-", choice)
            with progress_bar(choice, steps) as bar:
                best = train(
                    config,
                    corpus,
                    features,
                    folder,
                    init=start,
                    device=device,
                    data_workers=workers,
                    report=lambda progress, bar=bar: bar.update(
                        completed=progress.step, note=f"loss {progress.loss:.3f}"
                    ),
                )
            results[choice] = _scores(load_checkpoint(best), sets, features)
            for name, result in results[choice].items():
                click.echo(json.dumps(asdict(worth(choice, name, result, results[AS_GIVEN][name]))))
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    lines = [
        worth(choice, name, result[name], results[AS_GIVEN][name])
        for choice, result in results.items()
        for name in sets
    ]
    table = table_markdown(lines, steps)
    with atomic_write(out / "choices.md") as part:
        part.write_text(table, encoding="utf-8")
    click.echo(table, err=True)


def _scores(checkpoint: Checkpoint, sets: dict[str, Corpus], features: FeatureCache) -> dict[str, Evaluation]:
    known = checkpoint.network, checkpoint.config
    heard = {"note_map": checkpoint.note_map, "chroma_network": checkpoint.chroma_network}
    return {name: validate(*known, corpus, features, **heard) for name, corpus in sets.items()}


if __name__ == "__main__":
    main()
