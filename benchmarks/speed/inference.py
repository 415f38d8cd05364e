"""The cost of a minute of audio in the network: by graph, by time pooling, by length and by batch, on one thread.

graphs
    A clip of 45 seconds, batch 1: PyTorch eager (front end and network as trained), the bundle's graph in float, and
    the int8 bundle, if one is given; and of each, what follows the front end alone.
lengths
    Milliseconds per minute of audio of the float graph, for other time poolings (the network has not been trained for
    them, which takes no time), lengths and batches of equal length; the input is noise.

Ways take turns, and each figure is the least of all turns in processor time, so that a busy machine changes it little;
``s`` is by the clock. Prints JSON lines on stdout and a table on stderr. Run from the repository::

    python -m bytecover2_milvus export BUNDLE --int8 --out int8
    taskset --cpu-list 0 python -m benchmarks.speed.inference --bundle BUNDLE --int8 int8
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.speed.as_trained import PooledCQT, as_trained
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle
from bytecover2_milvus.embedding.contract import INPUT, OUTPUT
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.export.fold import InferenceModel
from bytecover2_milvus.export.graph import export_onnx
from bytecover2_milvus.export.parity import melody, reference_session
from bytecover2_milvus.export.quantize import network_part
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint

CLIP_S = 45
POOLINGS = (20, 40, 100)
SHAPES = ((20, 1), (20, 8), (60, 1), (60, 6), (240, 1), (1200, 1))  # seconds, batch

Way = Callable[[], object]


def take_turns(ways: Mapping[str, Way], seconds: float) -> dict[str, dict[str, float]]:
    """The least seconds of each way, by the clock and of the processor."""
    least = {name: {"s": np.inf, "cpu_s": np.inf} for name in ways}
    for way in ways.values():
        way()  # memory is taken once
    end = time.perf_counter() + seconds
    while True:  # one turn at least, however busy the machine is
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            spent = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            least[name] = {kind: min(least[name][kind], spent[kind]) for kind in spent}
        if time.perf_counter() >= end:
            return least


def of_graph(model: bytes, waveforms: np.ndarray) -> Way:
    session = reference_session(model)
    return lambda: session.run([OUTPUT], {INPUT: waveforms})


def of_part(model: bytes, cqt: np.ndarray) -> Way:
    session = reference_session(network_part(onnx.load_from_string(model)).SerializeToString())
    return lambda: session.run(None, {session.get_inputs()[0].name: cqt})


def graphs(checkpoint: Checkpoint, models: Mapping[str, bytes]) -> dict[str, Way]:
    """The ways of embedding a clip."""
    embed = as_trained(checkpoint)
    front_end = PooledCQT(replace(checkpoint.config.front_end, time_pooling=embed.pooling))
    waveform = melody(CLIP_S * SAMPLE_RATE, seed=0)[None]
    tensor = torch.from_numpy(waveform)

    @torch.inference_mode()
    def eager() -> torch.Tensor:
        return embed(front_end(tensor))

    with torch.inference_mode():
        magnitude = front_end(tensor)

    @torch.inference_mode()
    def eager_part() -> torch.Tensor:
        return embed(magnitude)

    ways: dict[str, Way] = {"PyTorch eager": eager, "PyTorch eager, without front end": eager_part}
    for name, model in models.items():
        ways[name] = of_graph(model, waveform)
        if not checkpoint.config.network.joins:
            ways[f"{name}, without front end"] = of_part(model, magnitude.numpy())
    return ways


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="With its checkpoint; by default the one that ships.")
@click.option("--int8", type=click.Path(path_type=Path), help="Its int8 form.")
@click.option("--seconds", default=20.0, show_default=True, help="Length of each comparison.")
def main(bundle: Path | None, int8: Path | None, seconds: float) -> None:
    """Measure the network by graph, pooling, length and batch."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    onnxruntime.set_default_logger_severity(3)
    try:
        opened = open_bundle(bundle or default_bundle())
        checkpoint = load_checkpoint(opened.path)
        models = {"float": opened.model.read_bytes()}
        if int8:
            models["int8"] = open_bundle(int8).model.read_bytes()
        least = take_turns(graphs(checkpoint, models), seconds)
        click.echo(json.dumps({"what": "graphs", "clip_s": CLIP_S, **least}))
        table = [f"{'a clip of 45 s, batch 1':34} {'ms':>7} {'cpu ms':>7}"]
        table += [f"{way:34} {1e3 * of['s']:7.1f} {1e3 * of['cpu_s']:7.1f}" for way, of in least.items()]

        table.append(f"{'ms of processor per minute':34} " + " ".join(f"{s:>5} s x {batch}" for s, batch in SHAPES))
        for pooling in POOLINGS:
            front_end = replace(checkpoint.config.front_end, time_pooling=pooling)
            parts = checkpoint.network, checkpoint.note_map, checkpoint.chroma_network
            model = export_onnx(InferenceModel(front_end, *parts), {})
            ways = {
                f"{s} s x {batch}": of_graph(model, rng.random((batch, s * SAMPLE_RATE), np.float32) - 0.5)
                for s, batch in SHAPES
            }
            least = take_turns(ways, seconds)
            per_minute = {
                name: {kind: spent * 60 / (s * batch) for kind, spent in least[name].items()}
                for name, (s, batch) in zip(ways, SHAPES, strict=True)
            }
            click.echo(json.dumps({"what": "lengths", "time_pooling": pooling, "per_minute": per_minute}))
            cells = " ".join(f"{1e3 * of['cpu_s']:>9.1f}" for of in per_minute.values())
            table.append(f"time_pooling {pooling:3} ({front_end.frame_s:.2f} s)".ljust(35) + cells)
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(table), err=True)


if __name__ == "__main__":
    main()
