"""A *bundle*: the folder with an exported network, and its *contract*, the facts that a consumer must know.

``model.onnx`` maps ``waveform`` (batch, samples) to ``embedding`` (batch, D); ``contract.json`` states the contract,
which the metadata of the model repeats; ``SHA256SUMS`` lists every file. ``export/README.md`` says the same in words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import FrontEnd
from .errors import BundleError, ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTRACT_VERSION = 1
MODEL, CONTRACT, GOLDEN, SUMS = "model.onnx", "contract.json", "golden.npz", "SHA256SUMS"
CARD, EMBED = "MODEL_CARD.md", "embed.py"
MODEL_CQT = "model_cqt.onnx"  # for who has the pooled CQT already; a bundle may lack it
CHECKPOINT = "checkpoint.safetensors"  # to train on from; a bundle may lack it
INPUT, INPUT_CQT, OUTPUT = "waveform", "cqt", "embedding"  # names in the graphs

_EXPORT_AGAIN = "export it again with `bytecover2-milvus export`"


@dataclass(frozen=True)
class Contract:
    """What holds for every embedding of a bundle; a consumer refuses a `contract_version` it does not know."""

    name: str
    model_id: str  # hash of the weights and of the front end: embeddings compare only within one model_id
    embedding_dim: int
    sample_rate: int  # Hz, of the mono waveform
    minimum_samples: int  # a shorter waveform is repeated, whole, until it is at least this long
    shortest_samples: int  # a shorter waveform is refused
    silence_peak: float  # a waveform without a sample of at least this magnitude is refused; full scale is 1
    front_end: FrontEnd  # inside the graph
    parity_tolerance: float  # largest difference of any embedding component from the network in torch
    opset: int
    packages: dict[str, str]  # versions that made the bundle
    licence: str = "Apache-2.0"
    contract_version: int = CONTRACT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_metadata(self) -> dict[str, str]:
        """The same facts as ONNX metadata: strings as they are, all else as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in self.to_dict().items()
        }

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """The contract in the text of a ``contract.json``.

        Raises
        ------
        BundleError
            If the text is no JSON object, is of another contract version, or lacks or exceeds the fields.
        """
        try:
            table = json.loads(text)
        except ValueError as error:
            raise BundleError(f"not JSON ({error}); {_EXPORT_AGAIN}") from error
        version = table.get("contract_version") if isinstance(table, dict) else None
        if version != CONTRACT_VERSION:
            raise BundleError(
                f"contract version {version}, this package reads {CONTRACT_VERSION}; "
                f"install the package that made the bundle, or {_EXPORT_AGAIN}"
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        if set(table) != fields:
            raise BundleError(f"missing or unknown fields: {', '.join(sorted(fields ^ set(table)))}; {_EXPORT_AGAIN}")
        try:
            return cls(**{**table, "front_end": FrontEnd(**table["front_end"])})
        except (TypeError, ConfigError) as error:
            raise BundleError(f"front_end: {error}; {_EXPORT_AGAIN}") from error


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are what its ``SHA256SUMS`` says."""

    path: Path
    contract: Contract
    files: frozenset[str]  # names of all that ``SHA256SUMS`` lists

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def checkpoint(self) -> Path:
        """The file that training can start from.

        Raises
        ------
        BundleError
            If the bundle was exported without one.
        """
        if CHECKPOINT not in self.files:
            raise BundleError(
                f"{self.path}: exported without {CHECKPOINT}, good for inference only; start from the checkpoint it "
                "was exported from, or export that again with the checkpoint"
            )
        return self.path / CHECKPOINT


def open_bundle(path: str | Path) -> Bundle:
    """The bundle in the folder `path`, every file of it checked against ``SHA256SUMS``.

    Raises
    ------
    BundleError
        If there is no such folder, the sums or a file are missing, a file was changed, or the contract is not one that
        this package knows.
    """
    path = Path(path)
    sums = path / SUMS
    if not sums.is_file():
        what = "no such folder" if not path.is_dir() else f"not a bundle, it has no {SUMS}"
        raise BundleError(f"{path}: {what}; name the folder that `bytecover2-milvus export` wrote")
    try:
        listed = read_sums(sums)
        for name in (MODEL, CONTRACT):
            if name not in listed:
                raise BundleError(f"{sums}: does not list {name}; {_EXPORT_AGAIN}")
        for fault in damaged_files(path, listed):
            raise BundleError(fault)
        text = (path / CONTRACT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); check its permissions or copy it again") from error
    try:
        return Bundle(path, Contract.from_json(text), frozenset(listed))
    except BundleError as error:
        raise BundleError(f"{path / CONTRACT}: {error}") from error


def damaged_files(folder: Path, listed: Mapping[str, str]) -> Iterator[str]:
    """A sentence for every file of `listed`, from name to SHA-256, that is missing from `folder` or was changed."""
    for name, expected in listed.items():
        try:
            if file_sha256(folder / name) != expected:
                yield f"{folder / name}: changed since it was exported; copy the bundle again"
        except FileNotFoundError:
            yield f"{folder / name}: listed in {SUMS} but missing; copy the bundle again"


def default_bundle() -> Path:
    """The folder of the bundle that ships with this package.

    Raises
    ------
    BundleError
        If this installation ships none.
    """
    path = Path(str(resources.files("bytecover2_milvus.bundles") / "bytecover2-128"))
    if not path.is_dir():
        raise BundleError(
            f"{path}: this installation ships no bundle; make one with `bytecover2-milvus train` and "
            "`bytecover2-milvus export`, and name it with --bundle"
        )
    return path


def make_model_id(front_end: FrontEnd, weights: Mapping[str, NDArray]) -> str:
    """32 hexadecimal digits over the front end's settings and every learned or calibrated weight, by name.

    Weights in half precision count as float32, those of an int8 form as the integers that they are.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(front_end), sort_keys=True).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.shape}".encode())
        digest.update((weight.astype("<f4") if weight.dtype.kind == "f" else weight).tobytes())
    return digest.hexdigest()[:32]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """List every file of `folder` in its ``SHA256SUMS``, in the form that ``sha256sum --check`` reads."""
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal.

    Raises
    ------
    BundleError
        If a line is no sum of a file in the same folder.
    """
    listed = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or "/" in name or "\\" in name:
            raise BundleError(f"{path}: not a line of SHA-256 sums: {line!r}; copy the bundle again")
        listed[name] = digest
    return listed
