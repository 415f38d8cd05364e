"""Is a bundle whole, is it what its contract says, and does it give its golden embeddings on this machine?

`verify` looks at the files first, then at the contract, then at everything that the contract promises. What needs torch
is left out where torch is not installed. Sums and golden vectors show that nothing broke or was mixed up on the way;
they do not show who made the bundle.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import (
    CARD,
    CHECKPOINT,
    CONTRACT,
    EMBED,
    GOLDEN,
    INPUT,
    INPUT_CQT,
    MODEL,
    MODEL_CQT,
    OUTPUT,
    SUMS,
    Bundle,
    damaged_files,
    make_model_id,
    open_bundle,
    read_sums,
)
from .embedder import Embedder
from .errors import BundleError, BytecoverError, DeviceError
from .model_file import FLOAT, ModelFile, is_int8

LATEST_IR = 10  # of the file: what ONNX Runtime 1.21 knows, the oldest that a bundle was run with
TRAINING_ONLY = {"BatchNormalization", "Dropout"}  # folded, and without effect: a graph for inference has neither
# Half precision rounds twice on the way to the checkpoint and the model: 3 x 2^-11 of a weight at most. What is too
# small for half precision's full accuracy is judged by its layer's largest weight.
ROUNDING, ROUNDING_OF_LARGEST = 2**-9, 2**-16
HALF_STEP = 2**-24  # half precision's smallest number: all that a layer has which began at zero and has hardly learned
CONSUMER_TIMEOUT_S = 120.0

_ABSOLUTE_PATH = re.compile(r"(?:^|[\s\"'=:(])(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\|\.py\b")
_COPY_AGAIN = "copy the bundle again, or export it again"

Golden = Mapping[str, NDArray]
Models = Mapping[Path, ModelFile]


@dataclass(frozen=True)
class Finding:
    """What came of one check."""

    bundle: str
    check: str
    status: str  # ok, absent (could not or need not be checked) or failed
    detail: str


class _NotChecked(Exception):
    """Why a check does not apply here."""


def verify(path: str | Path, device: str = "auto", *, trust: bool = False) -> Iterator[Finding]:
    """One finding per check of the bundle in the folder `path`; of the files, one per fault.

    Nothing more is looked at once a file or the contract is at fault.

    Parameters
    ----------
    path : str or Path
    device : {"auto", "cpu", "cuda"}
        Where the golden vectors are embedded; "auto" is the CPU, and CUDA where it works.
    trust : bool
        Whether to run the bundle's ``embed.py`` even if it is not the one that comes with this package.
    """
    path = Path(path)

    def find(check: str, look: Callable[[], str], otherwise: str = "failed") -> Finding:
        try:
            return Finding(str(path), check, "ok", look())
        except _NotChecked as reason:
            return Finding(str(path), check, "absent", str(reason))
        except ImportError as error:
            needed = f'needs {error.name}, not installed: pip install "bytecover2-milvus[train]"'
            return Finding(str(path), check, "absent", needed)
        except DeviceError as error:
            return Finding(str(path), check, otherwise, str(error))
        except BytecoverError as error:
            return Finding(str(path), check, "failed", str(error))

    if faults := list(_faults(path)):
        yield from (Finding(str(path), "files", "failed", fault) for fault in faults)
        return
    yield find("files", lambda: f"all are there and as {SUMS} says")
    try:
        bundle = open_bundle(path)
        _check_contract(bundle)
    except BundleError as error:
        yield Finding(str(path), "contract", "failed", str(error))
        return
    contract = bundle.contract
    yield find("contract", lambda: f"version {contract.contract_version}, {contract.name}, model {contract.model_id}")
    try:
        models = {path / name: ModelFile.read(path / name) for name in (MODEL, MODEL_CQT) if name in bundle.files}
        golden = _read_golden(bundle)
    except BundleError as error:
        yield Finding(str(path), "contents", "failed", str(error))
        return
    yield find("metadata", lambda: _check_metadata(bundle, models))
    yield find("graph", lambda: _check_graph(bundle, models))
    yield find("leftovers", lambda: _check_leftovers(models))
    yield find("final layer", lambda: _check_final_layer(bundle, models))
    yield find("weights", lambda: _check_weights(bundle, models))
    for name in ("cpu", "cuda") if device == "auto" else (device,):
        otherwise = "absent" if (device, name) == ("auto", "cuda") else "failed"
        yield find(name, partial(_check_golden, bundle, golden, name), otherwise)
    yield find("cqt form", lambda: _check_cqt_form(bundle, models, golden))
    yield find("embed.py", lambda: _check_consumer(bundle, golden, trust))
    yield find("checkpoint", lambda: _check_checkpoint(bundle, models))


def _faults(path: Path) -> Iterator[str]:
    """What is wrong with the files of a bundle, a sentence each."""
    try:
        if not (path / SUMS).is_file():
            open_bundle(path)  # says what the folder is instead
        listed = read_sums(path / SUMS)
        for name in (MODEL, CONTRACT, GOLDEN, EMBED, CARD):
            if name not in listed:
                yield f"{path / SUMS}: does not list {name}; {_COPY_AGAIN}"
        yield from damaged_files(path, listed)
        for file in sorted(path.iterdir()):
            if file.name not in {*listed, SUMS}:
                yield f"{file}: not listed in {SUMS}, so no part of the bundle; remove it, or {_COPY_AGAIN}"
    except BundleError as error:
        yield str(error)
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path}: cannot be read ({error}); check its permissions or copy it again"


def _check_contract(bundle: Bundle) -> None:
    import jsonschema

    path, contract = bundle.path / CONTRACT, bundle.contract
    schema = json.loads((resources.files("bytecover2_milvus.schemas") / "contract.schema.json").read_text("utf-8"))
    try:
        jsonschema.validate(contract.to_dict(), schema)
    except jsonschema.ValidationError as error:
        raise BundleError(f"{path}: {error.json_path[2:]}: {error.message}; {_COPY_AGAIN}") from error
    try:
        json.dumps(contract.to_dict(), allow_nan=False)  # NaN is within all bounds of a schema
    except ValueError as error:
        raise BundleError(f"{path}: a number that is not finite; {_COPY_AGAIN}") from error
    if contract.minimum_samples != contract.front_end.minimum_samples:
        raise BundleError(
            f"{path}: minimum_samples: {contract.minimum_samples}, but its front_end needs "
            f"{contract.front_end.minimum_samples}; {_COPY_AGAIN}"
        )
    card = bundle.path / CARD
    if contract.model_id not in card.read_text(encoding="utf-8", errors="replace"):
        raise BundleError(f"{card}: of another model, it does not name {contract.model_id}; {_COPY_AGAIN}")


def _read_golden(bundle: Bundle) -> Golden:
    path, dim = bundle.path / GOLDEN, bundle.contract.embedding_dim
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = dict(file)
        for name in ("long", "short"):
            waveform, embedding = golden[f"{name}_waveform"], golden[f"{name}_embedding"]
            if waveform.dtype != np.int16 or waveform.ndim != 1 or embedding.shape != (dim,):
                raise ValueError(f"{name}: int16 (samples,) and an embedding ({dim},) are needed")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: not golden vectors ({error}); {_COPY_AGAIN}") from error
    return golden


def _check_metadata(bundle: Bundle, models: Models) -> str:
    expected = bundle.contract.to_metadata()
    for path, model in models.items():
        different = sorted(key for key in expected | model.metadata if expected.get(key) != model.metadata.get(key))
        if different:
            raise BundleError(f"{path}: its metadata is not {CONTRACT}'s in {', '.join(different)}; {_COPY_AGAIN}")
    return f"{len(expected)} fields of {CONTRACT} repeated in {' and '.join(path.name for path in models)}"


def _check_graph(bundle: Bundle, models: Models) -> str:
    contract = bundle.contract
    inputs = {
        MODEL: {INPUT: (FLOAT, ["batch", "samples"])},
        MODEL_CQT: {INPUT_CQT: (FLOAT, ["batch", contract.front_end.n_bins, "frames"])},
    }
    for path, model in models.items():
        if model.ir_version > LATEST_IR:
            raise BundleError(
                f"{path}: IR version {model.ir_version}, ONNX Runtime 1.21 knows {LATEST_IR} at most; export it again "
                "with the versions of the extra [train]"
            )
        if model.opsets != {"": contract.opset}:
            raise BundleError(f"{path}: opsets {model.opsets}, the contract says {contract.opset}; {_COPY_AGAIN}")
        if model.inputs != inputs[path.name]:
            raise BundleError(f"{path}: inputs {model.inputs}, not {inputs[path.name]}; {_COPY_AGAIN}")
        if model.outputs != {OUTPUT: (FLOAT, ["batch", contract.embedding_dim])}:
            raise BundleError(f"{path}: outputs {model.outputs}, not {contract.embedding_dim} values; {_COPY_AGAIN}")
        if not model.self_contained:
            raise BundleError(f"{path}: refers to other files, or holds functions or training; {_COPY_AGAIN}")
    versions = f"IR version {models[bundle.model].ir_version}, opset {contract.opset}"
    return f"{versions}, {INPUT} (batch, samples) to {OUTPUT} (batch, {contract.embedding_dim})"


def _check_leftovers(models: Models) -> str:
    for path, model in models.items():
        for text in (*model.notes, *model.names, *model.metadata.values()):
            if _ABSOLUTE_PATH.search(text):
                raise BundleError(f"{path}: a path of the machine that made it: {text[:100]!r}; export it again")
        if model.notes:
            raise BundleError(f"{path}: a note of the exporter: {model.notes[0][:100]!r}; export it again")
        if training := TRAINING_ONLY & {node.operator for node in model.nodes}:
            raise BundleError(f"{path}: {', '.join(training)}, which only training needs; export it again")
        if unused := model.constants - {name for node in model.nodes for name in node.inputs}:
            raise BundleError(f"{path}: weights that nothing uses: {', '.join(sorted(unused)[:3])}; export it again")
    return "no paths, no notes, no training layers, no unused weights"


def _check_final_layer(bundle: Bundle, models: Models) -> str:
    folded = bundle.contract.name.startswith("bytecover2-")  # ByteCover has no PCA-FC
    for path, model in models.items():
        linear = [node for node in model.nodes if node.operator in ("Gemm", "MatMul")]
        if [node.inputs[1] for node in linear] != ["final.weight"] * folded:
            raise BundleError(
                f"{path}: {len(linear)} linear layers, {int(folded)} expected: PCA-FC and BNNeck are not folded; "
                "export it again"
            )
    if not folded:
        return "no PCA-FC, BNNeck is a weight and a bias per component"
    return f"one Gemm {model.weights['final.weight'].shape}: PCA-FC and BNNeck, folded"


def _check_weights(bundle: Bundle, models: Models) -> str:
    for path, model in models.items():
        if _stored_once(model):
            raise _NotChecked("layers of equal weights, as before training, share them: their hash cannot be computed")
        model_id = make_model_id(bundle.contract.front_end, model.weights)
        if model_id != bundle.contract.model_id:
            raise BundleError(f"{path}: its weights are those of model {model_id}, not the contract's; {_COPY_AGAIN}")
    return "their hash is the model_id"


def _stored_once(model: ModelFile) -> bool:
    """Whether layers share a weight: the exporter stores what is equal once, under one of its names."""
    layers = ("Conv", "InstanceNormalization", "Gemm")
    used = [name for node in model.nodes if node.operator in layers for name in node.inputs[1:]]
    learned = [name for name in used if name.removesuffix(".half") in model.weights]
    return len(learned) > len(set(learned)) or "gem.exponent" not in model.weights


def _check_golden(bundle: Bundle, golden: Golden, device: str) -> str:
    embedder = Embedder(bundle.path, device)
    names = ("long", "short", "short")  # two of one length go through the network together
    try:
        with _running(bundle.model):
            embeddings = embedder.embed_batch([golden[f"{name}_waveform"].astype(np.float32) / 32768 for name in names])
    except DeviceError as error:  # it is there, but does not compute
        raise BundleError(f"{bundle.model}: ONNX Runtime cannot run it ({error})") from error
    expected = np.stack([golden[f"{name}_embedding"] for name in names])
    return f"{embedder.provider}, {_difference(bundle, bundle.model, embeddings, expected)}"


def _difference(bundle: Bundle, of: Path, embeddings: NDArray, expected: NDArray) -> str:
    """How far `embeddings` are from the golden ones.

    Raises
    ------
    BundleError
        If that is beyond the contract's tolerance.
    """
    tolerance = bundle.contract.parity_tolerance
    difference = np.abs(embeddings - expected).max()
    if not difference <= tolerance:  # NaN too
        raise BundleError(
            f"{of}: differs from {GOLDEN} by {difference:.1e}, more than {tolerance:g}; {_COPY_AGAIN}, or install the "
            f"onnxruntime that {CONTRACT} names"
        )
    return f"golden embeddings differ by {difference:.1e}, {tolerance:g} allowed"


def _check_cqt_form(bundle: Bundle, models: Models, golden: Golden) -> str:
    if MODEL_CQT not in bundle.files:
        if is_int8(models[bundle.model].weights):
            raise _NotChecked(f"an int8 bundle has none: {MODEL_CQT} comes in float only")
        raise _NotChecked(f"exported without {MODEL_CQT}, which `export --cqt` adds")
    import onnxruntime

    path, names = bundle.path / MODEL_CQT, ("long", "short")
    if missing := [name for name in names if f"{name}_cqt" not in golden]:
        raise BundleError(f"{bundle.path / GOLDEN}: has no {missing[0]}_cqt for {MODEL_CQT}; {_COPY_AGAIN}")
    with _running(path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        rows = [session.run([OUTPUT], {INPUT_CQT: golden[f"{name}_cqt"][None]})[0][0] for name in names]
    embeddings, expected = np.stack(rows), np.stack([golden[f"{name}_embedding"] for name in names])
    return f"CPUExecutionProvider, {_difference(bundle, path, embeddings, expected)}"


@contextmanager
def _running(model: Path) -> Iterator[None]:
    """What ONNX Runtime raises for a graph that it cannot run becomes a `BundleError` that names the file."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    try:
        yield
    except (ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.NotImplemented, ort.RuntimeException) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{model}: ONNX Runtime cannot run it ({reason}); {_COPY_AGAIN}") from error


