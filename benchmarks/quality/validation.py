"""MAP on songs and sounds that training has not met: bundles beside a random order and a method without training.

One command, JSON lines on stdout, a table on stderr::

    python -m benchmarks.quality.validation --scores SCORES --cache CACHE --markdown table.md

Sets
----
SCORES is a folder of the folders that `docs/songs.md` names. All notes are played by FluidSynth with TimGM6mb, a sound
font that training never uses.

asap
    Pianists who play the same pieces, three performances of each (ASAP, recorded from their hands as MIDI).
pop909, lieder, cre
    Arrangements of the songs of `held_out.HELD_OUT`.
traditional
    Arrangements of the melodies of this package, but for those that are `held_out.IN_TRAINING`.
sung, where it is named
    The same, the lead of every other track sung by recorded voices, syllables of the folder ``voices``.
recordings
    Five real recordings, each as a file of high and of low bit rate, among all tracks of the other sets of the run.

Protocol
--------
Candidates are the clean tracks of a set, of two minutes at most. Each of them is a query once per condition, changed as
the condition says: cut, degraded, transposed. The query's own track is not among its candidates (removed by identity),
so what is to be found are other performances or arrangements; of the recordings, the file of the other bit rate.
Average precision, ranks and P@10 are those of `bytecover2_milvus.metrics`; P@10 cannot exceed a tenth of the covers
that a query has. Intervals are 95 %, by bootstrap over works; so are those of a system's gain over the
first system that is named, in MAP and query by query.

A bundle with a second stage comes three times: its vector, its alignment alone, and both by the score of its verdict,
similarities normalised by a cohort of clean tracks of the set (`benchmarks.quality.second_stage`). All candidates are
aligned. The four weights of a verdict are fitted to half of these works (`benchmarks.quality.calibration`).

Audio is made once and cached, so that all systems hear the same samples; other code makes other audio.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import (
    SETS,
    SUNG,
    HeldOut,
    Waveform,
    Work,
    cached,
    clean_tracks,
    held_out_options,
    in_processes,
)
from benchmarks.quality.fourier import fourier_embedding
from benchmarks.quality.score import figures
from benchmarks.quality.second_stage import by_scores, judged, similarities, verdict_of
from benchmarks.quality.validation_table import FLOOR, RANDOM, SHIPPED, ConditionScore, markdown
from bytecover2_milvus.alignment.chroma import to_levels
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.audio.degrade import DEGRADATIONS, degrade
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.cpu import usable_cores
from bytecover2_milvus.metrics import Evaluation, evaluate

Embedding: TypeAlias = NDArray[np.float32]  # (D,)


def excerpt(duration_s: float, waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A stretch from anywhere, the whole of a shorter waveform."""
    n_samples = round(duration_s * SAMPLE_RATE)
    start = int(rng.integers(max(1, len(waveform) - n_samples + 1)))
    return waveform[start : start + n_samples]


