"""The comparison of systems of the ByteCover2 paper, Tables 1 and 2 in one, trained and measured on this machine.

One command, JSON lines on stdout; table, figures and weights in ``--out``::

    python -m benchmarks.quality.table1 --songs composed@0-400 --scores SCORES --out runs/table1

Systems are those of `benchmarks.systems`: their files say what the papers fix and what was chosen. All learn from the
same songs, and see the same batches, as many samples each. The budget ``small`` has a quarter of the published
channels, ``gpu`` all. What is trained is kept, and the same command goes on where it was cut off.

Protocol
--------
The clean tracks of each held-out set (`benchmarks.quality.validation`), and of each ``--manifest``, with the queries
and the gallery that its column ``role`` names, are ranked by each system alone, exactly. No second stage takes part,
and alignments are not normalised by a cohort. Intervals are 95 %, by bootstrap over works; the gain is over the first
system, query by query.

Times are of the processor, of all threads together, as if on one core: *preprocess* is from the waveform of the first
45 s of a track to its CQT, *inference* from there to what is stored, *retrieval* the scores of one query for all
tracks of the set. Medians of ten tracks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOut, held_out_options
from benchmarks.quality.score import figures
from benchmarks.systems.system import FRONT_END, Learned, System, magnitude_of
from benchmarks.systems.trained import NAMES, Budget, Trained
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.bundle import default_bundle
from bytecover2_milvus.errors import AudioError, BytecoverError
from bytecover2_milvus.manifest import read_manifest
from bytecover2_milvus.metrics import Evaluation, evaluate
from bytecover2_milvus.options import device_option
from bytecover2_milvus.terminal import say
from bytecover2_milvus.training.checkpoint import load_checkpoint
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.sources import DataSources
from bytecover2_milvus.training.distributed import torch_device
from bytecover2_milvus.training.run import prepare

BUDGETS = {
    "small": Budget(share=0.25, samples=12_800, works_per_batch=8, crop_s=(90.0,)),
    "gpu": Budget(share=1.0, samples=1_280_000),
}
CLIP_S = 45.0
TIMED = 10  # tracks
_MARKERS = "os^vD<>Pp*X"  # of the systems in the plot


@dataclass(frozen=True)
class HeardTrack:
    """A track of a set, as all systems begin with it."""

    track_id: str
    work_id: str
    role: str
    magnitude: NDArray[np.float16]  # (n_bins, T)


@dataclass(frozen=True)
class Row:
    """A system on a set."""

    system: str
    set: str
    dimensions: int | None  # None of a time series
    bytes_per_track: int
    parameters: int  # that learn
    samples: int  # that it saw
    queries: int
    tracks: int
    map: float
    map_low: float
    map_high: float
    mr1: float
    mr1_low: float
    mr1_high: float
    inference_ms: float
    retrieval_ms: float
    preprocess_ms: float
    gain: float | None = None  # in MAP, over the first system
    gain_low: float | None = None
    gain_high: float | None = None


def sets_of(held_out: HeldOut, manifests: Sequence[str]) -> Iterator[tuple[str, list[HeardTrack], float]]:
    """Name, tracks and milliseconds of preprocessing of each set; a file that cannot be read is left out and told."""
    for name in held_out.names:
        waves = ((one, "") for work in held_out.works_of(name) for one in held_out.recordings(work))
        yield name, *_heard((one.track_id, one.work_id, role, one.waveform) for one, role in waves)
    for manifest in manifests:
        yield manifest, *_heard(_of_manifest(manifest))


def _of_manifest(manifest: str) -> Iterator[tuple[str, str, str, NDArray[np.float32]]]:
    for track in read_manifest(manifest):
        try:
            yield track.track_id, track.work_id or "", track.role, load_audio(track.path)
        except AudioError as error:
            say(f"left out: {error}")


def _heard(tracks: Iterator[tuple[str, str, str, NDArray[np.float32]]]) -> tuple[list[HeardTrack], float]:
    heard, taken = [], []
    for track_id, work_id, role, waveform in tracks:
        if len(taken) < TIMED:
            taken.append(_ms(magnitude_of, waveform[: round(CLIP_S * SAMPLE_RATE)])[1])
        heard.append(HeardTrack(track_id, work_id, role, magnitude_of(waveform).astype(np.float16)))
    return heard, float(np.median(taken)) if taken else 0.0


def _ms(function: Any, *arguments: Any) -> tuple[Any, float]:
    """A result, and the milliseconds of processor that it took."""
    start = time.process_time()
    result = function(*arguments)
    return result, 1000 * (time.process_time() - start)


def measure(system: System, tracks: Sequence[HeardTrack]) -> tuple[Evaluation, dict[str, Any]]:
    """The metrics of a system on a set, and the fields of its `Row` that say what it costs."""
    stored = [system.hear(track.magnitude) for track in tracks]
    clip = round(CLIP_S / FRONT_END.frame_s)
    timed = tracks[:TIMED]
    inference = [_ms(system.hear, track.magnitude[:, :clip])[1] for track in timed]
    catalogue = np.stack(stored) if isinstance(system, Learned) else stored
    scores, retrieval = [], []
    for representation in stored:
        row, taken = _ms(system.scores, representation, catalogue)
        scores.append(row)
        retrieval.append(taken)
    cost = {
        "dimensions": system.dim if isinstance(system, Learned) else None,
        "bytes_per_track": round(np.mean([one.nbytes for one in stored])),
        "parameters": system.size() if isinstance(system, Learned) else 0,
        "inference_ms": float(np.median(inference)),
        "retrieval_ms": float(np.median(retrieval)),
    }
    return ranked(np.stack(scores), tracks), cost


def ranked(scores: NDArray[np.floating], tracks: Sequence[HeardTrack]) -> Evaluation:
    """The metrics of scores (n_tracks, n_tracks), each row those of a query."""
    place = {track.track_id: row for row, track in enumerate(tracks)}

    def judge(
        query: int, similarity: NDArray[np.floating], track_ids: NDArray[np.str_], work_ids: NDArray[np.str_]
    ) -> NDArray[np.floating]:
        rows = [place[str(name)] for name in track_ids]
        return np.where(np.isneginf(similarity), -np.inf, scores[rows[query], rows])

    unit = np.ones((len(tracks), 1))
    ids, works = [track.track_id for track in tracks], [track.work_id for track in tracks]
    return evaluate(unit, works, ids, judge=judge, roles=[track.role for track in tracks])


def markdown(rows: Sequence[Row], share: float) -> str:
    """The table, a part for each set."""
    samples = max(row.samples for row in rows)
    text = [f"{samples} samples each, {share:g} of the published channels. Times: milliseconds of one core."]
    for name in dict.fromkeys(row.set for row in rows):
        of_set = [row for row in rows if row.set == name]
        text += [
            "",
            f"**{name}**: {of_set[0].queries} queries, {of_set[0].tracks} tracks",
            "",
            "| system | dimensions | bytes per track | MAP | MR1 | gain | preprocess | inference | retrieval |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in of_set:
            gain = "" if row.gain is None else f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"
            text.append(
                f"| {row.system} | {row.dimensions or 'time series'} | {row.bytes_per_track} "
                f"| {row.map:.3f} [{row.map_low:.3f}, {row.map_high:.3f}] | {row.mr1:.2f} | {gain} "
                f"| {row.preprocess_ms:.0f} | {row.inference_ms:.1f} | {row.retrieval_ms:.2f} |"
            )
    return "\n".join(text) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """MAP over bytes per track, a panel for each set."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.set for row in rows))
    systems = list(dict.fromkeys(row.system for row in rows))
    n_columns = min(2, len(names))
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(5 * n_columns, 3.5 * n_rows + 1), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for row in (row for row in rows if row.set == name):
            number = systems.index(row.system)
            error = np.maximum([[row.map - row.map_low], [row.map_high - row.map]], 0)
            style = {"fmt": _MARKERS[number % len(_MARKERS)], "color": f"C{number % 10}", "label": row.system}
            axes.errorbar(row.bytes_per_track, row.map, error, capsize=3, **style)
        axes.set(xscale="log", xlabel="bytes per track", ylabel="MAP", ylim=(0, 1.02), title=Path(name).name)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=120)