def _check_consumer(bundle: Bundle, golden: Golden, trust: bool) -> str:
    import soundfile

    script = bundle.path / EMBED
    ours = resources.files("bytecover2_milvus.export") / EMBED
    if not trust and script.read_bytes() != ours.read_bytes():
        raise _NotChecked("not run: it is not the one that comes with this package; read it, then add --trust")
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "golden.wav")
        soundfile.write(recording, golden["short_waveform"], bundle.contract.sample_rate, subtype="PCM_16")
        command = [sys.executable, "-P", script, bundle.path, recording]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CONSUMER_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{script}: no end after {CONSUMER_TIMEOUT_S:g} s; {_COPY_AGAIN}") from error
    try:
        embedding = np.array(json.loads(done.stdout), dtype=np.float32).reshape(bundle.contract.embedding_dim)
    except (TypeError, ValueError) as error:
        reason = (done.stderr.strip() or "no embedding").splitlines()[-1]
        raise BundleError(f"{script}: ended with {done.returncode}: {reason}; {_COPY_AGAIN}") from error
    return f"on a WAV file, {_difference(bundle, script, embedding, golden['short_embedding'])}"


def _check_checkpoint(bundle: Bundle, models: Models) -> str:
    if CHECKPOINT not in bundle.files:
        raise _NotChecked(f"exported without {CHECKPOINT}; only training needs it")
    from .export.fold import FromCQT
    from .training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(bundle.path)
    stored = models[bundle.model].layers
    folded = FromCQT(checkpoint.config.front_end, checkpoint.network).state_dict()
    another = f"{bundle.checkpoint}: of another network than {MODEL}"
    if checkpoint.config.front_end != bundle.contract.front_end:
        raise BundleError(f"{another}, its front end differs; {_COPY_AGAIN}")
    if folded.keys() != stored.keys() and not _stored_once(models[bundle.model]):
        raise BundleError(f"{another}: {min(folded.keys() ^ stored.keys())} is in one only; {_COPY_AGAIN}")
    for name in sorted(folded.keys() & stored.keys()):
        ours, (theirs, integer_step) = folded[name].numpy(), stored[name]
        allowed = ROUNDING_OF_LARGEST * np.abs(theirs).max() + integer_step + HALF_STEP
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=ROUNDING, atol=allowed):
            raise BundleError(f"{another}: {name} differs; {_COPY_AGAIN}")
    return f"folds to the {len(folded)} weights of {MODEL}"
