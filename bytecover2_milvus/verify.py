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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .check import Check
from .embedding.bundle import (
    CARD,
    CHECKPOINT,
    CONTRACT,
    EMBED,
    GOLDEN,
    MODEL,
    MODEL_CQT,
    SUMS,
    Bundle,
    damaged_files,
    make_chroma_id,
    make_model_id,
    open_bundle,
    read_sums,
    unlisted_files,
)
from .embedding.contract import COPY_AGAIN, INPUT, INPUT_CQT, OUTPUT, OUTPUT_CHROMA, check_graph, check_metadata
from .embedding.embedder import Embedder
from .embedding.onnx_file import OnnxFile, is_int8
from .embedding.session import onnx_runtime_errors
from .errors import BundleError, BytecoverError, DeviceError
from .extras import why_not_imported
from .untrusted import DAMAGED, read_bytes, read_npz, read_text, shorten

GOLDEN_BYTES = 256 << 20  # of the golden vectors, unpacked: some minutes of audio
TRAINING_ONLY = {"BatchNormalization", "Dropout"}  # folded, and without effect: a graph for inference has neither
# Half precision rounds twice on the way to the checkpoint and the model: 3 x 2^-11 of a weight at most. What is too
# small for half precision's full accuracy is judged by its layer's largest weight.
ROUNDING, ROUNDING_OF_LARGEST = 2**-9, 2**-16
HALF_STEP = 2**-24  # half precision's smallest number: all that a layer has which began at zero and has hardly learned
CONSUMER_TIMEOUT_S = 120.0
CHROMA_TOLERANCE = 0.01  # of a value in [0, 1]: far below one of the 16 levels that are aligned

_ABSOLUTE_PATH = re.compile(r"(?:^|[\s\"'=:(])(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\|\.py\b")

Golden = Mapping[str, NDArray[Any]]
Models = Mapping[Path, OnnxFile]


class _NotChecked(Exception):
    """The reason why a check does not apply here."""


def verify(path: str | Path, device: str = "auto", *, trust: bool = False) -> Iterator[Check]:
    """One result per check of the bundle in the folder `path`; of the files, one per fault.

    Nothing more is looked at once a file or the contract is at fault, or the graph is another than the contract says:
    that is not run.

    Parameters
    ----------
    path : str or Path
    device : {"auto", "cpu", "cuda"}
        Where the golden vectors are embedded; "auto" is the CPU, and CUDA where it works.
    trust : bool
        Whether to run the bundle's ``embed.py`` even if it is not the one that comes with this package.
    """
    path = Path(path)

    def find(check: str, look: Callable[[], str], otherwise: str = "failed") -> Check:
        try:
            return Check(check, "ok", look())
        except _NotChecked as reason:
            return Check(check, "skipped", str(reason))
        except ImportError as error:
            return Check(check, "skipped", why_not_imported(error, "train"))
        except DeviceError as error:
            return Check(check, otherwise, str(error))
        except BytecoverError as error:
            return Check(check, "failed", str(error))
        except DAMAGED as error:  # content that no check foresaw
            return Check(check, "failed", f"{path}: {type(error).__name__}: {shorten(error)}; {COPY_AGAIN}")

    if faults := list(_faults(path)):
        yield from (Check("files", "failed", fault) for fault in faults)
        return
    yield find("files", lambda: f"all are there and as {SUMS} says")
    try:
        bundle = open_bundle(path)
        _check_card(bundle)
    except BundleError as error:
        yield Check("contract", "failed", str(error))
        return
    contract = bundle.contract
    yield find("contract", lambda: f"version {contract.contract_version}, {contract.name}, model {contract.model_id}")
    try:
        models = {path / name: OnnxFile.read(path / name) for name in (MODEL, MODEL_CQT) if name in bundle.files}
        golden = _read_golden(bundle)
    except BundleError as error:
        yield Check("contents", "failed", str(error))
        return
    promised = [find("metadata", lambda: _check_metadata(bundle, models))]
    promised.append(find("graph", lambda: _check_graph(bundle, models)))
    yield from promised
    if any(found.status == "failed" for found in promised):
        return
    yield find("leftovers", lambda: _check_leftovers(models))
    yield find("final layer", lambda: _check_final_layer(bundle, models))
    yield find("weights", lambda: _check_weights(bundle, models))
    for name in ("cpu", "cuda") if device == "auto" else (device,):
        otherwise = "skipped" if (device, name) == ("auto", "cuda") else "failed"
        yield find(name, partial(_check_golden, bundle, golden, name), otherwise)
    yield find("cqt form", lambda: _check_cqt_form(bundle, models, golden))
    yield find("embed.py", lambda: _check_consumer(bundle, golden, trust))
    yield find("checkpoint", lambda: _check_checkpoint(bundle, models))


