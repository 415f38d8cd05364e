"""From a network to a bundle: fold, export, check, and only then write."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template
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
from ..config import CHROMA_GROUPS, SAMPLE_RATE, SHORTEST_FRAMES, Config, FrontEnd, Network
from ..embedding.bundle import (
    CALIBRATION,
    CHECKPOINT,
    CONTRACT,
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
from ..embedding.contract import FIRST_STAGE, INPUT, SECOND_STAGE, ChromaFacts, Contract
from ..embedding.onnx_file import OnnxFile, is_int8
from ..errors import ExportError
from ..model.network import ByteCover2
from ..model.network_input import NetworkInput
from ..model.note_map import CHROMA_FRAME_HOPS, NoteMap
from ..training.checkpoint import Checkpoint
from ..verify import CHROMA_TOLERANCE
from .fold import FromCQT, InferenceModel
from .graph import OPSET, export_cqt_onnx, export_onnx, to_file
from .parity import TOLERANCE, Parity, check_cqt_parity, check_parity, melody, probes, reference_session
from .quantize import INT8_TOLERANCE, LARGEST_LOSS, CalibrationSet, Int8Cost, check_int8, quantize

PROCESSOR_ROW = (
    "| processor | int8 gains on x86-64 with VNNI (AVX-512 VNNI or AVX-VNNI in the CPU's flags) and on Arm with dot "
    "product instructions (asimddp); elsewhere the embeddings are the same, but may come no faster than in float. For "
    "GPUs take the float bundle |\n"
)
GOLDEN_S = {"long": 20.0, "short": 3.0}  # seconds; the short one is repeated before it is embedded


def write_bundle(
    config: Config,
    network: ByteCover2,
    out_dir: str | Path,
    *,
    facts: Mapping[str, str],
    note_map: NoteMap | None = None,
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
        If ONNX Runtime does not reproduce the network, half precision cannot hold a weight, int8 costs too much or is
        asked for together with `cqt`, `cqt` is asked for where silence is skipped, either is where the network takes
        maps, `folded` are those of an int8 form, whose checkpoint makes neither its own model nor the float one's, or
        `out_dir` cannot be written or holds something else.
    """
    if cqt and int8:
        raise ExportError(f"{MODEL_CQT} comes in float only: export int8 without it")
    if config.network.maps and (cqt or int8):
        raise ExportError(
            f"a network that takes maps comes as a float {MODEL} only: export it without --int8 and --cqt"
        )
    if cqt and config.front_end.silence == "skipped":
        raise ExportError(f"{MODEL_CQT} takes a CQT in which no silence was skipped: export it with silence kept")
    out_dir = Path(out_dir).absolute()
    check_possible(out_dir, folded)
    shipped = InferenceModel(config.front_end, network, note_map)
    keep_weights(shipped, folded or {})
    contract = make_contract(config, shipped)
    model = export_onnx(shipped, contract.to_metadata())

    network_input = NetworkInput(config.front_end, config.network, note_map)

    def embed(waveform: torch.Tensor) -> torch.Tensor:
        magnitude = shipped.front_end.constant_q(waveform)
        return network.embed(network_input(shipped.front_end.pooled(waveform, magnitude, network_input.pooling)))

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
                (folder / CHECKPOINT).write_bytes(half_checkpoint(config, network, note_map, facts))
            (folder / "MODEL_CARD.md").write_text(
                model_card(contract, config.network, parity, facts, cqt, cost), encoding="utf-8"
            )
            np.savez(folder / GOLDEN, **cast(dict[str, Any], golden))
            shutil.copyfile(_template("embed.py"), folder / "embed.py")
            write_sums(folder)
            if out_dir.exists():
                os.replace(out_dir, Path(temporary, "old"))
            os.replace(folder, out_dir)
    except OSError as error:
        raise ExportError(f"{out_dir}: cannot be written ({error}); check the disk and its permissions") from error
    return open_bundle(out_dir)


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


