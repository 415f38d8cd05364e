"""The parts of an ONNX file, read with numpy alone: where a bundle is served there is no onnx package.

An ONNX file is one protobuf message. Field numbers are those of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), the encoding is
https://protobuf.dev/programming-guides/encoding. Only what `OnnxFile` holds is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..untrusted import DAMAGED, read_bytes

FLOAT, UINT8, INT8, INT32, FLOAT16 = 1, 2, 3, 6, 10  # TensorProto.DataType
_DTYPES = {
    code: np.dtype(name)
    for code, name in zip((FLOAT, UINT8, INT8, INT32, FLOAT16), ("<f4", "u1", "i1", "<i4", "<f2"), strict=True)
}
FILE_BYTES = 2 << 30  # protobuf holds no more
MOST_FIELDS = 1 << 20  # of one message: each takes more memory here than in the file
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types

_NETWORK = ("backbone.", "gem.", "final.", "activation.", "transposing", "chroma_network.")
_OWN = ("", "ai.onnx")  # domain of ONNX's own operators

Fields = dict[int, list[Any]]  # field number -> whole numbers, or the bytes of strings, arrays and messages


@dataclass(frozen=True)
class Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    holds_graphs: bool = False  # as Loop, Scan and If do: how often those run is not in the file


@dataclass(frozen=True)
class OnnxFile:
    """The parts of an ONNX file that a contract speaks of."""

    ir_version: int  # of the file's own form, which a runtime knows up to some number
    opsets: dict[str, int]  # domain -> version
    inputs: dict[str, tuple[int, list[int | str]]]  # name -> element type and axes: a length, or the name of a free one
    outputs: dict[str, tuple[int, list[int | str]]]
    nodes: tuple[Node, ...]
    constants: frozenset[str]  # names of all initializers
    arrays: dict[str, NDArray[Any]]  # those in single and half precision and in the integers of an int8 form
    names: frozenset[str]  # of the graph, its nodes and its values, and of the producer
    notes: tuple[str, ...]  # what an exporter notes about the source: doc strings, metadata of graph and nodes
    metadata: dict[str, str]  # of the model
    self_contained: bool  # no weights in other files, no functions, no operators but ONNX's own, nothing for a trainer

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Name -> values as they are stored, of all that makes the model: learned, calibrated, its transpositions.

        Of a network that takes the note map's maps, or is joined with a chroma network, that is the note map too. Not
        among them are the front end's kernels, which follow from its settings.
        """
        stem = next((value for name, value in self.arrays.items() if name.startswith("backbone.conv1.weight")), None)
        takes_maps = stem is not None and stem.ndim == 4 and stem.shape[1] > 1
        joined = any(name.startswith("chroma_network.") for name in self.arrays)
        return self._named((*_NETWORK, "note_map.") if takes_maps or joined else _NETWORK)

    @property
    def note_weights(self) -> dict[str, NDArray[Any]]:
        """Name -> values as they are stored, of the note map and its folding; empty without one."""
        return self._named(("note_map.", "chroma."))

    def _named(self, parts: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        return {name.removesuffix(".half"): value for name, value in self.arrays.items() if name.startswith(parts)}

    @property
    def layers(self) -> dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]]:
        """Name in the network -> values that training has learned, and how far rounding to integers may be off."""
        weights = self._named(_NETWORK)
        layers: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]] = {}
        for stored, value in weights.items():
            name = stored.removesuffix("_quantized")
            if name != stored:  # one scale for each slice of the first axis
                scale = weights[f"{name}_scale"].reshape(-1, *[1] * (value.ndim - 1))
                layers[name] = (value * scale, scale / 2)
            elif not stored.startswith("activation.") and not stored.endswith(("_scale", "_zero_point")):
                layers[name] = (value.astype(np.float32), np.zeros((), np.float32))
        return layers

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """The ONNX file at `path`.

        Raises
        ------
        BundleError
            If it is no ONNX file or ends early.
        """
        try:
            return cls.parse(read_bytes(path, FILE_BYTES))
        except DAMAGED as error:
            raise BundleError(f"{path}: not an ONNX file, or a part of one; copy the bundle again") from error

    @classmethod
    def parse(cls, content: bytes) -> OnnxFile:
        """The ONNX file of that content, which is known to be one."""
        model = _fields(content)
        [graph] = map(_fields, model[7])
        nodes = [_fields(node) for node in graph[1]]
        initializers = [_fields(tensor) for tensor in graph[5]]
        values = [_fields(value) for number in (11, 12, 13) for value in graph[number]]  # inputs, outputs, others
        attributes = [[_fields(attribute) for attribute in node[5]] for node in nodes]
        tensors = [_fields(tensor) for fields in attributes for each in fields for n in (5, 10) for tensor in each[n]]
        external = any(tensor[13] or tensor[14] for tensor in (*initializers, *tensors))
        sparse = graph[15] or any(each[22] or each[23] for fields in attributes for each in fields)
        return cls(
            ir_version=model[1][-1],
            opsets={_text(entry, 1): entry[2][-1] for entry in map(_fields, model[8])},
            inputs=dict(map(_signature, graph[11])),
            outputs=dict(map(_signature, graph[12])),
            nodes=tuple(
                Node(_text(node, 4), _texts(node, 1), _texts(node, 2), any(each[6] or each[11] for each in fields))
                for node, fields in zip(nodes, attributes, strict=True)
            ),
            constants=frozenset(_text(tensor, 8) for tensor in initializers),
            arrays={_text(tensor, 8): _array(tensor) for tensor in initializers if tensor[2][-1] in _DTYPES},
            names=frozenset(
                [_text(model, 2), _text(model, 3), _text(graph, 2)]
                + [name for node in nodes for number in (1, 2, 3) for name in _texts(node, number)]
                + [_text(tensor, 8) for tensor in initializers]
                + [_text(value, 1) for value in values]
            ),
            notes=(
                *filter(None, _texts(model, 6)),
                *_notes(graph, 10, 16),
                *(note for node in nodes for note in _notes(node, 6, 9)),
                *(note for tensor in initializers for note in _notes(tensor, 12, 16)),
                *(note for value in values for note in _notes(value, 3, 4)),
            ),
            metadata=dict(map(_entry, model[14])),
            self_contained=not (
                model[20] or model[25] or external or sparse or any(_text(node, 7) not in _OWN for node in nodes)
            ),
        )


