"""A bundle that is damaged or made to harm is refused in a sentence, soon, and nothing of it is run."""

from __future__ import annotations

import io
import json
import os
import py_compile
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import write_tone
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bytecover2_milvus.embedding.bundle import open_bundle, write_sums
from bytecover2_milvus.embedding.contract import Contract
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import BundleError
from bytecover2_milvus.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden" / "contract-1"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))


def last_of_verify(folder: Path) -> str:
    *_, last = verify(folder, "cpu")
    assert last.status == "failed" and "\n" not in last.detail and len(last.detail) < 1000
    return last.detail


# Files


@pytest.mark.parametrize(
    "name", ["model.onnx", "contract.json", "MODEL_CARD.md", "golden.npz", "embed.py", "SHA256SUMS"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(bundle, name, kind):
    path = bundle / name
    path.unlink()
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises(BundleError, match=rf"{name}|bundle: not a bundle, it has no SHA256SUMS"):
        open_bundle(bundle)
    assert name in last_of_verify(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "SHA256SUMS"])
def test_a_file_beyond_its_bound_is_not_read(bundle, name):
    with (bundle / name).open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte, of which the disk holds nothing
    with pytest.raises(BundleError, match=r"1099511627776 bytes, at most \d+ are read"):
        open_bundle(bundle)


def test_what_python_compiled_of_its_program_is_no_part_of_a_bundle(bundle):
    """pip compiles what it installs."""
    compiled = Path(py_compile.compile(bundle / "embed.py"))
    assert compiled.parent == bundle / "__pycache__"
    assert [found.check for found in verify(bundle, "cpu") if found.status == "failed"] == []
    sums = (bundle / "SHA256SUMS").read_bytes()
    write_sums(bundle)
    assert (bundle / "SHA256SUMS").read_bytes() == sums
    other = compiled.rename(compiled.with_name("numpy.pyc"))
    assert f"{other}: not listed in SHA256SUMS" in last_of_verify(bundle)


# The contract


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"front_end": {"n_octaves": 10_000}}, "front_end.n_octaves: 10000 is greater than the maximum"),
        ({"front_end": {"bins_per_octave": 10**9}}, "front_end.bins_per_octave: 1000000000 is greater than"),
        ({"front_end": {"hop_length": 2**40}}, "front_end.hop_length: 1099511627776 is greater than"),
        ({"front_end": {"fmin": 1e-300}}, "front_end.fmin: 1e-300 is less than the minimum"),
        ({"front_end": {"fmin": "C1"}}, "front_end.fmin: 'C1' is not of type 'number'"),
        ({"front_end": {"time_pooling": True}}, "front_end.time_pooling: True is not of type 'integer'"),
        ({"embedding_dim": 10**12}, "embedding_dim: 1000000000000 is greater than the maximum of 32768"),
        ({"embedding_dim": 128.0}, "embedding_dim: 128.0 is not of type 'integer'"),
        ({"sample_rate": 22050.0}, "sample_rate: 22050.0 is not of type 'integer'"),
        ({"contract_version": True}, "contract version True, this package reads 1 and 2"),
        ({"packages": ["numpy"] * 10_000}, "packages: ['numpy', 'numpy'"),
        ({"name": None}, "name: None is not of type 'string'"),
        ({"x" * 10_000: 1}, "missing or unknown fields: xxx"),
    ],
)
def test_a_contract_is_held_against_its_schema_before_anything_is_made_of_it(bundle, change, reason):
    table = json.loads((bundle / "contract.json").read_text())
    inner = table["front_end"] | change.get("front_end", {})
    (bundle / "contract.json").write_text(json.dumps(table | change | {"front_end": inner}))
    write_sums(bundle)
    with pytest.raises(BundleError) as raised:
        Embedder(bundle, "cpu")
    assert f"contract.json: {reason}" in str(raised.value) and len(str(raised.value)) < 1000
    assert last_of_verify(bundle) == str(raised.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "9" * 5000, '{"contract_version": 1e999}']
)
def test_json_that_no_program_writes_is_not_json(text):
    with pytest.raises(BundleError, match="not JSON") as raised:
        Contract.from_json(text)
    assert len(str(raised.value)) < 1000


# The graph


def write_model(folder: Path, nodes: Sequence[NodeProto], values: dict[str, Any], dim: int = 128) -> None:
    """Another ``model.onnx``, that repeats the contract and says it takes and gives what the contract says."""
    contract = open_bundle(folder).contract
    inputs = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", contract.opset)], ir_version=10)
    helper.set_model_props(model, contract.to_metadata())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_sums(folder)


def endless_loop() -> list[NodeProto]:
    """2^63 rounds that hand on what they were given, then the first 128 samples."""
    body_of = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("condition", "carried")]
    of = {
        "round": (TensorProto.INT64, []),
        "condition": (TensorProto.BOOL, []),
        "carried": (TensorProto.FLOAT, ["b", "s"]),
    }
    info = {name: helper.make_tensor_value_info(name, *kind) for name, kind in of.items()}
    out = [helper.make_tensor_value_info(f"{name}_out", *of[name]) for name in ("condition", "carried")]
    body = helper.make_graph(body_of, "body", list(info.values()), out)
    return [
        helper.make_node("Loop", ["rounds", "go_on", "waveform"], ["carried_in_the_end"], body=body),
        helper.make_node("Slice", ["carried_in_the_end", "from", "to", "axis"], ["embedding"]),
    ]


SLICE = {"from": np.int64([0]), "to": np.int64([128]), "axis": np.int64([1])}
LOOP = {"rounds": np.int64(2**63 - 1), "go_on": np.bool_(True)}


def outside(tensor: TensorProto) -> TensorProto:
    """`tensor`, with its values said to be in another file."""
    moved = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=1)
    moved.external_data.add(key="location", value="../../etc/passwd")
    return moved


