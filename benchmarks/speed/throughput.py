"""The speed of training, its share of the hardware's peak, and where the rest of the time goes.

Measured one after the other, in one run with the same threads:

peak
    A large matrix product, and as a convolution, in the precision of the training: what the hardware gives at best.
training
    Forward, loss, backward and step on random input, whose FLOPs are counted: a multiplication and an addition are two.
    ``share_of_peak`` is the product of two causes: ``matrix_time_share``, the share of a step's time that is spent in
    convolutions and matrix products, and ``matrix_share_of_peak``, what those reach while they run. The rest of the
    time is in ``other_time_shares``, by operation, and ``idle_share``, in which a GPU waits for this process.
batches
    Augmented batches from a warm cache, one process.
tracks
    A song arranged, its CQT in the cache; one process. Played: rendered to a waveform and heard by the front end.
    Drawn: straight to the CQT, with a tone bank that is there already.

``batches_per_sample`` and ``tracks_per_sample`` (drawn) say what ``--workers`` such processes make for every sample
that training takes. At 1 or more it never waits; on a CPU both share the cores. A track is heard many times, in other
keys, tempi and excerpts: ``hearings_to_keep_up`` is how often it has to be for rendering not to starve training. Prints
one JSON object per configuration and precision on stdout and a table on stderr. Run from the repository::

    python -m benchmarks.speed.throughput --config recipes/bytecover2-128.toml --config paper
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import click
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import processor
from bytecover2_milvus.config import PRECISIONS, Config, Network
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.options import cache_option, device_option, several_of
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.data.batches import TrainingBatches
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.rendering import Rendering
from bytecover2_milvus.training.distributed import torch_device
from bytecover2_milvus.training.precision import Step

PAPER = Config(network=Network(feature_dim=None))
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}  # of the product that measures the peak
MATRIX_OPERATIONS = ("conv", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn_linear")
OTHERS = 8  # operations that are named
HEADER = (
    f"{'configuration':32} {'precision':10} {'samples/s':>9} {'of peak':>7} = {'in matrices':>11} x {'their rate':>10} "
    f"{'batched/s':>9} {'drawn/s':>8} {'hearings':>8}"
)


@dataclass(frozen=True)
class TrainingSpeed:
    """Rates are per second."""

    precision: str
    peak_flops: float
    batch: int  # samples
    frames: int  # of a sample at the network's input
    sample_flops: float  # forward and backward
    samples_per_s: float
    share_of_peak: float
    matrix_time_share: float
    matrix_share_of_peak: float
    other_time_shares: dict[str, float]
    idle_share: float


@dataclass(frozen=True)
class PreparationSpeed:
    """Rates per second of one process with one thread."""

    played_tracks_per_s: float
    drawn_tracks_per_s: float
    batches_samples_per_s: float

    def against(self, training: TrainingSpeed, workers: int) -> dict[str, float]:
        """The samples that `workers` processes make for every sample that training takes."""
        return {
            "batches_per_sample": workers * self.batches_samples_per_s / training.samples_per_s,
            "tracks_per_sample": workers * self.drawn_tracks_per_s / training.samples_per_s,
            "hearings_to_keep_up": training.samples_per_s / (workers * self.drawn_tracks_per_s),
        }


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOPs per second of a large square matrix product, or of the 1 x 1 convolution that equals it: the best of 12.

    The two are often not of one library, and which is faster depends on the processor.
    """
    side = MATRIX_SIDE[device.type]
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    one, other = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    image = one.T.reshape(1, side, 32, side // 32).contiguous(memory_format=torch.channels_last)
    kernels = other[:, :, None, None]

    def product() -> None:
        one @ other
        _wait(device)

    def convolution() -> None:
        F.conv2d(image, kernels)
        _wait(device)

    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # what the convolutions may do
    try:
        return 2 * side**3 / min(_seconds(way) for way in (product, convolution) for _ in range(6))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


def step_flops(step: Step) -> int:
    """FLOPs of the convolutions and matrix products of one step, which is all but all of them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def time_shares(step: Step) -> tuple[dict[str, float], float]:
    """The share of a step's time by operation, largest first, and the share in which a GPU was idle."""
    on_gpu = step.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        wall_s = _seconds(step)
    kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    used_s = {row.key: getattr(row, kind) / 1e6 for row in profiler.key_averages() if row.key.startswith("aten::")}
    idle = max(0.0, 1 - sum(used_s.values()) / wall_s) if on_gpu else 0.0
    scale = (1 - idle) / sum(used_s.values())
    return {name: used * scale for name, used in sorted(used_s.items(), key=lambda item: -item[1])}, idle


def measure_training(config: Config, device: torch.device, seconds: float) -> TrainingSpeed:
    """Peak and training, the latter for `seconds`."""
    peak = peak_flops(device, config.training.precision)
    step = Step(config, device)
    flops = step_flops(step)
    step()
    durations = [_seconds(step)]
    while sum(durations) < seconds:
        durations.append(_seconds(step))
    share = flops / median(durations) / peak
    shares, idle = time_shares(step)
    in_matrices = {name: part for name, part in shares.items() if any(word in name for word in MATRIX_OPERATIONS)}
    others = [(name.removeprefix("aten::"), part) for name, part in shares.items() if name not in in_matrices]
    return TrainingSpeed(
        precision=config.training.precision,
        peak_flops=peak,
        batch=len(step.work),
        frames=step.frames,
        sample_flops=flops / len(step.work),
        samples_per_s=len(step.work) / median(durations),
        share_of_peak=share,
        matrix_time_share=sum(in_matrices.values()),
        matrix_share_of_peak=share / sum(in_matrices.values()),
        other_time_shares=dict(others[:OTHERS]),
        idle_share=idle,
    )


def measure_preparation(config: Config, songs: int, arrangements: int, seconds: float, tones: Path) -> PreparationSpeed:
    """Tracks of composed songs played, then drawn with the tone bank in `tones`, then batches of them for `seconds`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that prepare
    try:
        with tempfile.TemporaryDirectory() as folder:
            cache, ways = FeatureCache(folder, config.front_end), [Rendering(), Rendering(1.0, folder=tones)]
            ways[1].cqt(compose(songs), 0, config.front_end, cache.pooling)  # measures the bank, if it has to
            rates = []
            for way in ways:
                corpus = Corpus.of_songs(map(compose, range(songs)), arrangements, way)
                track_s = sum(_seconds(partial(cache.load, track)) for _, track in corpus.tracks())
                rates.append(corpus.n_tracks / track_s)
            batches, samples, start = TrainingBatches(corpus, cache, config.training), 0, time.perf_counter()
            for step in itertools.count():
                samples += len(batches[step][1])
                if (batches_s := time.perf_counter() - start) >= seconds:
                    break
    finally:
        torch.set_num_threads(threads)
    return PreparationSpeed(*rates, samples / batches_s)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@click.command()
@click.option(
    "--config",
    "configs",
    multiple=True,
    default=["paper"],
    show_default=True,
    metavar="paper|TOML",
    help="Configuration to train with. May be given several times.",
)
@several_of("--precision", "precisions", PRECISIONS)
@click.option("--songs", type=click.IntRange(2), default=6, show_default=True, help="Songs to arrange.")
@click.option("--arrangements", type=click.IntRange(2), default=2, show_default=True, help="Tracks made of each song.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Processes that prepare; what one of them does is multiplied by it.",
)
@click.option("--threads", type=click.IntRange(1), help="Of torch; the default is torch's own.")
@click.option("--seconds", default=10.0, show_default=True, help="Length of each of the two measurements.")
@cache_option
@device_option
def main(
    configs: tuple[str, ...],
    precisions: tuple[str, ...],
    songs: int,
    arrangements: int,
    workers: int,
    threads: int | None,
    seconds: float,
    cache: Path,
    device: str,
) -> None:
    """Measure training, the batches and the songs it needs, and the hardware's peak."""
    if threads:
        torch.set_num_threads(threads)
    try:
        chosen = torch_device(device)
        hardware = {"device": _name(chosen), "threads": torch.get_num_threads(), "workers": workers}
        table = [HEADER]
        for name in configs:
            config = PAPER if name == "paper" else Config.from_toml(name)
            prepared = measure_preparation(config, songs, arrangements, seconds, cache)
            for precision in precisions:
                at = replace(config, training=replace(config.training, precision=precision))
                trained = measure_training(at, chosen, seconds)
                ratios = prepared.against(trained, workers)
                table.append(
                    f"{name[-32:]:32} {precision:10} {trained.samples_per_s:9.1f} {trained.share_of_peak:7.1%} = "
                    f"{trained.matrix_time_share:11.1%} x {trained.matrix_share_of_peak:10.1%} "
                    f"{prepared.batches_samples_per_s:9.0f} {prepared.drawn_tracks_per_s:8.2f} "
                    f"{ratios['hearings_to_keep_up']:8.1f}"
                )
                click.echo(json.dumps({"config": name} | hardware | asdict(trained) | asdict(prepared) | ratios))
    except BytecoverError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(table), err=True)


if __name__ == "__main__":
    main()