def _faults(path: Path) -> Iterator[str]:
    """The faults of the files of a bundle, a sentence each."""
    try:
        if not (path / SUMS).is_file():
            open_bundle(path)  # says what the folder is instead
        listed = read_sums(path / SUMS)
        for name in (MODEL, CONTRACT, GOLDEN, EMBED, CARD):
            if name not in listed:
                yield f"{path / SUMS}: does not list {name}; {COPY_AGAIN}"
        yield from damaged_files(path, listed)
        for file in unlisted_files(path, listed):
            yield f"{file}: not listed in {SUMS}, so no part of the bundle; remove it, or {COPY_AGAIN}"
    except BundleError as error:
        yield str(error)
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path}: cannot be read ({error}); check its permissions or copy it again"


def _check_card(bundle: Bundle) -> None:
    card, model_id = bundle.path / CARD, bundle.contract.model_id
    try:
        text = read_text(card)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{card}: cannot be read as text ({shorten(error)}); {COPY_AGAIN}") from error
    if model_id not in text:
        raise BundleError(f"{card}: of another model, it does not name {model_id}; {COPY_AGAIN}")


def _read_golden(bundle: Bundle) -> Golden:
    path, contract = bundle.path / GOLDEN, bundle.contract
    try:
        golden = read_npz(path, GOLDEN_BYTES)
        for name in ("long", "short"):
            waveform, embedding, cqt = (golden.get(f"{name}_{what}") for what in ("waveform", "embedding", "cqt"))
            if waveform is None or waveform.dtype != np.int16 or waveform.ndim != 1:
                raise ValueError(f"{name}_waveform: int16 (samples,) is needed")
            chroma, facts = golden.get(f"{name}_chroma"), contract.chroma
            if facts and (chroma is None or chroma.dtype != np.float32 or chroma.shape[1:] != (facts.channels,)):
                raise ValueError(f"{name}_chroma: float32 (frames, {facts.channels}) is needed")
            if embedding is None or embedding.dtype != np.float32 or embedding.shape != (contract.embedding_dim,):
                raise ValueError(f"{name}_embedding: float32 ({contract.embedding_dim},) is needed")
            n_bins = contract.front_end.n_bins
            if cqt is not None and (cqt.dtype != np.float32 or cqt.ndim != 2 or len(cqt) != n_bins):
                raise ValueError(f"{name}_cqt: float32 ({n_bins}, frames) is needed")
    except DAMAGED as error:
        raise BundleError(f"{path}: not golden vectors ({shorten(error)}); {COPY_AGAIN}") from error
    return golden


def _check_metadata(bundle: Bundle, models: Models) -> str:
    for path, model in models.items():
        check_metadata(bundle.contract, path, model)
    n_fields, names = len(bundle.contract.to_metadata()), " and ".join(path.name for path in models)
    return f"{n_fields} fields of {CONTRACT} repeated in {names}"


def _check_graph(bundle: Bundle, models: Models) -> str:
    contract = bundle.contract
    for path, model in models.items():
        check_graph(contract, path, model, from_cqt=path.name == MODEL_CQT)
    versions = f"IR version {models[bundle.model].ir_version}, opset {contract.opset}"
    chroma = f" and {OUTPUT_CHROMA} (batch, frames, {contract.chroma.channels})" if contract.chroma else ""
    return f"{versions}, {INPUT} (batch, samples) to {OUTPUT} (batch, {contract.embedding_dim}){chroma}"


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
            raise BundleError(f"{path}: its weights are those of model {model_id}, not the contract's; {COPY_AGAIN}")
    facts = bundle.contract.chroma
    if not facts:
        return "their hash is the model_id"
    if make_chroma_id(models[bundle.model].note_weights) != facts.chroma_id:
        raise BundleError(f"{bundle.model}: its note map is another than the contract's; {COPY_AGAIN}")
    return "their hashes are model_id and chroma_id"


def _stored_once(model: OnnxFile) -> bool:
    """True if layers share a weight: the exporter stores what is equal once, under one of its names."""
    layers = ("Conv", "InstanceNormalization", "Gemm")
    used = [name for node in model.nodes if node.operator in layers for name in node.inputs[1:]]
    learned = [name for name in used if name.removesuffix(".half") in model.weights]
    return len(learned) > len(set(learned)) or "gem.exponent" not in model.weights


