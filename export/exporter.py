"""From a network to a bundle: fold, export, check, and only then write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch

from .. import __version__
from ..alignment.verdict import Verdict
from ..audio.load import MINIMUM_S
from ..audio.mixdown import SILENCE
from ..config import CHROMA_GROUPS, SAMPLE_RATE, Config, FrontEnd
from ..embedding.bundle import (
    CALIBRATION,
    CARD,
    CHECKPOINT,
    CONTRACT,
    EMBED,
    GOLDEN,
    MODEL,
    MODEL_CQT,
    SUMS,
    Bundle,
    make_chroma_id,
    make_model_id,
    open_bundle,
    write_sums,
)
from ..embedding.contract import FIRST_STAGE, SECOND_STAGE, ChromaFacts, Contract
from ..embedding.onnx_file import OnnxFile, is_int8
from ..errors import ExportError
from ..model.chroma_network import ChromaNetwork
from ..model.joined import MagnitudeToEmbedding
from ..model.network import ByteCover2
from ..model.note_map import CHROMA_FRAME_HOPS, NoteMap
from ..training.checkpoint import Checkpoint
from .card import model_card
from .fold import FromCQT, InferenceModel
from .golden import golden_cqts, golden_vectors
from .graph import OPSET, export_cqt_onnx, export_onnx, to_file
from .parity import TOLERANCE, check_cqt_parity, check_parity, probes
from .quantize import INT8_TOLERANCE, CalibrationSet, Int8Cost, check_int8, quantize


def write_bundle(
    config: Config,
    network: ByteCover2,
    out_dir: str | Path,
    *,
    facts: Mapping[str, str],
    note_map: NoteMap | None = None,
    chroma_network: ChromaNetwork | None = None,
    verdict: Verdict | None = None,
    checkpoint: bool = True,
    cqt: bool = False,
    int8: CalibrationSet | None = None,
    folded: Mapping[str, np.ndarray] | None = None,
) -> Bundle:
    """Export `network` to the folder `out_dir`, whole or not at all.

    Parameters
    ----------
    config : Config
        Of the network; its front end becomes part of the graph.
    network : ByteCover2
        In eval mode.
    out_dir : str or Path
        New, or a bundle, which is replaced.
    facts : mapping of str to str
        Where the weights come from and how good they are, for the model card: one row each.
    note_map : NoteMap, optional
        In eval mode. With it the graph gives chroma too, and the contract is of version 2.
    chroma_network : ChromaNetwork, optional
        In eval mode. A network that is joined needs it; the checkpoint in the bundle carries it in any case.
    verdict : Verdict, optional
        How similarities of this network and note map become probabilities, for ``calibration.json``.
    checkpoint : bool
        Whether the bundle carries the network as it was before folding, to train on from.
    cqt : bool
        Whether the bundle carries ``model_cqt.onnx`` too, for those who have the pooled CQT already.
    int8 : CalibrationSet, optional
        Quantise the backbone to int8: calibrated on these songs, and refused if it costs too much on them. Such a
        bundle has a model_id of its own, and no ``model_cqt.onnx``.
    folded : mapping of str to np.ndarray, optional
        Weights of the bundle that `network`, and perhaps `note_map`, came from (`OnnxFile.weights` and
        `note_weights`). The checkpoint in it is rounded, and folding rounds once more; with these the model stays the
        one it was.

    Raises
    ------
    ExportError
        If ONNX Runtime does not reproduce the network; if half precision cannot hold a weight of the checkpoint; if
        int8 costs too much; if `cqt` is combined with `int8` or with skipped silence, or either with a network that
        takes maps or is joined; if `folded` are weights of an int8 bundle, from whose checkpoint neither its own model
        nor the float one can be made again; or if `out_dir` holds something else or cannot be written.
    """
    _check_forms(config, cqt, bool(int8))
    out_dir = Path(out_dir).absolute()
    check_possible(out_dir, folded)
    shipped = InferenceModel(config.front_end, network, note_map, chroma_network)
    keep_weights(shipped, folded or {})
    contract = make_contract(config, shipped)
    model = export_onnx(shipped, contract.to_metadata())

    learned = Checkpoint(config, network, note_map, chroma_network, facts=dict(facts))
    embed_magnitude = MagnitudeToEmbedding(config, network, note_map, chroma_network)

    def embed(waveform: torch.Tensor) -> torch.Tensor:
        cqt = shipped.front_end.constant_q(waveform)
        return embed_magnitude(shipped.front_end.pooled(waveform, cqt, embed_magnitude.pooling))

    compared = probes(contract.minimum_samples)
    parity = check_parity(embed, shipped, model, compared)
    cost = None
    if int8:
        contract, model, cost = to_int8(contract, model, int8)
    golden = golden_vectors(model, contract)
    if cqt:
        from_cqt = FromCQT(config.front_end, network)
        from_cqt.load_state_dict(vector_weights(shipped))
        model_cqt = export_cqt_onnx(from_cqt, contract.to_metadata())
        check_cqt_parity(shipped, model_cqt, compared)
        golden |= golden_cqts(shipped, golden)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as temporary:
            folder = Path(temporary, "new")
            folder.mkdir()
            (folder / MODEL).write_bytes(model)
            if cqt:
                (folder / MODEL_CQT).write_bytes(model_cqt)
            (folder / CONTRACT).write_text(contract.to_json(), encoding="utf-8")
            if verdict:
                (folder / CALIBRATION).write_text(verdict.to_json(), encoding="utf-8")
            if checkpoint:
                (folder / CHECKPOINT).write_bytes(half_checkpoint(learned))
            (folder / CARD).write_text(model_card(contract, config.network, parity, facts, cqt, cost), encoding="utf-8")
            np.savez(folder / GOLDEN, **cast(dict[str, Any], golden))
            (folder / EMBED).write_bytes((resources.files("bytecover2_milvus.export") / EMBED).read_bytes())
            write_sums(folder)
            if out_dir.exists():
                os.replace(out_dir, Path(temporary, "old"))
            os.replace(folder, out_dir)
    except OSError as error:
        raise ExportError(f"{out_dir}: cannot be written ({error}); check the disk and its permissions") from error
    return open_bundle(out_dir)


def _check_forms(config: Config, cqt: bool, int8: bool) -> None:
    """Refuse forms of the network that do not exist.

    Raises
    ------
    ExportError
    """
    if cqt and int8:
        raise ExportError(f"{MODEL_CQT} comes in float only: export int8 without it")
    if (config.network.maps or config.network.joins) and (cqt or int8):
        raise ExportError(
            f"a network that takes maps or joins a chroma network comes as a float {MODEL} only: export it without"
            " --int8 and --cqt"
        )
    if cqt and config.front_end.silence == "skipped":
        raise ExportError(f"{MODEL_CQT} takes a CQT in which no silence was skipped: export it with silence kept")


def check_possible(out_dir: Path, folded: Mapping[str, np.ndarray] | None) -> None:
    """Make sure, before anything is computed, that a bundle may be written to `out_dir`, from the weights `folded`.

    Raises
    ------
    ExportError
        If it holds something else, or its parent cannot be made, or the weights are those of an int8 form.
    """
    if folded and is_int8(folded):
        raise ExportError("an int8 bundle: export from the float one it was made from")
    if out_dir.exists() and not (out_dir / SUMS).is_file() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ExportError(f"{out_dir}: exists and is no bundle; name a new folder")
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out_dir}: cannot be written ({error}); check the disk and its permissions") from error


def make_contract(config: Config, shipped: InferenceModel) -> Contract:
    kind = "bytecover" if config.network.feature_dim is None else "bytecover2"
    return Contract(
        name=f"{kind}-{config.network.embedding_dim}",
        model_id=make_model_id(config.front_end, as_arrays(vector_weights(shipped))),
        embedding_dim=config.network.embedding_dim,
        sample_rate=SAMPLE_RATE,
        minimum_samples=config.front_end.minimum_samples,
        shortest_samples=round(MINIMUM_S * SAMPLE_RATE),
        silence_peak=SILENCE,
        front_end=config.front_end,
        parity_tolerance=TOLERANCE,
        opset=OPSET,
        packages={
            "bytecover2-milvus": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,  # of whichever of its two packages is installed
            "onnxscript": onnxscript.__version__,
            "torch": str(torch.__version__),
        },
        contract_version=FIRST_STAGE if shipped.note_map is None else SECOND_STAGE,
        chroma=chroma_facts(config.front_end, shipped),
    )


def chroma_facts(front_end: FrontEnd, shipped: InferenceModel) -> ChromaFacts | None:
    """The contract's part on chroma; None without a note map."""
    if shipped.note_map is None or shipped.chroma is None:
        return None
    weights = {f"note_map.{name}": weight for name, weight in shipped.note_map.state_dict().items()}
    weights |= {f"chroma.{name}": weight for name, weight in shipped.chroma.named_buffers()}
    return ChromaFacts(make_chroma_id(as_arrays(weights)), CHROMA_GROUPS, CHROMA_FRAME_HOPS * front_end.hop_length)


