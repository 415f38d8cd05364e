"""Verify says ok of a whole bundle, and of any other what is wrong, in which file, and what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import ModelProto, numpy_helper

from bytecover2_milvus.check import Check
from bytecover2_milvus.embedding.bundle import default_bundle, write_sums
from bytecover2_milvus.embedding.onnx_file import OnnxFile
from bytecover2_milvus.errors import BundleError
from bytecover2_milvus.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden" / "contract-1"
SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "finding.schema.json").read_text())
CHECKS = SCHEMA["properties"]["check"]["enum"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))


def finding(folder: Path, check: str, **options: object) -> Check:
    """The first result of that check; what comes after it is not run."""
    return next(found for found in verify(folder, "cpu", **options) if found.check == check)


def edit_model(folder: Path, edit: Callable[[ModelProto], object]) -> None:
    """Change ``model.onnx`` and make the sums right again, as who exports by other means would leave them."""
    model = onnx.load(folder / "model.onnx")
    edit(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_sums(folder)


def weight_of(model: ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


# Whole bundles


def test_a_whole_bundle_passes_every_check():
    found = list(verify(GOLDEN, "cpu", trust=True))  # its embed.py is that of its time
    absent = ["cqt form"]
    expected = [check for check in CHECKS if check not in ("contents", "cuda")]
    assert [(f.check, f.status) for f in found] == [(c, "skipped" if c in absent else "ok") for c in expected], found


def test_the_bundle_that_ships_passes():
    assert [found for found in verify(default_bundle(), "cpu") if found.status == "failed"] == []


def test_cuda_that_is_not_there_is_a_failure_only_if_asked_for():
    where_it_works, asked = (
        next(found for found in verify(GOLDEN, device) if found.check == "cuda") for device in ("auto", "cuda")
    )
    if where_it_works.status == "ok":
        pytest.skip("needs a machine without CUDA")
    assert (where_it_works.status, asked.status) == ("skipped", "failed")
    assert "CUDA" in asked.detail and "pip install" in asked.detail


# Files


def test_every_tampered_file_is_named_with_what_to_do(bundle):
    for name in ("model.onnx", "golden.npz", "MODEL_CARD.md"):
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
    (bundle / "embed.py").unlink()
    (bundle / "numpy.py").write_text("raise SystemExit('python embed.py would import this')")
    found = list(verify(bundle, "cpu"))
    assert {(f.check, f.status) for f in found} == {("files", "failed")}  # and nothing else is looked at
    changed, missing = "changed since it was exported; copy the bundle again", "listed in SHA256SUMS but missing"
    expected = {"MODEL_CARD.md": changed, "embed.py": missing, "golden.npz": changed, "model.onnx": changed}
    expected["numpy.py"] = "not listed in SHA256SUMS, so no part of the bundle; remove it"
    assert len(found) == len(expected)
    for f, (name, reason) in zip(found, expected.items(), strict=True):
        assert f.detail.startswith(f"{bundle / name}: {reason}")


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    [found] = verify(tmp_path)
    assert (found.status, found.check) == ("failed", "files") and "not a bundle, it has no SHA256SUMS" in found.detail
    [found] = verify(tmp_path / "nowhere")
    assert "nowhere: no such folder" in found.detail


def test_a_file_that_every_bundle_has_cannot_be_left_out(bundle):
    (bundle / "golden.npz").unlink()
    write_sums(bundle)
    [found] = verify(bundle)
    assert "SHA256SUMS: does not list golden.npz" in found.detail


# Contract, and contents of the files


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"contract_version": 3}, "contract version 3, this package reads 1 and 2"),
        ({"sample_rate": 44_100}, "sample_rate: 22050 was expected"),
        ({"embedding_dim": "128"}, "embedding_dim: '128' is not of type 'integer'"),
        ({"parity_tolerance": 0.06}, "parity_tolerance: 0.06 is greater than the maximum of 0.05"),
        ({"parity_tolerance": float("inf")}, "not JSON (Infinity is no number of JSON)"),
        ({"parity_tolerance": float("nan")}, "not JSON (NaN is no number of JSON)"),
        ({"silence_peak": 0.5}, "silence_peak: 0.5 is greater than the maximum of 0.1"),
        ({"silence_peak": 1e-9}, "silence_peak: 1e-09 is less than the minimum"),
        ({"shortest_samples": 1}, "shortest_samples: 1 is less than the minimum of 2205"),
        ({"shortest_samples": 10**6}, "shortest_samples: 1000000 is greater than the maximum of 220500"),
        ({"minimum_samples": 10**7}, "minimum_samples: 10000000 is greater than the maximum of 1323000"),
        ({"minimum_samples": 81_921}, "minimum_samples: 81921, but its front_end needs 81920"),
    ],
)
def test_a_foreign_contract_is_refused(bundle, change, reason):
    contract = json.loads((bundle / "contract.json").read_text()) | change
    (bundle / "contract.json").write_text(json.dumps(contract))
    write_sums(bundle)
    *_, last = verify(bundle, "cpu")
    assert (last.check, last.status) == ("contract", "failed") and reason in last.detail


def test_a_card_of_another_model_is_found(bundle):
    card = (bundle / "MODEL_CARD.md").read_text()
    model_id = json.loads((bundle / "contract.json").read_text())["model_id"]
    (bundle / "MODEL_CARD.md").write_text(card.replace(model_id, "0" * 32))
    write_sums(bundle)
    *_, last = verify(bundle, "cpu")
    assert (last.check, last.status) == ("contract", "failed")
    assert f"MODEL_CARD.md: of another model, it does not name {model_id}" in last.detail


def test_metadata_that_does_not_repeat_the_contract_is_found(bundle):
    contract = json.loads((bundle / "contract.json").read_text()) | {"packages": {}, "licence": "MIT"}
    (bundle / "contract.json").write_text(json.dumps(contract))
    write_sums(bundle)
    found = finding(bundle, "metadata")
    assert found.status == "failed"
    assert "model.onnx: its metadata is not contract.json's in licence, packages" in found.detail


@pytest.mark.parametrize(("name", "reason"), [("model.onnx", "not an ONNX file"), ("golden.npz", "not golden vectors")])
def test_a_file_that_is_cut_short_is_named(bundle, name, reason):
    (bundle / name).write_bytes((bundle / name).read_bytes()[:100_000])
    write_sums(bundle)
    *_, last = verify(bundle, "cpu")
    assert (last.check, last.status) == ("contents", "failed") and f"{name}: {reason}" in last.detail


# The graph


@pytest.mark.parametrize(
    ("check", "edit", "reason"),
    [
        ("graph", lambda m: setattr(m, "ir_version", 11), "IR version 11, ONNX Runtime 1.21 knows 10 at most"),
        ("graph", lambda m: setattr(m.opset_import[0], "version", 19), "opsets {'': 19}, the contract says 18"),
        ("graph", lambda m: setattr(m.graph.input[0], "name", "x"), "inputs {'x'"),
        (
            "graph",
            lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 64),
            "not {'embedding': (1, ['batch', 128])}",
        ),
        ("graph", lambda m: m.graph.initializer[0].external_data.add(key="location", value="w"), "other files"),
        ("leftovers", lambda m: setattr(m.graph.node[3], "doc_string", "/home/me/train.py:3"), "a path of the machine"),
        ("leftovers", lambda m: setattr(m, "producer_version", r"C:\Users\me"), "a path of the machine"),
        ("leftovers", lambda m: m.graph.node[3].metadata_props.add(key="scope", value="ResNet"), "'scope: ResNet'"),
        ("leftovers", lambda m: m.graph.node.add(op_type="Dropout", input=["embedding"], output=["d"]), "Dropout"),
        (
            "leftovers",
            lambda m: m.graph.initializer.append(numpy_helper.from_array(np.zeros(5, np.float32), "classifier.weight")),
            "weights that nothing uses: classifier.weight",
        ),
        (
            "final layer",
            lambda m: m.graph.node.add(op_type="Gemm", input=["embedding", "final.weight"], output=["twice"]),
            "2 linear layers, 1 expected: PCA-FC and BNNeck are not folded",
        ),
    ],
)
def test_what_does_not_belong_into_the_graph_is_named(bundle, check, edit, reason):
    edit_model(bundle, edit)
    found = finding(bundle, check)
    assert found.status == "failed" and "model.onnx: " in found.detail and reason in found.detail


def test_changed_weights_are_not_those_of_the_model_id_nor_give_its_embeddings(bundle):
    def edit(model: ModelProto) -> None:
        weight = weight_of(model, "final.bias")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.1), "final.bias"))

    edit_model(bundle, edit)
    weights, on_cpu = finding(bundle, "weights"), finding(bundle, "cpu")
    assert weights.status == on_cpu.status == "failed"
    assert "its weights are those of model " in weights.detail
    assert "model.onnx: differs from golden.npz by" in on_cpu.detail and "more than 0.0001" in on_cpu.detail


def test_weights_that_layers_share_have_no_hash_and_that_is_no_fault(bundle):
    def share(model: ModelProto) -> None:  # as torch's exporter does with equal ones
        kept, dropped = "backbone.conv1.bias", "backbone.groups.0.0.conv1.bias"
        for node in model.graph.node:
            node.input[:] = [kept if name == dropped else name for name in node.input]
        model.graph.initializer.remove(weight_of(model, dropped))

    edit_model(bundle, share)
    found = finding(bundle, "weights")
    assert found.status == "skipped" and "layers of equal weights, as before training, share them" in found.detail


def test_a_graph_that_does_not_run_is_named(bundle):
    edit_model(bundle, lambda model: setattr(model.graph.node[-1], "op_type", "MatMul"))
    found = finding(bundle, "cpu")
    assert found.status == "failed" and "model.onnx: ONNX Runtime cannot" in found.detail


def test_what_is_read_without_the_onnx_package_is_what_it_reads():
    model, read = onnx.load(default_bundle() / "model.onnx"), OnnxFile.read(default_bundle() / "model.onnx")
    assert read.ir_version == model.ir_version
    assert read.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert read.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert [(n.operator, n.inputs, n.outputs) for n in read.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node
    ]
    assert read.constants == {tensor.name for tensor in model.graph.initializer}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert read.arrays.keys() == {name for name, array in arrays.items() if array.dtype != np.int64}
    for name, array in read.arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("content", [b"", b"\x0f", b"RIFF", bytes(100), b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx: not an ONNX file"):
        OnnxFile.read(tmp_path / "model.onnx")


# The consumer and the checkpoint


def test_a_foreign_consumer_is_run_only_if_trusted(bundle):
    (bundle / "embed.py").write_text("print('[]')\nopen(__file__ + '.ran', 'w')\n")
    write_sums(bundle)
    found = finding(bundle, "embed.py")
    assert found.status == "skipped" and "not run: it is not the one that comes with this package" in found.detail
    assert not (bundle / "embed.py.ran").exists()
    (bundle / "embed.py").write_text("raise SystemExit('no numpy here')\n")
    write_sums(bundle)
    found = finding(bundle, "embed.py", trust=True)
    assert found.status == "failed" and "embed.py: ended with 1: no numpy here" in found.detail


@pytest.mark.parametrize("printed", ["[]", "{}", "[1, 2]", "null"])
def test_a_consumer_that_prints_no_embedding_is_found(bundle, printed):
    (bundle / "embed.py").write_text(f"print('{printed}')\n")
    write_sums(bundle)
    found = finding(bundle, "embed.py", trust=True)
    assert found.status == "failed" and "embed.py: ended with 0: no embedding" in found.detail


def test_a_consumer_that_does_not_end_is_ended(bundle, monkeypatch):
    monkeypatch.setattr("bytecover2_milvus.verify.CONSUMER_TIMEOUT_S", 0.5)
    (bundle / "embed.py").write_text("while True: pass\n")
    write_sums(bundle)
    found = finding(bundle, "embed.py", trust=True)
    assert found.status == "failed" and "embed.py: no end after 0.5 s" in found.detail


def test_a_checkpoint_of_another_network_is_found_by_one_weight(bundle):
    path = bundle / "checkpoint.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    tensors["network.pca_fc.weight"][3, 5] += 0.01
    safetensors.numpy.save_file(tensors, path, metadata)
    write_sums(bundle)
    found = finding(bundle, "checkpoint")
    assert found.status == "failed"
    assert "checkpoint.safetensors: of another network than model.onnx: final.weight differs" in found.detail


def test_without_torch_and_onnx_everything_but_the_checkpoint_is_checked():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from bytecover2_milvus.verify import verify\n"
        "for found in verify(sys.argv[1], 'cpu', trust=True): print(found.check, found.status, found.detail, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code, GOLDEN], capture_output=True, text=True)
    status = dict(line.split("|")[:2] for line in done.stdout.splitlines())
    assert status.pop("checkpoint") == status.pop("cqt form") == "skipped", done.stderr
    assert set(status.values()) == {"ok"}
    assert "checkpoint|skipped|torch is not installed: pip install" in done.stdout


# The command


def test_the_command_prints_json_and_fails_if_a_bundle_does(bundle):
    (bundle / "MODEL_CARD.md").write_text("Best model in the world.")
    command = [sys.executable, "-m", "bytecover2_milvus", "verify", "--json", "--device", "cpu", GOLDEN, bundle]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line["detail"] for line in lines if line["status"] == "failed"] == [
        f"{bundle / 'MODEL_CARD.md'}: changed since it was exported; copy the bundle again"
    ]
    assert {line["bundle"] for line in lines} == {str(GOLDEN), str(bundle)}
