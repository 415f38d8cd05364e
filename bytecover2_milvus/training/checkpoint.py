"""Checkpoints: one safetensors file with weights, configuration and, of a running training, what resuming needs.

Tensors are named ``network.*``, ``note_map.*``, ``classifier.*``, ``running.*`` (weights in training, of which those
before are a moving average) and ``optimizer.<parameter>.<moment>``; the metadata holds the configuration as JSON, the
step and a fingerprint of the training data. A file is written beside its place and renamed, so it is whole or absent.
In the copy that a bundle carries, matrices and kernels are in half precision; they are float32 again once loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..bundle import open_bundle
from ..config import Config
from ..errors import CheckpointError, ConfigError
from ..model.network import ByteCover2
from ..model.note_map import NoteMap
from ..writing import whole_file

LAST = "last.safetensors"  # of a run: all that resuming needs
BEST = "best.safetensors"  # of a run: the network of the best validation so far; of the end, without validation


@dataclass(frozen=True)
class Checkpoint:
    """A network with its configuration; what follows it is of a running training."""

    config: Config
    network: ByteCover2
    note_map: NoteMap | None = None  # what the second stage aligns; None if `config.notes` has no width
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
    facts: dict[str, str] = field(default_factory=dict)  # what the weights were trained on, for the model card

    def save(self, path: str | Path) -> None:
        """Write all of it to one file.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with whole_file(Path(path)) as part:
            part.write_bytes(self.to_bytes())

    def to_bytes(self, *, half: bool = False) -> bytes:
        """The content of the file, the same for the same checkpoint.

        With `half`, kernels and matrices are stored in half precision; what normalisations hold, their statistics too,
        has a single axis and stays float32.
        """
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.classifier is not None:
            tensors["classifier.weight"] = self.classifier
        if self.note_map is not None:
            tensors |= {f"note_map.{name}": value for name, value in self.note_map.state_dict().items()}
        tensors |= {f"running.{name}": value for name, value in self.running.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.items()}
        metadata = {
            "config": json.dumps(self.config.to_dict()),
            "step": str(self.step),
            "works": self.works,
            "corpus": self.corpus,
            "validation": self.validation,
            "start": self.start,
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
        If the file is missing, is no safetensors file, carries no configuration, or lacks or exceeds the weights that
        its configuration calls for.
    """
    if Path(path).is_dir():
        if (best := Path(path, BEST)).is_file():
            raise CheckpointError(f"{path}: the folder of a run; name its checkpoint, {best}")
        path = open_bundle(path).checkpoint
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors checkpoint ({error})") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path}: holds no configuration; was it written by bytecover2-milvus train?")
    try:
        config = Config.from_dict(json.loads(metadata["config"]))
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    network = ByteCover2(config.network)
    note_map = NoteMap(config.notes) if config.notes.width else None
    try:
        network.load_state_dict(_under("network.", tensors), strict=True)
        if note_map is not None:
            note_map.load_state_dict(_under("note_map.", tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit their configuration: {' '.join(str(error).split())}"
        ) from error
    return Checkpoint(
        config=config,
        network=network,
        note_map=note_map,
        step=int(metadata.get("step", 0)),
        classifier=tensors.get("classifier.weight"),
        optimizer=_under("optimizer.", tensors),
        running=_under("running.", tensors),
        works=metadata.get("works", ""),
        corpus=metadata.get("corpus", ""),
        validation=metadata.get("validation", ""),
        start=metadata.get("start", ""),
        facts=json.loads(metadata.get("facts", "{}")),
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimizer's moments under the names of its parameters, in the order in which it was given them."""
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}.{key}": value for index, moments in state.items() for key, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Put the moments of `optimizer_tensors` back.

    Raises
    ------
    CheckpointError
        If the moments of a parameter are missing.
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
        state[index_of[name]][moment] = value
    missing = [names[index] for index, moments in state.items() if not moments]
    if missing:
        raise CheckpointError(f"no optimizer state for {missing[0]}: the checkpoint cannot be resumed")
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