def to_int8(contract: Contract, model: bytes, songs: CalibrationSet) -> tuple[Contract, bytes, Int8Cost]:
    """Contract and graph of the int8 form of a graph, and what it costs.

    Raises
    ------
    ExportError
        If it costs too much.
    """
    quantized = quantize(onnx.load_from_string(model), songs.calibration)
    weights = OnnxFile.parse(quantized.SerializeToString()).weights
    model_id = make_model_id(contract.front_end, weights)
    contract = replace(contract, model_id=model_id, parity_tolerance=INT8_TOLERANCE)
    content = to_file(quantized, contract.to_metadata())
    return contract, content, check_int8(model, content, songs)


def half_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The checkpoint that the bundle carries: kernels and matrices in half precision, all else as it is."""
    beyond = torch.finfo(torch.float16).max
    for network in filter(None, (checkpoint.network, checkpoint.note_map, checkpoint.chroma_network)):
        for name, weight in network.state_dict().items():
            if weight.ndim > 1 and weight.abs().max() > beyond:
                raise ExportError(
                    f"{name}: beyond {beyond:g}, half precision cannot hold it; export without the checkpoint"
                )
    return checkpoint.to_bytes(half=True)


def keep_weights(shipped: InferenceModel, folded: Mapping[str, np.ndarray]) -> None:
    """Give the vector's part of `shipped`, and its note map, the weights in `folded` where it has all of the part's."""
    vector = vector_weights(shipped).keys()
    for part in (vector, shipped.state_dict().keys() - vector):
        if part <= folded.keys():
            kept = {name: torch.from_numpy(folded[name].astype(np.float32)) for name in part}
            shipped.load_state_dict(shipped.state_dict() | kept)


def vector_weights(shipped: InferenceModel) -> dict[str, torch.Tensor]:
    """All that makes the embedding: the weights but for those of the note map, unless it is made of its maps."""
    if shipped.maps or shipped.chroma_network is not None:
        return dict(shipped.state_dict())
    return {name: weight for name, weight in shipped.state_dict().items() if not name.startswith("note_map.")}


def as_arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in weights.items()}
