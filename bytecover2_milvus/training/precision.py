"""The precision of a run whose configuration says "auto": the fastest one that works on this machine.

Products in bfloat16 are fast where a processor has instructions for them, slow where they are emulated, and on some
they were seen to crash or to give no numbers. So a few steps are tried in each, in a process of its own.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..atomic import atomic_write
from ..config import PRECISIONS, Config
from ..errors import ConfigError
from ..model.network import ByteCover2
from ..model.network_input import input_channels
from ..parallel import Worker, WorkerDied
from ..untrusted import DAMAGED, parse_json, read_text
from .distributed import launched, torch_device
from .gradient import loss_terms
from .learner import set_phase
from .optimizer import make_optimizer
from .start import initial_classifier

TRIED = "precision.json"  # in the folder of a run
_TRIED_BYTES = 1 << 16
_SAFE = PRECISIONS[0]
_STEPS = 4  # of which the first, which allocates, does not count
_WORTH = 0.95  # of the time in float32, above which it is not worth what it loses
_WORKS = 1000  # of the classifier
_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


@dataclass(frozen=True)
class Trial:
    """A few steps in one precision; without `step_s` they did not end."""

    step_s: float | None = None
    finite: bool = False

    def __str__(self) -> str:
        if self.step_s is None:
            return "crashed"
        return f"{self.step_s:.3g} s a step" if self.finite else "a loss that is no number"


@dataclass(frozen=True)
class Choice:
    """The precisions that were tried on a machine, and the one that was chosen."""

    machine: str
    precision: str
    trials: dict[str, Trial]

    def __str__(self) -> str:
        return f"precision {self.precision}: " + ", ".join(f"{name} {trial}" for name, trial in self.trials.items())


class Step:
    """One step of training on random input; it returns the loss."""

    def __init__(self, config: Config, device: torch.device) -> None:
        training = config.training
        torch.manual_seed(training.seed)
        self.training, self.device = training, device
        self.network = ByteCover2(config.network)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as `train` does
        self.classifier = initial_classifier(config, "", _WORKS, None).to(device)
        set_phase(self.network, training.phase)
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer([*learned, self.classifier.weight], training)
        self.frames = max(1, round(median(training.crop_s) / config.front_end.frame_s))
        self.work = torch.arange(training.works_per_batch, device=device).repeat_interleave(training.tracks_per_work)
        shape = len(self.work), input_channels(config.network), config.front_end.n_bins, self.frames
        self.cqt = torch.rand(shape, device=device)

    def __call__(self) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16-mixed"):
            pooled = self.network.pooled(self.cqt)
        feature, embedding = self.network.head(pooled)
        terms = loss_terms(feature, embedding, self.classifier, self.work, self.training)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()  # waits for a GPU


def try_precision(config: dict[str, Any], device: str, threads: int) -> dict[str, Any]:
    """The `Trial` of a configuration, as dictionaries, since another process asks."""
    torch.set_num_threads(threads)
    step = Step(Config.from_dict(config), torch.device(device))
    seconds, losses = [], []
    for _ in range(_STEPS):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    return asdict(Trial(median(seconds[1:]), all(map(math.isfinite, losses))))


def choose_precision(config: Config, device: str, out: Path) -> Choice:
    """The precision of a run in the folder `out`; what was tried on this machine before is kept there.

    Raises
    ------
    ConfigError
        If several processes were started, which might choose differently, or the phase is another loop's.
    DeviceError
        If `device` is "cuda" and torch cannot use it.
    OutputError
        If the folder cannot be written.
    """
    if config.training.phase in ("notes", "chroma") or launched()[1] > 1:
        raise ConfigError('precision = "auto" is for one process and for the vector: name one, as "32-true"')
    on = torch_device(device)
    machine = _machine(on)
    with suppress(*DAMAGED, TypeError, KeyError):
        known = parse_json(read_text(out / TRIED, _TRIED_BYTES))
        if known["machine"] == machine and known["precision"] in PRECISIONS:
            return Choice(
                machine, known["precision"], {name: Trial(**trial) for name, trial in known["trials"].items()}
            )
    trials = {precision: _trial(config, precision, on) for precision in PRECISIONS}
    choice = Choice(machine, chosen(trials), trials)
    with atomic_write(out / TRIED) as part:
        part.write_text(json.dumps(asdict(choice), indent=2) + "\n", encoding="utf-8")
    return choice


def chosen(trials: dict[str, Trial]) -> str:
    """The fastest of those that gave numbers; float32, unless another is clearly faster."""
    usable = {name: trial.step_s for name, trial in trials.items() if trial.finite and trial.step_s is not None}
    fastest = min(usable, key=lambda name: usable[name], default=_SAFE)
    return fastest if _SAFE not in usable or usable[fastest] < _WORTH * usable[_SAFE] else _SAFE


def _trial(config: Config, precision: str, device: torch.device) -> Trial:
    tried = replace(config, training=replace(config.training, precision=precision))
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(try_precision, Path(folder))
        try:
            worker.ask(tried.to_dict(), device.type, torch.get_num_threads())
            while True:
                for answer in worker.answers():
                    return Trial(**answer)
        except WorkerDied:
            return Trial()
        finally:
            worker.end()


def _machine(device: torch.device) -> str:
    """The machine that a choice holds for: the GPU, or the processor with what it has for bfloat16; and torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor"
    with suppress(OSError):
        if device.type == "cpu":
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            facts = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in lines)}
            name = " ".join(facts.get("model name", [name]) + [f for f in _FLAGS if f in facts.get("flags", [])])
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
