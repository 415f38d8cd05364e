"""The model card of a bundle: ``MODEL_CARD.md`` of this folder, filled in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from string import Template

from ..config import SHORTEST_FRAMES, FrontEnd, Network
from ..embedding.bundle import CARD, MODEL_CQT
from ..embedding.contract import ChromaFacts, Contract
from ..verify import CHROMA_TOLERANCE
from .parity import TOLERANCE, Parity
from .quantize import LARGEST_LOSS, Int8Cost

PROCESSOR_ROW = (
    "| processor | int8 gains on x86-64 with VNNI (AVX-512 VNNI or AVX-VNNI in the CPU's flags) and on Arm with dot "
    "product instructions (asimddp); elsewhere the embeddings are the same, but may come no faster than in float. For "
    "GPUs take the float bundle |\n"
)


def model_card(
    contract: Contract, network: Network, parity: Parity, facts: Mapping[str, str], cqt: bool, int8: Int8Cost | None
) -> str:
    """The text of ``MODEL_CARD.md``.

    Parameters
    ----------
    contract : Contract
    network : Network
    parity : Parity
        Of the exported graph and the network.
    facts : mapping of str to str
        Where the weights come from and how good they are: one row each.
    cqt : bool
        Whether the bundle has ``model_cqt.onnx``.
    int8 : Int8Cost, optional
        What the int8 form costs, if it is one.
    """
    front_end, full = contract.front_end, Network()
    reduced = (network.stage_blocks, network.base_width) != (full.stage_blocks, full.base_width)
    size = f"{', '.join(map(str, network.stage_blocks))} blocks, {network.base_width} channels wide"
    return Template((resources.files("bytecover2_milvus.export") / CARD).read_text(encoding="utf-8")).substitute(
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
        transpositions=_transpositions(network, front_end),
        backbone=f"ResNet-IBN of {size} (the paper: 3, 4, 6, 3 and 64)" if reduced else "ResNet50-IBN",
        final="no further layer" if network.feature_dim is None else "one linear layer",
        cqt_row=_cqt_row(front_end) if cqt else "",
        chroma_row=_chroma_row(contract.chroma) if contract.chroma else "",
        chroma_use=_chroma_use(contract.chroma, front_end),
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


def _transpositions(network: Network, front_end: FrontEnd) -> str:
    if network.transpositions == (0,):
        return ""
    moved = [f"{bins * 12 / front_end.bins_per_octave:g}" for bins in network.transpositions]
    listed = " and ".join(filter(None, (", ".join(moved[:-1]), moved[-1])))
    return f" (mean over transpositions by {listed} semitones)"


def _cqt_row(front_end: FrontEnd) -> str:
    return (
        f"| `{MODEL_CQT}` | the same network from `cqt`, float32, (batch, {front_end.n_bins}, frames), frames at least "
        f"{SHORTEST_FRAMES}: magnitude as `abs(librosa.cqt(..., hop_length={front_end.hop_length}))`, mean over whole "
        f"blocks of {front_end.time_pooling}, at any level |\n"
    )


def _chroma_row(chroma: ChromaFacts) -> str:
    return (
        f"| output | `chroma`, float32, (batch, frames, {chroma.channels}), in [0, 1], one frame per "
        f"{chroma.frame_samples} samples: groups of twelve pitch classes, C first, of {', '.join(chroma.groups)}. A "
        "second stage aligns it. Of a waveform that was repeated, only the frames of its own length count |\n"
        f"| chroma_id | `{chroma.chroma_id}` |\n"
    )


def _chroma_use(chroma: ChromaFacts | None, front_end: FrontEnd) -> str:
    if chroma is None:
        return "This bundle has no second stage: it gives no chroma."
    hop, frame = front_end.hop_length, chroma.frame_samples
    return (
        "Chroma is for a second stage, which aligns two recordings; whoever compares embeddings alone may ignore "
        "it. It\ncompares only within one `chroma_id`. Keep its first "
        f"(1 + samples // {hop}) * {hop} // {frame} frames, counting the\nsamples of the recording before it was "
        f"repeated. That of `golden.npz` comes back within {CHROMA_TOLERANCE:g}."
    )


def _int8_cost(cost: Int8Cost) -> str:
    return (
        f"* int8 against the network in float on {cost.source}: MAP {cost.map_float:.4f} in float, {cost.map_int8:.4f} "
        f"in int8; smallest\n  cosine between the two embeddings of a track: {cost.smallest_cosine:.4f}. The bundle is "
        f"written only if MAP falls by at most {LARGEST_LOSS:g}.\n"
        f"* Largest difference between int8 kernels and the same arithmetic in float: {cost.largest_difference:.1e}.\n"
    )
