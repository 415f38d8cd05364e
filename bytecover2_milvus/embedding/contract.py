"""The *contract* of a bundle: what a consumer must know of its embeddings, and whether the bundle keeps to it.

All that is believed of a bundle is checked here before a session is made of it: `Contract.from_json` holds the facts
against ``schemas/contract.schema.json``, `check_metadata` and `check_graph` hold a model against the facts. `Embedder`
and `verify` do the same.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CHROMA_GROUPS, FrontEnd
from ..errors import BundleError, ConfigError
from ..untrusted import parse_json, shorten
from .onnx_file import FLOAT, OnnxFile

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FIRST_STAGE, SECOND_STAGE = 1, 2  # contract versions: embedding alone; embedding and chroma
INPUT, INPUT_CQT, OUTPUT, OUTPUT_CHROMA = "waveform", "cqt", "embedding", "chroma"  # names in the graphs
PITCH_CLASSES = 12  # channels of a group of chroma
LATEST_IR = 10  # of the file: what ONNX Runtime 1.21 knows, the oldest that a bundle was run with

EXPORT_AGAIN = "export it again with `bytecover2-milvus export`"
COPY_AGAIN = "copy the bundle again, or export it again"


@dataclass(frozen=True)
class ChromaFacts:
    """Facts that hold for the chroma of a bundle with a second stage."""

    chroma_id: str  # hash of note map and folding: chroma compares only within one chroma_id
    groups: tuple[str, ...]  # of twelve channels each, C first: different views of the same music
    frame_samples: int  # samples per frame

    @property
    def channels(self) -> int:
        return PITCH_CLASSES * len(self.groups)


@dataclass(frozen=True)
class Contract:
    """Facts that hold for every embedding of a bundle; a consumer refuses a `contract_version` it does not know."""

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
    contract_version: int = FIRST_STAGE
    chroma: ChromaFacts | None = None  # from version 2 on: the graph gives chroma, which a second stage aligns

    @property
    def chroma_id(self) -> str:
        """Hash of the note map's weights; "" where the bundle has no second stage."""
        return self.chroma.chroma_id if self.chroma else ""

    @property
    def chroma_channels(self) -> int:
        """Channels of chroma, 12 for each group; 0 where the bundle has no second stage."""
        return self.chroma.channels if self.chroma else 0

    @property
    def frame_s(self) -> float:
        """Seconds from one frame of chroma to the next; 0 where the bundle has no second stage."""
        return self.chroma.frame_samples / self.sample_rate if self.chroma else 0.0

    def to_dict(self) -> dict[str, Any]:
        table = dataclasses.asdict(self) | {"front_end": self.front_end.facts()}
        if self.chroma is None:
            del table["chroma"]
        else:
            table["chroma"]["groups"] = list(self.chroma.groups)  # as JSON has it
        return table

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
            If the text is no JSON object, is of another contract version, lacks or exceeds the fields, or a field is
            not within the bounds of ``schemas/contract.schema.json``.
        """
        try:
            table = parse_json(text)
        except ValueError as error:
            raise BundleError(f"not JSON ({shorten(error)}); {EXPORT_AGAIN}") from error
        version = table.get("contract_version") if isinstance(table, dict) else None
        if version not in (FIRST_STAGE, SECOND_STAGE) or type(version) is not int:
            raise BundleError(
                f"contract version {shorten(version)}, this package reads {FIRST_STAGE} and {SECOND_STAGE}; "
                f"install the package that made the bundle, or {EXPORT_AGAIN}"
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        if version == FIRST_STAGE:
            fields.remove("chroma")
        if set(table) != fields:
            names = shorten(", ".join(sorted(fields ^ set(table))))
            raise BundleError(f"missing or unknown fields: {names}; {EXPORT_AGAIN}")
        _check_bounds(table)
        try:
            front_end = FrontEnd(**table["front_end"])
        except ConfigError as error:
            raise BundleError(f"front_end: {error}; {EXPORT_AGAIN}") from error
        if table["minimum_samples"] != front_end.minimum_samples:
            raise BundleError(
                f"minimum_samples: {table['minimum_samples']}, but its front_end needs {front_end.minimum_samples}; "
                f"{COPY_AGAIN}"
            )
        if version == SECOND_STAGE:
            facts = table["chroma"]
            if tuple(facts["groups"]) != CHROMA_GROUPS:
                groups = shorten(", ".join(facts["groups"]))
                raise BundleError(
                    f"chroma.groups: {groups}, this package aligns {', '.join(CHROMA_GROUPS)}; install the package "
                    "that made the bundle"
                )
            table["chroma"] = ChromaFacts(facts["chroma_id"], tuple(facts["groups"]), facts["frame_samples"])
        return cls(**{**table, "front_end": front_end})


def check_metadata(contract: Contract, path: Path, model: OnnxFile) -> None:
    """Refuse a model whose metadata does not repeat the contract: it is another bundle's.

    Raises
    ------
    BundleError
    """
    expected = contract.to_metadata()
    different = sorted(key for key in expected | model.metadata if expected.get(key) != model.metadata.get(key))
    if different:
        names = shorten(", ".join(different))
        raise BundleError(f"{path}: its metadata is not contract.json's in {names}; {COPY_AGAIN}")


def check_graph(contract: Contract, path: Path, model: OnnxFile, *, from_cqt: bool = False) -> None:
    """Refuse a model that takes or gives something else than the contract says, or that is more than one graph.

    Raises
    ------
    BundleError
    """
    name, axes = (INPUT_CQT, [contract.front_end.n_bins, "frames"]) if from_cqt else (INPUT, ["samples"])
    inputs = {name: (FLOAT, ["batch", *axes])}
    if model.ir_version > LATEST_IR:
        raise BundleError(
            f"{path}: IR version {model.ir_version}, ONNX Runtime 1.21 knows {LATEST_IR} at most; export it again "
            "with the versions of the extra [train]"
        )
    if model.opsets != {"": contract.opset}:
        raise BundleError(f"{path}: opsets {shorten(model.opsets)}, the contract says {contract.opset}; {COPY_AGAIN}")
    if model.inputs != inputs:
        raise BundleError(f"{path}: inputs {shorten(model.inputs)}, not {inputs}; {COPY_AGAIN}")
    outputs: dict[str, tuple[int, list[int | str]]] = {OUTPUT: (FLOAT, ["batch", contract.embedding_dim])}
    if contract.chroma and not from_cqt:
        outputs[OUTPUT_CHROMA] = (FLOAT, ["batch", "frames", contract.chroma.channels])
    if model.outputs != outputs:
        raise BundleError(f"{path}: outputs {shorten(model.outputs)}, not {shorten(outputs)}; {COPY_AGAIN}")
    if not model.self_contained:
        raise BundleError(f"{path}: refers to other files, or holds functions or training; {COPY_AGAIN}")
    if inner := [node.operator for node in model.nodes if node.holds_graphs]:
        raise BundleError(
            f"{path}: a graph within the graph ({shorten(inner[0])}), so nothing says that it ends; {COPY_AGAIN}"
        )


def _check_bounds(table: dict[str, Any]) -> None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(table))
    if error:
        raise BundleError(f"{error.json_path[2:]}: {shorten(error.message)}; {COPY_AGAIN}")


@cache
def _validator() -> Validator:
    import jsonschema

    schema = json.loads((resources.files("bytecover2_milvus.schemas") / "contract.schema.json").read_text("utf-8"))
    base = jsonschema.Draft202012Validator
    types = base.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # JSON Schema's may be 128.0
    return jsonschema.validators.extend(base, type_checker=types)(schema)