def is_int8(weights: Mapping[str, NDArray[Any]]) -> bool:
    """True if `OnnxFile.weights` are those of an int8 form."""
    return any(name.endswith("_quantized") for name in weights)


def _fields(message: bytes) -> Fields:
    """The fields of a protobuf message; absent ones are empty lists."""
    fields: Fields = defaultdict(list)
    position = n_fields = 0
    value: int | bytes
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
        else:
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire)
            if length is None:
                if wire != _LENGTH:
                    raise ValueError(f"wire type {wire}")
                length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("the file ends within a field")
            value, position = message[position : position + length], position + length
        fields[number].append(value)
        n_fields += 1
        if n_fields > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS} fields")
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A whole number, seven bits a byte and the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a whole number of more than ten bytes")


def _texts(fields: Fields, number: int) -> tuple[str, ...]:
    return tuple(value.decode() for value in fields[number])


def _text(fields: Fields, number: int) -> str:
    return "".join(_texts(fields, number)[-1:])


def _entry(message: bytes) -> tuple[str, str]:
    fields = _fields(message)
    return _text(fields, 1), _text(fields, 2)


def _notes(fields: Fields, doc_string: int, metadata: int) -> list[str]:
    return [*filter(None, _texts(fields, doc_string)), *(": ".join(_entry(entry)) for entry in fields[metadata])]


def _signature(message: bytes) -> tuple[str, tuple[int, list[int | str]]]:
    """Name, element type and axes of a ValueInfoProto."""
    value = _fields(message)
    [tensor] = [_fields(tensor) for kind in value[2] for tensor in _fields(kind)[1]]
    axes = [_fields(axis) for shape in tensor[2] for axis in _fields(shape)[1]]
    return _text(value, 1), (tensor[1][-1], [_text(axis, 2) or axis[1][-1] for axis in axes])


def _array(tensor: Fields) -> NDArray[Any]:
    """The values of a TensorProto that holds them as raw bytes, as every exporter of today does."""
    dims = []
    for value in tensor[1]:  # one by one or, packed, as one string of bytes
        if isinstance(value, int):
            dims.append(value)
            continue
        position = 0
        while position < len(value):
            dim, position = _varint(value, position)
            dims.append(dim)
    return np.frombuffer(b"".join(tensor[9]), _DTYPES[tensor[2][-1]]).reshape(dims)
