"""The int8 form of a graph: the backbone's convolutions in 8 bits, all else as it was, a note map included.

Static quantisation in the QDQ form (QuantizeLinear and DequantizeLinear around what is to be computed in integers),
which is plain ONNX: activations uint8 with one scale per tensor, from the smallest and largest value on calibration
songs; weights int8 with one scale per output channel. Weights use 7 of their 8 bits: x86-64 without VNNI adds two
products in 16 bits, which would saturate
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). The front end, the norms, GeM and the
final layer stay in float: the front end because 8 bits hold 48 dB and music more, the others because they cost next to
nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from onnx.utils import Extractor
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ..errors import ExportError
from ..metrics import evaluate
from ..training.data.corpus import Corpus
from ..training.data.feature_cache import FeatureCache, pool_track
from .graph import in_single_precision

# Of any component of a unit embedding. Which kernels a runtime has decides how it rounds, and a rounding that falls the
# other way is a whole step of 8 bits.
INT8_TOLERANCE = 0.02
LARGEST_LOSS = 0.005  # of MAP


@dataclass(frozen=True)
class CalibrationSet:
    """Tracks that calibrate the int8 form and judge it: pooled CQTs (n_bins, T), as ``model_cqt.onnx`` takes them."""

    calibration: Sequence[NDArray[np.float32]]
    validation: Sequence[NDArray[np.float32]]
    work_ids: Sequence[str]  # of the validation's tracks
    source: str  # what the validation's are, for the model card

    @classmethod
    def of(cls, calibration: Corpus, validation: Corpus, cache: FeatureCache, source: str) -> CalibrationSet:
        """Whole tracks of two corpora, computed where the cache does not hold them."""

        def pooled(corpus: Corpus) -> list[NDArray[np.float32]]:
            tracks = (cache.load(track) for _, track in corpus.tracks())
            return [pool_track(cqt, cache.front_end, cache.pooling)[0].numpy() for cqt in tracks]

        return cls(pooled(calibration), pooled(validation), [work_id for work_id, _ in validation.tracks()], source)


@dataclass(frozen=True)
class Int8Cost:
    """The cost of quantisation, on the validation songs."""

    source: str  # of the songs
    map_float: float
    map_int8: float
    smallest_cosine: float  # of the embeddings of one track
    largest_difference: float  # of any component: int8 kernels against the same arithmetic in float


def quantize(model: ModelProto, calibration: Sequence[NDArray[np.float32]]) -> ModelProto:
    """`model`, which takes waveforms, with the convolutions of its backbone in int8.

    The same model and songs give the same result. What calibration adds is named after the layer: a scale and a
    zero point for each weight (``<weight>_scale``) and for what goes into and comes out of it (``activation.*``).
    """
    model = in_single_precision(model)
    network = network_part(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_static(
            network,
            path,
            _Reader(network.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[node.name for node in network.graph.node if "transposing" in node.input],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(path)
    return _with_network(model, network, quantized)


def check_int8(model: bytes, quantized: bytes, songs: CalibrationSet) -> Int8Cost:
    """Compare the int8 form of a graph with the graph.

    Raises
    ------
    ExportError
        If MAP on the validation songs falls by more than `LARGEST_LOSS`, or int8 kernels give another embedding than
        the same arithmetic in float by more than `INT8_TOLERANCE`.
    """
    exact, kernels, reference = (
        _embed(network_part(onnx.load_from_string(content)), songs.validation, optimise)
        for content, optimise in ((model, True), (quantized, True), (quantized, False))
    )
    track_ids = [str(number) for number in range(len(songs.validation))]
    map_float, map_int8 = (evaluate(embeddings, songs.work_ids, track_ids).map for embeddings in (exact, kernels))
    difference = np.abs(kernels - reference).max()
    if not difference <= INT8_TOLERANCE:
        raise ExportError(
            f"int8 kernels of ONNX Runtime give embeddings that differ by {difference:.1e} from the same arithmetic in "
            f"float, more than {INT8_TOLERANCE:g}: nothing was written; quantise on another machine"
        )
    if not map_int8 >= map_float - LARGEST_LOSS:
        raise ExportError(
            f"int8 costs {map_float - map_int8:.4f} of MAP on {songs.source} ({map_float:.4f} to {map_int8:.4f}), more "
            f"than {LARGEST_LOSS:g}: nothing was written; calibrate on other or more songs"
        )
    return Int8Cost(songs.source, map_float, map_int8, float((exact * kernels).sum(axis=1).min()), float(difference))


def network_part(model: ModelProto) -> ModelProto:
    """The part of `model` from the pooled CQT (B, n_bins, T) to what is divided by its norm, (B, D)."""
    nodes = model.graph.node
    start = next(node.output[0] for node in nodes if node.op_type == "ReduceMean")  # over time_pooling frames
    end = next(node.input[0] for node in nodes if node.op_type == "ReduceL2")
    network = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([start], [end])
    # ONNX Runtime looks for this before it quantises. Its own preparation folds and renames what should stay as it is.
    network.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return network


def _with_network(model: ModelProto, network: ModelProto, quantized: ModelProto) -> ModelProto:
    """`model` with its part `network` replaced by the `quantized` form."""
    replaced = {name for node in network.graph.node for name in node.output}
    nodes = list(model.graph.node)
    first = next(index for index, node in enumerate(nodes) if node.output[0] in replaced)
    before, after = nodes[:first], [node for node in nodes[first:] if node.output[0] not in replaced]
    kept = {name for node in (*before, *after) for name in node.input}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in kept}
    initializers |= {tensor.name: tensor for tensor in quantized.graph.initializer}
    renamed = _names(quantized)

    whole = ModelProto()
    whole.CopyFrom(model)
    del whole.graph.node[:], whole.graph.initializer[:]
    whole.graph.node.extend([*before, *quantized.graph.node, *after])
    for node in whole.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for tensor in initializers.values():  # as raw bytes, which is how the exporter stores all others
        name = renamed.get(tensor.name, tensor.name)
        whole.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensor), name))
    return whole


def _names(quantized: ModelProto) -> dict[str, str]:
    """Our names of scales and zero points, by the names that ONNX Runtime gave them."""
    names: dict[str, str] = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            names |= {name: f"activation.{name}" for name in node.input[1:]}
        elif node.op_type == "DequantizeLinear":
            names |= {name: name.replace(".bias_quantized_", ".bias_") for name in node.input[1:] if ".bias_" in name}
    return names


def _embed(network: ModelProto, cqts: Sequence[NDArray[np.float32]], optimise: bool) -> NDArray[np.float32]:
    """Unit embeddings (N, D) of pooled CQTs, one thread; not to `optimise` leaves the arithmetic of int8 in float."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = np.concatenate([session.run(None, {name: cqt[None]})[0] for cqt in cqts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no hints
    """CQTs one by one, as ONNX Runtime asks for them."""

    def __init__(self, name: str, cqts: Sequence[NDArray[np.float32]]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.float32]]] = ({name: cqt[None]} for cqt in cqts)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)