def _check_golden(bundle: Bundle, golden: Golden, device: str) -> str:
    embedder = Embedder(bundle.path, device)
    names = ("long", "short", "short")  # two of one length go through the network together
    try:
        heard = embedder.hear_batch(
            [golden[f"{name}_waveform"].astype(np.float32) / np.float32(32768) for name in names]
        )
    except DeviceError as error:  # it is there, but does not compute
        raise BundleError(f"{bundle.model}: ONNX Runtime cannot run it ({error})") from error
    for name, own in zip(names, heard, strict=True):
        if own.chroma is not None:
            _check_chroma(bundle, own.chroma, golden[f"{name}_chroma"])
    embeddings = np.stack([own.embedding for own in heard])
    expected = np.stack([golden[f"{name}_embedding"] for name in names])
    return f"{embedder.provider}, {_difference(bundle, bundle.model, embeddings, expected)}"


def _check_chroma(bundle: Bundle, chroma: NDArray[Any], expected: NDArray[Any]) -> None:
    """Refuse chroma that is not the golden one, but for rounding.

    Raises
    ------
    BundleError
    """
    difference = np.abs(chroma - expected).max() if chroma.shape == expected.shape else np.inf
    if not difference <= CHROMA_TOLERANCE:  # NaN too
        raise BundleError(
            f"{bundle.model}: chroma differs from {GOLDEN} by {difference:.1e}, more than {CHROMA_TOLERANCE:g}; "
            f"{COPY_AGAIN}, or install the onnxruntime that {CONTRACT} names"
        )


def _difference(bundle: Bundle, of: Path, embeddings: NDArray[Any], expected: NDArray[Any]) -> str:
    """The largest difference between `embeddings` and the golden ones, in words.

    Raises
    ------
    BundleError
        If that is beyond the contract's tolerance.
    """
    tolerance = bundle.contract.parity_tolerance
    difference = np.abs(embeddings - expected).max()
    if not difference <= tolerance:  # NaN too
        raise BundleError(
            f"{of}: differs from {GOLDEN} by {difference:.1e}, more than {tolerance:g}; {COPY_AGAIN}, or install the "
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
        raise BundleError(f"{bundle.path / GOLDEN}: has no {missing[0]}_cqt for {MODEL_CQT}; {COPY_AGAIN}")
    with _running(path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        rows = [session.run([OUTPUT], {INPUT_CQT: golden[f"{name}_cqt"][None]})[0][0] for name in names]
    embeddings, expected = np.stack(rows), np.stack([golden[f"{name}_embedding"] for name in names])
    return f"CPUExecutionProvider, {_difference(bundle, path, embeddings, expected)}"


@contextmanager
def _running(model: Path) -> Iterator[None]:
    """Errors of ONNX Runtime for a graph that it cannot run become a `BundleError` that names the file."""
    try:
        yield
    except onnx_runtime_errors() as error:
        raise BundleError(f"{model}: ONNX Runtime cannot run it ({shorten(error)}); {COPY_AGAIN}") from error


def _check_consumer(bundle: Bundle, golden: Golden, trust: bool) -> str:
    import soundfile

    script = bundle.path / EMBED
    ours = resources.files("bytecover2_milvus.export") / EMBED
    if not trust and read_bytes(script) != ours.read_bytes():
        raise _NotChecked("not run: it is not the one that comes with this package; read it, then add --trust")
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "golden.wav")
        soundfile.write(recording, golden["short_waveform"], bundle.contract.sample_rate, subtype="PCM_16")
        command = [sys.executable, "-P", str(script), str(bundle.path), str(recording)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CONSUMER_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{script}: no end after {CONSUMER_TIMEOUT_S:g} s; {COPY_AGAIN}") from error
    try:
        embedding = np.array(json.loads(done.stdout), dtype=np.float32).reshape(bundle.contract.embedding_dim)
    except (TypeError, ValueError) as error:
        reason = shorten((done.stderr.strip() or "no embedding").splitlines()[-1])
        raise BundleError(f"{script}: ended with {done.returncode}: {reason}; {COPY_AGAIN}") from error
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
        raise BundleError(f"{another}, its front end differs; {COPY_AGAIN}")
    if folded.keys() != stored.keys() and not _stored_once(models[bundle.model]):
        raise BundleError(f"{another}: {min(folded.keys() ^ stored.keys())} is in one only; {COPY_AGAIN}")
    for name in sorted(folded.keys() & stored.keys()):
        ours, (theirs, integer_step) = folded[name].numpy(), stored[name]
        allowed = ROUNDING_OF_LARGEST * np.abs(theirs).max() + integer_step + HALF_STEP
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=ROUNDING, atol=allowed):
            raise BundleError(f"{another}: {name} differs; {COPY_AGAIN}")
    if bundle.contract.chroma and checkpoint.note_map is None:
        raise BundleError(f"{another}: it has no note map; {COPY_AGAIN}")
    return f"folds to the {len(folded)} weights of {MODEL}"