def _transposed(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """One to five semitones up or down at the same tempo."""
    import librosa

    semitones = int(rng.choice([-1, 1]) * rng.integers(1, 6))
    return librosa.effects.pitch_shift(waveform, sr=SAMPLE_RATE, n_steps=semitones).astype(np.float32)


def _retimed(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A tenth to a quarter slower or faster at the same pitch."""
    import librosa

    rate = float(rng.choice([rng.uniform(0.75, 0.9), rng.uniform(1.1, 1.25)]))
    return librosa.effects.time_stretch(waveform, rate=rate).astype(np.float32)


CONDITIONS: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "whole": lambda waveform, rng: waveform,
    "degraded": degrade,
    "45 s": partial(excerpt, 45.0),
    "20 s": partial(excerpt, 20.0),
    "transposed": _transposed,
    "re-timed": _retimed,
    **DEGRADATIONS,
}
USUAL = ("whole", "degraded", "45 s", "20 s")
CHEAP = ("whole", "45 s", "20 s")  # made faster than read from a file


@dataclass(frozen=True)
class Heard:
    """The embeddings and chroma of one track by all systems."""

    set: str
    work_id: str
    track_id: str
    embeddings: dict[tuple[str, str], Embedding]  # by condition and system
    # (n_frames, channels) of systems with a second stage, likewise
    levels: dict[tuple[str, str], NDArray[np.uint8]] = field(default_factory=dict)


def hear(
    work: Work, conditions: dict[str, tuple[str, ...]], systems: tuple[str, ...], soundfont: Path, folder: Path
) -> list[Heard]:
    """Every track of a work under the conditions of its set, embedded by all systems; none of an unreadable score."""
    heard: list[Heard] = []
    for track_id, clean in clean_tracks(work, soundfont, folder):
        audio = folder / track_id
        embeddings, levels = {}, {}
        for condition in conditions[work.set]:
            change = CONDITIONS[condition]
            make = partial(change, clean, np.random.default_rng(zlib.crc32(f"{track_id} {condition}".encode())))
            waveform = make() if condition in CHEAP else cached(audio / f"{condition}.flac", make)
            for system in systems:
                embeddings[condition, system], chroma = _embed(system, waveform, audio / f"{condition}.npy")
                if chroma is not None:
                    levels[condition, system] = to_levels(chroma)
        heard.append(Heard(work.set, work.work_id, track_id, embeddings, levels))
    return heard


def _embed(system: str, waveform: Waveform, floor: Path) -> tuple[Embedding, NDArray[np.float32] | None]:
    """Embedding and chroma of a waveform; the floor's, which is slow and never changes, is kept in a file."""
    if system != FLOOR:
        return embedder_of(system)(waveform)
    if not floor.exists():
        with atomic_write(floor) as part, part.open("wb") as file:
            np.save(file, fourier_embedding(waveform))
    return np.load(floor), None


@cache
def embedder_of(system: str) -> Callable[[Waveform], tuple[Embedding, NDArray[np.float32] | None]]:
    """A bundle by its folder, "" for the one that ships, or a checkpoint of training by its file."""
    if not system.endswith(".safetensors"):
        from bytecover2_milvus.embedding.embedder import Embedder

        embedder = Embedder(system or None, device="cpu", threads=1)

        def hear_both(waveform: Waveform) -> tuple[Embedding, NDArray[np.float32] | None]:
            heard = embedder.hear(waveform)
            return heard.embedding, heard.chroma

        return hear_both

    import torch

    from bytecover2_milvus.export.fold import InferenceModel
    from bytecover2_milvus.training.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    checkpoint = load_checkpoint(system)
    front_end = checkpoint.config.front_end
    network = InferenceModel(front_end, checkpoint.network, checkpoint.note_map, checkpoint.chroma_network)

    def embed(waveform: Waveform) -> tuple[Embedding, None]:
        copies = -(-front_end.minimum_samples // len(waveform))  # what is short is repeated, as by Embedder
        with torch.inference_mode():
            return network.outputs(torch.from_numpy(np.tile(waveform, copies))[None])[0][0].numpy(), None

    return embed


def score(
    name: str, condition: str, system: str, result: Evaluation, first: Evaluation | None = None
) -> ConditionScore:
    """The score of a system on a set, with its gain over the `first` one if there is one."""
    return ConditionScore(
        set=name,
        condition=condition,
        system=system or SHIPPED,
        precision_at_10=result.precision_at_10,
        candidates=result.tracks - 1,
        **figures(result, first),
    )


def scores_of(name: str, condition: str, systems: Sequence[str], heard: Sequence[Heard]) -> Iterator[ConditionScore]:
    """The scores of all systems on a set under a condition, each followed by those of its second stage."""
    first = None
    for system in systems:
        result = evaluation(name, condition, system, heard)
        yield score(name, condition, system, result, first)
        first = first or result
        if any((condition, system) in track.levels for track in heard if track.set == name):
            for named, staged in second_stage(name, condition, system, heard).items():
                yield score(name, condition, named, staged, first)


def evaluation(name: str, condition: str, system: str, heard: Sequence[Heard]) -> Evaluation:
    """On a set; of the recordings, among the tracks of all other sets that were heard."""
    tracks = [track for track in heard if track.set == name or name == "recordings"]
    asks = [track.set == name for track in tracks]
    work_ids = [track.work_id if ask else "" for track, ask in zip(tracks, asks, strict=True)]
    track_ids = [track.track_id for track in tracks]
    if system == RANDOM:
        clean, queries = (np.random.default_rng(seed).standard_normal((len(tracks), 128)) for seed in (0, 1))
        clean, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (clean, queries))
    else:
        clean = np.stack([track.embeddings["whole", system] for track in tracks])
        queries = np.stack(
            [track.embeddings[condition if ask else "whole", system] for track, ask in zip(tracks, asks, strict=True)]
        )
    return evaluate(clean, work_ids, track_ids, queries)


def second_stage(name: str, condition: str, system: str, heard: Sequence[Heard]) -> dict[str, Evaluation]:
    """On a set, by name of the system: alignment alone, and with the vector."""
    tracks = [track for track in heard if track.set == name or name == "recordings"]
    own = [condition if track.set == name else "whole" for track in tracks]
    clean, asked = (
        [track.levels[how, system] for track, how in zip(tracks, hows, strict=True)]
        for hows in (["whole"] * len(tracks), own)
    )
    vectors = np.stack([track.embeddings["whole", system] for track in tracks])
    queries = np.stack([track.embeddings[how, system] for track, how in zip(tracks, own, strict=True)])
    among = similarities(vectors, clean, vectors, clean)
    asked_for = among if condition == "whole" else similarities(queries, asked, vectors, clean)
    track_ids = [track.track_id for track in tracks]
    frames = np.minimum.outer([len(levels) for levels in asked], [len(levels) for levels in clean])
    alone, both = judged(asked_for, among, frames, track_ids, verdict_of(system))
    work_ids = [track.work_id if track.set == name else "" for track in tracks]
    shown = system or SHIPPED
    return {
        f"{shown}, {name}": evaluate(vectors, work_ids, track_ids, judge=by_scores(scores, track_ids))
        for name, scores in (("alignment", alone), ("both", both))
    }


def validate(
    held_out: HeldOut, conditions: dict[str, tuple[str, ...]], systems: tuple[str, ...], workers: int
) -> list[ConditionScore]:
    """The scores of random and of `systems` on every set and condition."""
    works, audio = held_out.works(), {"soundfont": held_out.soundfont, "folder": held_out.folder}
    job = partial(hear, conditions=conditions, systems=systems, **audio)
    heard = [track for tracks in in_processes(job, works, workers) for track in tracks]
    scores = []
    for name in dict.fromkeys(work.set for work in works):
        scores.append(score(name, "whole", RANDOM, evaluation(name, "whole", RANDOM, heard)))
        for condition in conditions[name]:
            scores += scores_of(name, condition, systems, heard)
    return scores


def publish(scores: Sequence[Any], table: str, path: Path | None) -> None:
    """Each score, a dataclass, as a line of JSON on stdout; the table on stderr, and in the file that is asked for."""
    for row in scores:
        click.echo(json.dumps(asdict(row)))
    click.echo(table, err=True)
    if path:
        with atomic_write(path) as part:
            part.write_text(table, encoding="utf-8")


@click.command()
@held_out_options(least_works=1, sets=SETS, of=(*SETS, SUNG))
@click.option("--bundle", "bundles", multiple=True, help="Exported model; the default is the one that ships.")
@click.option("--checkpoint", "checkpoints", multiple=True, help="Checkpoint of training, as .safetensors.")
@click.option("--floor", is_flag=True, help="Also the untrained floor; a second per track the first time.")
@click.option(
    "--conditions",
    "chosen",
    multiple=True,
    type=click.Choice(list(CONDITIONS)),
    help=f"By default {', '.join(USUAL)}; of the recordings all.",
)
@click.option("--quick", is_flag=True, help="10 works of 2 tracks.")
@click.option("--markdown", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to a file.")
@click.option("--workers", type=click.IntRange(1), default=usable_cores(), show_default="all cores")
def main(
    held_out: HeldOut,
    bundles: tuple[str, ...],
    checkpoints: tuple[str, ...],
    floor: bool,
    chosen: tuple[str, ...],
    quick: bool,
    table: Path | None,
    workers: int,
) -> None:
    """Score random, the floor, bundles and checkpoints on songs, performances and sounds that training has not met."""
    if quick:
        held_out = replace(held_out, n_works=10, n_tracks=2)
    usual = dict.fromkeys((*SETS, SUNG), USUAL) | {"recordings": tuple(CONDITIONS)}
    conditions = {name: tuple(dict.fromkeys(("whole", *chosen))) if chosen else usual[name] for name in held_out.names}
    systems = (*(bundles or (() if checkpoints else ("",))), *checkpoints, *((FLOOR,) if floor else ()))
    scores = validate(held_out, conditions, systems, workers)
    publish(scores, markdown(scores), table)


if __name__ == "__main__":
    main()
