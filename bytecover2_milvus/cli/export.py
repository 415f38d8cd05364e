"""``export``: from a checkpoint to the bundle that is handed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import SILENCES
from ..errors import BundleError, ConfigError
from ..options import cache_option, workers_option
from ..terminal import say

if TYPE_CHECKING:
    from ..alignment.verdict import Verdict
    from ..config import FrontEnd
    from ..embedding.bundle import Bundle
    from ..export.quantize import CalibrationSet

CALIBRATION, VALIDATION = "composed@0-16", "traditional"  # the latter, but for one of the lieder, never trained on


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--fact", "facts", multiple=True, metavar="NAME=TEXT", help="A row of the model card, e.g. Limits=...")
@click.option(
    "--checkpoint/--no-checkpoint",
    "with_checkpoint",
    default=True,
    show_default=True,
    help="Put the weights to train on from into the bundle; without them it is half the size.",
)
@click.option(
    "--note-map",
    type=click.Path(path_type=Path),
    help='Checkpoint of phase "notes" whose note map gives the bundle its second stage; by default that of CHECKPOINT.',
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="File that python -m benchmarks.quality.calibration wrote for this note map, which makes probabilities of "
    "scores. Of a bundle that keeps its note map, its own is kept.",
)
@click.option(
    "--silence",
    type=click.Choice(SILENCES),
    help="Embed the silence at both ends of a recording, or skip it; by default as CHECKPOINT does.",
)
@click.option("--cqt", is_flag=True, help="Add model_cqt.onnx, for those who have the pooled CQT already.")
@click.option(
    "--int8", is_flag=True, help="Quantise the backbone to int8; refused if that costs more than 0.005 of MAP."
)
@click.option(
    "--songs",
    multiple=True,
    metavar="SONGS",
    help=f"Songs to calibrate int8 on, as train names them; by default {CALIBRATION}. May be given several times.",
)
@click.option(
    "--validation-songs",
    multiple=True,
    metavar="SONGS",
    help=f"Songs to judge int8 by; by default {VALIDATION}. May be given several times.",
)
@cache_option
@workers_option
def export(
    checkpoint: Path,
    out: Path,
    facts: tuple[str, ...],
    with_checkpoint: bool,
    note_map: Path | None,
    calibration: Path | None,
    silence: str | None,
    cqt: bool,
    int8: bool,
    songs: tuple[str, ...],
    validation_songs: tuple[str, ...],
    cache: Path,
    workers: int,
) -> None:
    """Write the ONNX bundle of a checkpoint: waveform in, unit embedding out, and chroma if it has a note map.

    CHECKPOINT may be a bundle that carries one, whose model_id stays, except with --int8 or another --silence. The
    exported graph is compared with the network at several lengths and batch sizes; where they differ, nothing is
    written.

    \b
    Example:
      bytecover2-milvus export runs/joint/best.safetensors --out bundles/mine
      bytecover2-milvus export bundles/mine --int8 --out bundles/mine-int8
      bytecover2-milvus export bundles/mine --note-map runs/notes/best.safetensors --out bundles/with-second-stage
    """
    from ..embedding.bundle import open_bundle
    from ..embedding.onnx_file import OnnxFile
    from ..export.exporter import check_possible, write_bundle
    from ..training.checkpoint import load_checkpoint

    for fact in facts:
        if "=" not in fact:
            raise click.UsageError(f"--fact {fact}: give NAME=TEXT")
    if int8 and cqt:
        raise click.UsageError("--int8 and --cqt: model_cqt.onnx comes in float only")
    if (songs or validation_songs) and not int8:
        raise click.UsageError("--songs and --validation-songs are for --int8")
    named = dict(fact.partition("=")[::2] for fact in facts)
    loaded = load_checkpoint(checkpoint)
    folded = None
    verdict = None
    if checkpoint.is_dir():
        bundle = open_bundle(checkpoint)
        verdict = None if note_map else bundle.calibration
        model = OnnxFile.read(bundle.model)
        folded = model.weights if note_map else model.weights | model.note_weights
    notes = load_checkpoint(note_map) if note_map else loaded
    if note_map and notes.note_map is None:
        raise ConfigError(f'{note_map}: has no note map; train one with training.phase="notes"')
    if note_map and (loaded.config.network.maps or loaded.config.network.joins):
        raise ConfigError(f"{checkpoint}: its network takes the maps of its own note map: export it without --note-map")
    if calibration:
        if notes.note_map is None:
            raise ConfigError(f"{calibration}: calibrates a second stage, but {checkpoint} has no note map")
        verdict = _verdict(calibration)
    material = None
    if int8:
        check_possible(out.absolute(), folded)
        chosen = songs or (CALIBRATION,), validation_songs or (VALIDATION,)
        material = _render(*chosen, loaded.config.front_end, cache, workers)
    front_end = replace(loaded.config.front_end, silence=silence or loaded.config.front_end.silence)
    bundle = write_bundle(
        replace(loaded.config, front_end=front_end, notes=notes.config.notes),
        loaded.network,
        out,
        facts=loaded.facts | named,
        note_map=notes.note_map,
        chroma_network=loaded.chroma_network,
        verdict=verdict,
        checkpoint=with_checkpoint,
        cqt=cqt,
        int8=material,
        folded=folded,
    )
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    say(f"{bundle.path}: model {bundle.contract.model_id}, {size / 1e6:.1f} MB")
    if lack := _what_the_second_stage_lacks(bundle):
        say(f"warning: {bundle.path}: no second stage, query will rank by the vector alone: {lack}")


def _verdict(calibration: Path) -> Verdict:
    """The verdict in a file of `benchmarks.quality.calibration`.

    Raises
    ------
    BundleError
        If it cannot be read, or is of another version of the alignment.
    """
    from ..alignment.qmax import ALIGNMENT
    from ..config import CHROMA_GROUPS
    from ..embedding.bundle import read_calibration

    verdict = read_calibration(calibration, CHROMA_GROUPS)
    if verdict.alignment != ALIGNMENT:
        raise BundleError(
            f"{calibration}: of version {verdict.alignment} of the alignment, not {ALIGNMENT}; make it anew"
        )
    return verdict


def _what_the_second_stage_lacks(bundle: Bundle) -> str:
    """The part that a bundle lacks to have a second stage, and the way to get it, in words; "" where it has one."""
    if bundle.contract.chroma is None:
        return 'it has no note map; export again with --note-map, a checkpoint of training.phase="notes"'
    if bundle.calibration is None:
        return (
            "it has a note map but no calibration.json; export again with --calibration, or fit one with "
            f"python -m benchmarks.quality.calibration --scores SCORES --bundle {bundle.path} --write"
        )
    return ""


def _render(
    songs: tuple[str, ...], validation_songs: tuple[str, ...], front_end: FrontEnd, cache: Path, workers: int
) -> CalibrationSet:
    """The tracks for int8: two of each song to calibrate on, four of each to judge by."""
    from ..export.quantize import CalibrationSet
    from ..training.data.feature_cache import FeatureCache
    from ..training.data.sources import DataSources
    from ..training.run import prepare

    features = FeatureCache(cache, front_end)
    calibrating, judging = (
        prepare(material.corpus(features, workers), features, workers)
        for material in (DataSources(songs, arrangements=2), DataSources(validation_songs, arrangements=4))
    )
    return CalibrationSet.of(
        calibrating,
        judging,
        features,
        ", ".join(Path(spec).name for spec in validation_songs),
    )
