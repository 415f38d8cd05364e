"""The ONNX graph: as torch exports it, large weights in half precision, nothing of this machine left in the file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from ..config import SAMPLE_RATE, SHORTEST_FRAMES
from ..embedding.contract import INPUT, INPUT_CQT, OUTPUT, OUTPUT_CHROMA
from ..errors import ExportError
from .fold import FromCQT, InferenceModel

OPSET = 18  # the bundle that ships gives its golden vectors in ONNX Runtime 1.21 too, the oldest that was tried
HALF_ELEMENTS = 4096  # weights of at least so many elements are stored in half precision


def export_onnx(network: InferenceModel, metadata: Mapping[str, str]) -> bytes:
    """The file ``model.onnx``: `network` from waveform (batch, samples) to embedding (batch, D), both axes dynamic.

    With a note map there is a second output, chroma (batch, frames, channels).

    The same weights and metadata give the same bytes.

    Raises
    ------
    ExportError
        If torch exports another opset than asked for.
    """
    minimum_samples = network.config.minimum_samples
    # Axes of size one would be taken for constants, hence two waveforms longer than the minimum.
    example = torch.zeros(2, 3 * minimum_samples + SAMPLE_RATE)
    axes = {0: Dim("batch", min=1), 1: Dim("samples", min=minimum_samples)}
    if network.note_map is None:
        return to_file(_trace(network, INPUT, [OUTPUT], example, axes), metadata)
    model = _trace(network, INPUT, [OUTPUT, OUTPUT_CHROMA], example, axes)
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_param = "frames"  # torch writes a formula of samples
    return to_file(model, metadata)


def export_cqt_onnx(network: FromCQT, metadata: Mapping[str, str]) -> bytes:
    """The file ``model_cqt.onnx``: `network` from cqt (batch, n_bins, frames), batch and frames dynamic.

    Raises
    ------
    ExportError
        As `export_onnx`.
    """
    example = torch.zeros(2, network.config.n_bins, 5 * SHORTEST_FRAMES + 1)
    axes = {0: Dim("batch", min=1), 2: Dim("frames", min=SHORTEST_FRAMES)}
    return to_file(_trace(network, INPUT_CQT, [OUTPUT], example, axes), metadata)


def to_file(model: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a graph as it ships: stripped, in half precision where that is exact, with `metadata`.

    Raises
    ------
    ExportError
        If the graph is of another opset than `OPSET`.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"exported with opsets {opsets}, not {OPSET}: install the versions of the extra [train]")
    _strip(model)
    _store_half(model)
    model.producer_name, model.producer_version = "bytecover2-milvus", ""
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _trace(network: nn.Module, name: str, outputs: list[str], example: Tensor, axes: Mapping[int, Dim]) -> ModelProto:
    """`network` on one input of that name, shaped as `example` but for its dynamic `axes`."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of packages that are not needed here
    try:
        # With axes that are symbols, looking up what a shape gave before costs torch more than asking again.
        with warnings.catch_warnings(), torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
            warnings.simplefilter("ignore", FutureWarning)  # of torch's own calls
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[name],
                output_names=outputs,
                dynamic_shapes=(dict(axes),),
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # as dynamo=True always gives one
    return program.model_proto


def _strip(model: ModelProto) -> None:
    """Remove what torch notes about the source: stack traces with paths of this machine, names of classes."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _store_half(model: ModelProto) -> None:
    """Large initializers that half precision holds exactly become float16 with a Cast to float32.

    Results do not change; ONNX Runtime casts once, when it loads the file.
    """
    graph = model.graph
    casts = []
    for initializer in graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < HALF_ELEMENTS:
            continue
        weight = numpy_helper.to_array(initializer)
        half = weight.astype(np.float16)
        if np.array_equal(half, weight):
            name = initializer.name
            initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def in_single_precision(model: ModelProto) -> ModelProto:
    """A copy whose initializers are all float32 that `to_file` stored in half precision."""
    single = ModelProto()
    single.CopyFrom(model)
    graph = single.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith(".half")}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        tensor = halves[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return single