def test_a_loop_is_not_entered(bundle):
    write_model(bundle, endless_loop(), SLICE | LOOP)
    with pytest.raises(
        BundleError, match=r"model\.onnx: a graph within the graph \(Loop\), so nothing says that it ends"
    ):
        Embedder(bundle, "cpu")
    assert "a graph within the graph (Loop)" in last_of_verify(bundle)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["x"], value=outside(numpy_helper.from_array(np.float32([0])))),
        helper.make_node("Gelu", ["waveform"], ["x"], domain="com.microsoft"),
    ],
    ids=["file", "domain"],
)
def test_a_node_that_needs_what_is_not_in_the_file_is_refused(bundle, node):
    write_model(bundle, [helper.make_node("Slice", ["waveform", *SLICE], ["embedding"]), node], SLICE)
    with pytest.raises(BundleError, match="refers to other files, or holds functions"):
        Embedder(bundle, "cpu")
    assert "refers to other files" in last_of_verify(bundle)


def test_a_model_of_another_dimension_than_its_contract_is_refused(bundle):
    nodes = [helper.make_node("Slice", ["waveform", *SLICE], ["embedding"])]
    write_model(bundle, nodes, SLICE | {"to": np.int64([64])}, dim=64)
    with pytest.raises(BundleError, match=r"outputs .*64.*, not .*128"):
        Embedder(bundle, "cpu")


def test_a_model_that_gives_something_else_than_it_says_is_found_when_it_runs(bundle):
    nodes = [
        helper.make_node("Shape", ["waveform"], ["shape"]),  # (1, samples): so many values, which no file tells
        helper.make_node("Slice", ["shape", "from", "axis"], ["batch"]),
        helper.make_node("Slice", ["waveform", "from", "batch", "axis"], ["embedding"]),
    ]
    write_model(bundle, nodes, SLICE)
    with pytest.raises(BundleError, match=r"model\.onnx: gives \(1, 1\), not 128 values"):
        Embedder(bundle, "cpu").embed(np.ones(100_000, np.float32))


@pytest.mark.parametrize(
    "content", [b"\xff" * 1_000_000, b"\x08\x01" * 3_000_000, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_a_file_that_only_looks_like_protobuf_is_no_onnx_file(bundle, content):
    (bundle / "model.onnx").write_bytes(content)
    write_sums(bundle)
    with pytest.raises(BundleError, match=r"model\.onnx: not an ONNX file"):
        Embedder(bundle, "cpu")


def test_bytes_changed_at_random_are_refused_or_do_no_harm(bundle):
    whole, rng = (bundle / "model.onnx").read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, 2000, size=4):  # names and shapes; the weights follow
            content[at] = rng.integers(256)
        (bundle / "model.onnx").write_bytes(content)
        write_sums(bundle)
        try:
            Embedder(bundle, "cpu", threads=1)
        except BundleError as error:
            assert "model.onnx: " in str(error)


# Golden vectors


def zipped(first: bytes) -> bytes:
    """``golden.npz`` with other bytes for its first array."""
    content = io.BytesIO()
    with zipfile.ZipFile(GOLDEN / "golden.npz") as old, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
        for number, name in enumerate(old.namelist()):
            new.writestr(name, old.read(name) if number else first)
    return content.getvalue()


def npy(shape: str, data: bytes = b"", dtype: str = "<i2") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + data


def scrambled() -> bytes:
    content = bytearray(zipped(npy("(9999,)", os.urandom(19_998))))
    content[400:500] = bytes(100)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        lambda: zipped(npy("(35184372088832,)")),
        lambda: zipped(npy("(-1,)")),
        lambda: zipped(npy("[" * 300)),
        lambda: zipped(npy("(1,)", b"\x80\x04\x95", dtype="|O")),
        lambda: zipped(bytes(300 << 20)),  # 300 kB that unpack to more than the bound
        lambda: zipped(b""),
        scrambled,
        lambda: b"PK\x03\x04",
    ],
    ids=["terabytes", "negative", "nested", "pickle", "bomb", "empty", "scrambled", "cut"],
)
def test_golden_vectors_that_are_none_are_refused(bundle, content):
    (bundle / "golden.npz").write_bytes(content())
    write_sums(bundle)
    assert "golden.npz: not golden vectors (" in last_of_verify(bundle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda golden: golden.update(short_embedding=golden["short_embedding"].astype(str)),
            "short_embedding: float32",
        ),
        (lambda golden: golden.update(long_waveform=golden["long_waveform"][None]), "long_waveform: int16"),
        (lambda golden: golden.pop("long_embedding"), "long_embedding: float32 (128,)"),
        (lambda golden: golden.update(short_cqt=np.ones((5, 8), np.float32)), "short_cqt: float32 (84, frames)"),
    ],
)
def test_golden_vectors_of_another_kind_are_named(bundle, change: Callable, reason):
    golden = dict(np.load(bundle / "golden.npz"))
    change(golden)
    np.savez(bundle / "golden.npz", **golden)
    write_sums(bundle)
    assert f"not golden vectors ({reason}" in last_of_verify(bundle)


class Trap:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_pickle_is_never_executed(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(bundle / "golden.npz", long_waveform=np.array([Trap()], dtype=object))
    write_sums(bundle)
    assert "not golden vectors" in last_of_verify(bundle)
    assert not (tmp_path / "executed").exists()


def test_the_command_says_it_in_a_line(bundle):
    write_model(bundle, endless_loop(), SLICE | LOOP)
    song = write_tone(bundle / "song.wav", 0)
    command = [sys.executable, "-m", "bytecover2_milvus", "embed", "--bundle", bundle, song, "--out", bundle / "x.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "a graph within the graph (Loop)" in done.stderr
