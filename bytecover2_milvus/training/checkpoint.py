"""Checkpoints: one safetensors file with weights, configuration and, of a running training, what resuming needs.

Tensors are named ``network.*``, ``note_map.*``, ``chroma_network.*``, ``classifier.*``, ``running.*`` (weights in
training, of which those before are a moving average) and ``optimizer.<parameter>.<moment>``; the metadata holds the
configuration as JSON, the step and a fingerprint of the training data. A file is written beside its place and renamed,
so it is whole or absent.
In the copy that a bundle carries, matrices and kernels are in half precision; they are float32 again once loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..atomic import atomic_write
from ..config import Config
from ..embedding.bundle import open_bundle
from ..errors import CheckpointError, ConfigError
from ..model.chroma_network import ChromaNetwork
from ..model.network import ByteCover2
from ..model.note_map import NoteMap
from ..untrusted import DAMAGED, open_regular, parse_json, shorten

LAST = "last.safetensors"  # of a run: all that resuming needs
BEST = "best.safetensors"  # of a run: the network of the best validation so far; of the end, without validation
FILE_BYTES = 16 << 30  # of a checkpoint: its optimizer's moments are twice the weights

_LEARNED = ("network.", "note_map.", "chroma_network.")  # tensors of what a configuration calls for
_COUNT = "num_batches_tracked"  # a whole number
_NOT_NEGATIVE = ("running_var", ".exp_avg_sq", ".power", ".step")  # a square root or a power is taken of them
_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGED, SafetensorError)
# What Adam and Muon hold of a parameter.
_MOMENTS = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"}, {"step", "mean", "power"})


@dataclass(frozen=True)
class Checkpoint:
    """A network with its configuration; what follows it is of a running training."""

    config: Config
    network: ByteCover2
    note_map: NoteMap | None = None  # what the second stage aligns; None if `config.notes` has no width
    chroma_network: ChromaNetwork | None = None  # None if `config.chroma` has no width
    step: int = 0
    classifier: Tensor | None = None  # (n_works, D)
    optimizer: dict[str, Tensor] = field(default_factory=dict)  # "<parameter name>.<moment>"
    running: dict[str, Tensor] = field(
        default_factory=dict
    )  # weights in training, of which those above are the average
    works: str = ""  # hash of the works that the classifier tells apart
    corpus: str = ""  # fingerprint of the training data
    validation: str = ""  # that of what it is validated on
    start: str = ""  # hash of the weights that it began with, if it did not begin with new ones
    samples: int = 0  # that it has learned from
    seconds: int = 0  # that it has taken
    facts: dict[str, str] = field(default_factory=dict)  # what the weights were trained on, for the model card

    def learned(self) -> ByteCover2 | ChromaNetwork:
        """The network that the phase of its configuration trains."""
        return self.chroma_network if self.config.training.phase == "chroma" and self.chroma_network else self.network

    def save(self, path: str | Path) -> None:
        """Write all of it to one file.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with atomic_write(Path(path)) as part:
            part.write_bytes(self.to_bytes())

    def to_bytes(self, *, half: bool = False) -> bytes:
        """The content of the file, the same for the same checkpoint.

        With `half`, kernels and matrices are stored in half precision; what normalisations hold, their statistics too,
        has a single axis and stays float32.
        """
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.classifier is not None:
            tensors["classifier.weight"] = self.classifier
        for part, module in (("note_map", self.note_map), ("chroma_network", self.chroma_network)):
            if module is not None:
                tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"running.{name}": value for name, value in self.running.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.items()}
        metadata = {
            "config": json.dumps(self.config.to_dict()),
            "step": str(self.step),
            "works": self.works,
            "corpus": self.corpus,
            "validation": self.validation,
            "start": self.start,
            "samples": str(self.samples),
            "seconds": str(self.seconds),
            "facts": json.dumps(self.facts),
        }
        stored = {
            name: (value.half() if half and value.ndim > 1 else value).detach().cpu().contiguous()
            for name, value in tensors.items()
        }
        return _in_order(to_bytes(stored, metadata))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, its network in eval mode on the CPU, every weight accounted for.

    Parameters
    ----------
    path : str or Path
        The file, or the folder of a bundle that carries one; of the bundle, every file is checked against its sum.

    Raises
    ------
    BundleError
        If `path` is a folder but no whole bundle, or the bundle carries no checkpoint.
    CheckpointError
        If the file is missing, is no safetensors file, carries no configuration, lacks or exceeds the weights that
        its configuration calls for, or holds values that are not finite.
    """
    if Path(path).is_dir():
        if (best := Path(path, BEST)).is_file():
            raise CheckpointError(f"{path}: the folder of a run; name its checkpoint, {best}")
        path = open_bundle(path).checkpoint
    try:
        with open_regular(path, FILE_BYTES):
            pass
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: not a readable safetensors checkpoint ({shorten(error)})") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path}: holds no configuration; was it written by bytecover2-milvus train?")
    try:
        config = Config.from_dict(parse_json(metadata["config"]))
        step, samples, seconds = (_count(metadata, name) for name in ("step", "samples", "seconds"))
        facts = _facts(metadata.get("facts", "{}"))
        network, note_map, chroma_network = _networks(config, tensors)
        _check_tensors(tensors)
        classifier = tensors.get("classifier.weight")
        if classifier is not None and (classifier.ndim != 2 or classifier.shape[1] != config.learned_dim):
            raise ValueError(f"a classifier of shape {tuple(classifier.shape)}")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path}: {shorten(error)}; take another checkpoint, or train again") from error
    return Checkpoint(
        config=config,
        network=network,
        note_map=note_map,
        chroma_network=chroma_network,
        step=step,
        classifier=classifier,
        optimizer=_under("optimizer.", tensors),
        running=_under("running.", tensors),
        works=metadata.get("works", ""),
        corpus=metadata.get("corpus", ""),
        validation=metadata.get("validation", ""),
        start=metadata.get("start", ""),
        samples=samples,
        seconds=seconds,
        facts=facts,
    )


def _networks(config: Config, tensors: dict[str, Tensor]) -> tuple[ByteCover2, NoteMap | None, ChromaNetwork | None]:
    """The networks of a configuration with the weights of `tensors`.

    Raises
    ------
    CheckpointError
        If these are not the weights that the configuration calls for.
    """

    def new() -> tuple[ByteCover2, NoteMap | None, ChromaNetwork | None]:
        return (
            ByteCover2(config.network),
            NoteMap(config.notes) if config.notes.width else None,
            ChromaNetwork(config.chroma) if config.chroma.width else None,
        )

    with torch.device("meta"):  # shapes without memory: a few bytes of configuration may call for gigabytes
        called_for = sum(value.numel() for part in new() if part is not None for value in part.state_dict().values())
    held = sum(value.numel() for name, value in tensors.items() if name.startswith(_LEARNED))
    wrong = "weights do not fit their configuration"
    if called_for > held:
        raise CheckpointError(f"{wrong}: it calls for {called_for} numbers, the file holds {held}")
    network, _, chroma_network = networks = new()
    try:
        for prefix, module in zip(_LEARNED, networks, strict=True):
            if module is not None:
                module.load_state_dict(_under(prefix, tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{wrong}: {shorten(error)}") from error
    for gem in (network.gem, chroma_network.gem) if chroma_network else (network.gem,):
        if not 0 < gem.exponent.item() <= 100:
            raise CheckpointError(f"{wrong}: an exponent of {gem.exponent.item():g}, above 0 and at most 100")
    return networks


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    """Refuse values from which no embedding comes that is finite; a `ValueError` names the tensor."""
    for name, value in tensors.items():
        if value.dtype not in (torch.float16, torch.bfloat16, torch.float32) and not name.endswith(_COUNT):
            raise ValueError(f"{name} is of {value.dtype}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
        if name.endswith(_NOT_NEGATIVE) and (value < 0).any():
            raise ValueError(f"{name} is negative")


def _count(metadata: dict[str, str], name: str) -> int:
    text = metadata.get(name, "0")
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"{name} is {shorten(repr(text))}")
    return int(text)


def _facts(text: str) -> dict[str, str]:
    facts = parse_json(text)
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError(f"facts are {shorten(repr(facts))}")
    return facts


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimizer's moments under the names of its parameters, in the order in which it was given them."""
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}.{key}": value for index, moments in state.items() for key, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Put the moments of `optimizer_tensors` back.

    Raises
    ------
    CheckpointError
        If the moments of a parameter are missing, or are none of its optimizer or shape.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(names))}
    index_of = {name: index for index, name in enumerate(names)}
    for key, value in tensors.items():
        name, _, moment = key.rpartition(".")
        if name not in index_of:
            raise CheckpointError(f"optimizer state of an unknown parameter {name}: the checkpoint is of another phase")
        parameter = parameters[index_of[name]]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)  # in the parameter's memory format
        elif moment != "step" or value.ndim:
            raise CheckpointError(f"optimizer state {key} of shape {tuple(value.shape)}: the checkpoint is damaged")
        state[index_of[name]][moment] = value
    missing = [names[index] for index, moments in state.items() if not moments]
    if missing:
        raise CheckpointError(f"no optimizer state for {missing[0]}: the checkpoint cannot be resumed")
    for index, moments in state.items():
        if moments.keys() not in _MOMENTS:
            raise CheckpointError(
                f"optimizer state of {names[index]} is {shorten(', '.join(sorted(moments)))}: the checkpoint is damaged"
            )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _in_order(content: bytes) -> bytes:
    """A safetensors file with sorted metadata, which the library writes in an order that changes from call to call.

    The file is the length of its header in 8 bytes, the header in JSON, padded by spaces to a multiple of 8, and data.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