def half_checkpoint(config: Config, network: ByteCover2, note_map: NoteMap | None, facts: Mapping[str, str]) -> bytes:
    """The checkpoint that the bundle carries: kernels and matrices in half precision, all else as it is."""
    beyond = torch.finfo(torch.float16).max
    learned = network.state_dict() | (note_map.state_dict() if note_map else {})
    for name, weight in learned.items():
        if weight.ndim > 1 and weight.abs().max() > beyond:
            raise ExportError(
                f"{name}: beyond {beyond:g}, half precision cannot hold it; export without the checkpoint"
            )
    return Checkpoint(config, network, note_map, facts=dict(facts)).to_bytes(half=True)


def keep_weights(shipped: InferenceModel, folded: Mapping[str, np.ndarray]) -> None:
    """Give the vector's part of `shipped`, and its note map, the weights in `folded` where it has all of the part's."""
    vector = vector_weights(shipped).keys()
    for part in (vector, shipped.state_dict().keys() - vector):
        if part <= folded.keys():
            kept = {name: torch.from_numpy(folded[name].astype(np.float32)) for name in part}
            shipped.load_state_dict(shipped.state_dict() | kept)


def vector_weights(shipped: InferenceModel) -> dict[str, torch.Tensor]:
    """All that makes the embedding: the weights but for those of the note map, unless the network takes its maps."""
    if shipped.maps:
        return dict(shipped.state_dict())
    return {name: weight for name, weight in shipped.state_dict().items() if not name.startswith("note_map.")}


def as_arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in weights.items()}