def _same_run(out: Path, facts: dict[str, Any]) -> None:
    """Write down what a folder's weights are trained on, and refuse a folder of others.

    Raises
    ------
    click.ClickException
    """
    path, text = out / "run.json", json.dumps(facts, indent=1, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise click.ClickException(f"{path}: trained by another budget or on other songs; give another --out")
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


@click.command()
@held_out_options(required=False, sets=("traditional",))
@click.option(
    "--songs", multiple=True, required=True, metavar="SONGS", help="Songs to learn from, as train takes them."
)
@click.option("--arrangements", type=click.IntRange(2), default=4, show_default=True, help="Tracks of each song.")
@click.option("--spectral", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Share that is drawn.")
@click.option("--manifest", "manifests", multiple=True, help="Recordings to evaluate on as well, FILE or FILE@SPLIT.")
@click.option("--system", "asked", multiple=True, type=click.Choice(NAMES), default=NAMES, help="By default all.")
@click.option("--budget", type=click.Choice(list(BUDGETS)), default="small", show_default=True)
@click.option("--samples", type=click.IntRange(1), help="That each system sees, in place of the budget's.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), help="Of the published channels, likewise.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes that prepare tracks.")
@device_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the results.")
def main(
    held_out: HeldOut,
    songs: tuple[str, ...],
    arrangements: int,
    spectral: float,
    manifests: tuple[str, ...],
    asked: tuple[str, ...],
    budget: str,
    samples: int | None,
    share: float | None,
    workers: int,
    device: str,
    out: Path,
) -> None:
    """Train the systems of the field on the same songs, and rank held-out covers by each."""
    given = {"samples": samples, "share": share}
    chosen = replace(BUDGETS[budget], **{name: value for name, value in given.items() if value})
    try:
        for manifest in manifests:
            read_manifest(manifest)
        _same_run(out, asdict(chosen) | {"songs": songs, "arrangements": arrangements, "spectral": spectral})
        features = FeatureCache(held_out.folder.parent / "cqt", FRONT_END, FRONT_END.time_pooling)
        corpus = DataSources(songs, arrangements=arrangements, spectral=spectral).corpus(features, workers)
        corpus = prepare(corpus, features, workers)
        note_map = load_checkpoint(default_bundle() / "checkpoint.safetensors").note_map
        assert note_map is not None
        trained = Trained(chosen, corpus, features, note_map, out / "systems", torch_device(device), say)
        systems = {name: trained.system(name) for name in dict.fromkeys(asked)}
        for system in systems.values():
            if isinstance(system, Learned):
                system.cpu()
        rows = []
        for name, tracks, preprocess_ms in sets_of(held_out, manifests):
            first = None
            for shown, system in systems.items():
                result, cost = measure(system, tracks)
                seen = trained.samples if isinstance(system, Learned) else 0
                known = {"system": shown, "set": name, "samples": seen, "tracks": result.tracks, **cost}
                found = figures(result, first)
                kept = {field.name for field in fields(Row)}
                row = Row(preprocess_ms=preprocess_ms, **known, **{key: found[key] for key in found.keys() & kept})
                click.echo(json.dumps(asdict(row)))
                rows.append(row)
                first = first or result
    except (BytecoverError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    table = markdown(rows, chosen.share)
    for path, text in (("table1.md", table), ("table1.json", json.dumps([asdict(row) for row in rows], indent=1))):
        with atomic_write(out / path) as part:
            part.write_text(text, encoding="utf-8")
    draw(rows, out / "table1.png")
    click.echo(table, err=True)


if __name__ == "__main__":
    main()