def golden_vectors(model: bytes, contract: Contract) -> dict[str, np.ndarray]:
    """Waveforms as int16 (full scale 32768), and embeddings and chroma as ONNX Runtime gives them on the CPU."""
    session = reference_session(model)
    golden = {}
    for seed, (name, duration_s) in enumerate(GOLDEN_S.items()):
        pcm = np.round(melody(round(duration_s * SAMPLE_RATE), seed) * 32767).astype(np.int16)
        waveform = _long_enough(pcm, contract.minimum_samples)
        golden[f"{name}_waveform"] = pcm
        golden[f"{name}_embedding"], *chroma = (rows[0] for rows in session.run(None, {INPUT: waveform[None]}))
        for frames in chroma:  # one array with a second stage, else none
            n_frames = (1 + len(pcm) // contract.front_end.hop_length) // CHROMA_FRAME_HOPS
            golden[f"{name}_chroma"] = frames[:n_frames]
    return golden


def golden_cqts(shipped: InferenceModel, golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The pooled CQT (n_bins, T) of every golden waveform: ``model_cqt.onnx`` gives the same embeddings for them."""
    cqts = {}
    for name in GOLDEN_S:
        waveform = _long_enough(golden[f"{name}_waveform"], shipped.config.minimum_samples)
        with torch.inference_mode():
            cqts[f"{name}_cqt"] = shipped.pool_cqt(torch.from_numpy(waveform)[None])[0].numpy()
    return cqts


def _long_enough(pcm: np.ndarray, minimum_samples: int) -> np.ndarray:
    """A waveform of int16 as float32, repeated in whole copies if it is short."""
    return np.tile(pcm.astype(np.float32) / 32768, -(-minimum_samples // len(pcm)))


def model_card(
    contract: Contract, network: Network, parity: Parity, facts: Mapping[str, str], cqt: bool, int8: Int8Cost | None
) -> str:
    front_end = contract.front_end
    moved = [f"{bins * 12 / front_end.bins_per_octave:g}" for bins in network.transpositions]
    listed = " and ".join(filter(None, (", ".join(moved[:-1]), moved[-1])))
    averaged = "" if network.transpositions == (0,) else f" (mean over transpositions by {listed} semitones)"
    full = Network()
    reduced = (network.stage_blocks, network.base_width) != (full.stage_blocks, full.base_width)
    size = f"{', '.join(map(str, network.stage_blocks))} blocks, {network.base_width} channels wide"
    cqt_row = (
        f"| `{MODEL_CQT}` | the same network from `cqt`, float32, (batch, {front_end.n_bins}, frames), frames at least "
        f"{SHORTEST_FRAMES}: magnitude as `abs(librosa.cqt(..., hop_length={front_end.hop_length}))`, mean over whole "
        f"blocks of {front_end.time_pooling}, at any level |\n"
    )
    chroma = contract.chroma
    chroma_row = chroma and (
        f"| output | `chroma`, float32, (batch, frames, {chroma.channels}), in [0, 1], one frame per "
        f"{chroma.frame_samples} samples: groups of twelve pitch classes, C first, of {', '.join(chroma.groups)}. A "
        "second stage aligns it. Of a waveform that was repeated, only the frames of its own length count |\n"
        f"| chroma_id | `{chroma.chroma_id}` |\n"
    )
    chroma_use = "This bundle has no second stage: it gives no chroma."
    if chroma:
        hop, frame = front_end.hop_length, chroma.frame_samples
        chroma_use = (
            "Chroma is for a second stage, which aligns two recordings; whoever compares embeddings alone may ignore "
            "it. It\ncompares only within one `chroma_id`. Keep its first "
            f"(1 + samples // {hop}) * {hop} // {frame} frames, counting the\nsamples of the recording before it was "
            "repeated. That of `golden.npz` comes back within "
            f"{CHROMA_TOLERANCE:g}."
        )
    return Template(_template("MODEL_CARD.md").read_text(encoding="utf-8")).substitute(
        name=contract.name,
        model_id=contract.model_id,
        licence=contract.licence,
        contract_version=contract.contract_version,
        dim=contract.embedding_dim,
        sample_rate=contract.sample_rate,
        minimum_s=f"{contract.minimum_samples / contract.sample_rate:.1f}",
        shortest_s=f"{contract.shortest_samples / contract.sample_rate:g}",
        silence_peak=f"{contract.silence_peak:g}",
        n_bins=front_end.n_bins,
        hop_length=front_end.hop_length,
        frame_s=f"{front_end.frame_s:.2f}",
        scale=front_end.scale,
        silence=", silence at both ends skipped" if front_end.silence == "skipped" else "",
        transpositions=averaged,
        backbone=f"ResNet-IBN of {size} (the paper: 3, 4, 6, 3 and 64)" if reduced else "ResNet50-IBN",
        final="no further layer" if network.feature_dim is None else "one linear layer",
        cqt_row=cqt_row if cqt else "",
        chroma_row=chroma_row or "",
        chroma_use=chroma_use,
        opset=contract.opset,
        arithmetic=(
            "convolutions in int8 (activations of 8 bits, weights of 7), all else in float32"
            if int8
            else "weights in half precision, arithmetic in float32"
        ),
        processor_row=PROCESSOR_ROW if int8 else "",
        tolerance=f"{contract.parity_tolerance:g}",
        parity_tolerance=f"{TOLERANCE:g}",
        int8_cost=_int8_cost(int8) if int8 else "",
        difference=f"{parity.largest_difference:.1e}",
        rounding_cosine=f"{parity.rounding_cosine:.6f}",
        facts="\n".join(f"| {key} | {value} |" for key, value in (facts or {"Weights": "not stated"}).items()),
        packages=", ".join(f"{name} {version}" for name, version in contract.packages.items()),
    )


def _int8_cost(cost: Int8Cost) -> str:
    return (
        f"* int8 against the network in float on {cost.source}: MAP {cost.map_float:.4f} in float, {cost.map_int8:.4f} "
        f"in int8; smallest\n  cosine between the two embeddings of a track: {cost.smallest_cosine:.4f}. The bundle is "
        f"written only if MAP falls by at most {LARGEST_LOSS:g}.\n"
        f"* Largest difference between int8 kernels and the same arithmetic in float: {cost.largest_difference:.1e}.\n"
    )


def _template(name: str) -> Path:
    return Path(str(resources.files("bytecover2_milvus.export") / name))
