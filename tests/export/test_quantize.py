"""The int8 form of a bundle: its backbone in 8 bits, embeddings close to the float ones, refused where it costs MAP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.numpy
import torch
from click.testing import CliRunner
from conftest import tiny_network, write_int8
from onnx import numpy_helper

from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.bundle import Bundle, open_bundle, write_sums
from bytecover2_milvus.embedding.contract import check_graph
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.onnx_file import OnnxFile
from bytecover2_milvus.errors import ExportError
from bytecover2_milvus.export.exporter import to_int8, write_bundle
from bytecover2_milvus.export.fold import InferenceModel
from bytecover2_milvus.export.parity import melody, reference_session
from bytecover2_milvus.export.quantize import CalibrationSet, check_int8, network_part, quantize
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
TRACK_S = 10


@pytest.fixture(scope="module")
def songs() -> CalibrationSet:
    """Melodies to calibrate on, and five of which two takes each, one with noise, are to find each other."""
    config, network = tiny_network()
    front_end = InferenceModel(config.front_end, network)

    def cqt(seed: int, noise: float = 0.0) -> np.ndarray:
        waveform = melody(TRACK_S * SAMPLE_RATE, seed)
        waveform += noise * np.random.default_rng(seed).standard_normal(len(waveform), dtype=np.float32)
        with torch.inference_mode():
            return front_end.pool_cqt(torch.from_numpy(waveform)[None])[0].numpy()

    validation = [cqt(seed, noise) for seed in range(5) for noise in (0.0, 0.005)]
    return CalibrationSet(
        [cqt(seed) for seed in range(10, 16)], validation, [str(n // 2) for n in range(10)], "five melodies"
    )


@pytest.fixture(scope="module")
def int8(tiny_bundle: Path, songs: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle in int8, with the checkpoint it was made from."""
    return write_int8(tiny_bundle, tmp_path_factory.mktemp("int8") / "bundle", songs)


@pytest.fixture(scope="module")
def weights(int8: Bundle) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(int8.model).graph.initializer}


def test_the_convolutions_of_the_backbone_have_int8_weights_and_all_else_has_not(int8, weights):
    graph = onnx.load(int8.model).graph
    made_of = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("DequantizeLinear", "Cast")}
    kernels = [made_of.get(node.input[1], node.input[1]) for node in graph.node if node.op_type == "Conv"]
    backbone = [name for name in kernels if name.startswith("backbone.")]
    assert {weights[name].dtype for name in backbone} == {np.dtype(np.int8)} and len(backbone) == 17
    assert {weights[name].dtype for name in kernels if name not in backbone} == {np.dtype(np.float32)}
    assert weights["final.weight.half"].dtype == np.float16


def test_weights_have_seven_bits_and_a_scale_for_each_channel(weights):
    quantized = [name for name in weights if name.endswith(".weight_quantized")]
    for name in quantized:
        scale = weights[name.replace("_quantized", "_scale")]
        assert np.abs(weights[name].astype(int)).max() <= 64
        assert scale.shape == weights[name].shape[:1]
    assert len(quantized) == 17


def test_int8_embeds_nearly_as_float_does(tiny_bundle, int8):
    waveform = melody(20 * SAMPLE_RATE, seed=7)
    ours, theirs = (Embedder(path, device="cpu", threads=1).embed(waveform) for path in (int8.path, tiny_bundle))
    assert ours @ theirs > 0.99 and not np.array_equal(ours, theirs)


def test_tracks_embed_together_as_alone(int8):
    embedder = Embedder(int8.path, device="cpu", threads=1)
    waveforms = [melody(TRACK_S * SAMPLE_RATE, seed) for seed in range(3)]
    alone = np.stack([embedder.embed(waveform) for waveform in waveforms])
    assert np.abs(embedder.embed_batch(waveforms) - alone).max() < int8.contract.parity_tolerance


def test_int8_has_a_model_id_of_its_own_and_the_same_bytes_every_time(tiny_bundle, int8, songs):
    contract, model = open_bundle(tiny_bundle).contract, (tiny_bundle / "model.onnx").read_bytes()
    again, content, _ = to_int8(contract, model, songs)
    assert content == int8.model.read_bytes()
    assert again == int8.contract and again.model_id != contract.model_id
    other, _, _ = to_int8(contract, model, CalibrationSet(songs.calibration[:1], songs.validation, songs.work_ids, ""))
    assert other.model_id != again.model_id  # other scales, other embeddings


def test_an_int8_bundle_verifies(int8):
    found = {finding.check: finding for finding in verify(int8.path, "cpu")}
    cqt_form = found.pop("cqt form")
    assert (cqt_form.status, cqt_form.detail) == (
        "skipped",
        "an int8 bundle has none: model_cqt.onnx comes in float only",
    )
    assert {finding.status for finding in found.values()} == {"ok"}


@pytest.mark.parametrize("form", ["float", "cqt", "int8"])
def test_an_int8_bundle_is_not_exported_again(int8, songs, form, tmp_path):
    """Folding its checkpoint, which is rounded, would round once more: a model_id that no collection has."""
    options = {"cqt": form == "cqt", "int8": songs if form == "int8" else None}
    with pytest.raises(ExportError, match="an int8 bundle: export from the float one it was made from"):
        write_bundle(*tiny_network(), tmp_path / "again", facts={}, folded=OnnxFile.read(int8.model).weights, **options)
    assert not any(tmp_path.iterdir())


def test_the_command_refuses_to_export_an_int8_bundle(int8, tmp_path):
    result = CliRunner().invoke(main, ["export", str(int8.path), "--cqt", "--out", str(tmp_path / "again")])
    assert result.exit_code == 1 and "an int8 bundle: export from the float one" in result.output


@pytest.mark.parametrize(("steps", "status"), [(0.3, "ok"), (1.5, "failed")])
def test_verify_allows_for_half_a_step_between_checkpoint_and_int8(int8, weights, tmp_path, steps, status):
    """The weight that is moved is the one that rounding moved least: 0.3 of a step more is still within half a step."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in int8.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "checkpoint.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    layer = "groups.3.0.conv2"
    variance, gamma = (tensors[f"network.backbone.groups.3.0.norm2.{kind}"] for kind in ("running_var", "weight"))
    fold = gamma / np.sqrt(variance + 1e-5)  # of BatchNorm into the kernel
    kernel = tensors[f"network.backbone.{layer}.weight"].astype(np.float32)
    scale = weights[f"backbone.{layer}.weight_scale"]
    exact = (kernel * fold[:, None, None, None])[0].ravel() / scale[0]
    position = np.unravel_index(np.abs(exact - np.round(exact)).argmin(), kernel[0].shape)
    kernel[(0, *position)] += steps * scale[0] / fold[0]
    tensors[f"network.backbone.{layer}.weight"] = kernel.astype(np.float16)
    safetensors.numpy.save_file(tensors, path, metadata)
    write_sums(folder)
    [found] = [finding for finding in verify(folder, "cpu") if finding.check == "checkpoint"]
    assert found.status == status, found.detail


def test_the_card_states_cost_and_processor(int8):
    card = (int8.path / "MODEL_CARD.md").read_text()
    assert "| file | ONNX opset 18, convolutions in int8" in card
    assert "| processor | int8 gains on x86-64 with VNNI" in card
    assert "on five melodies: MAP 1.0000 in float, 1.0000 in int8" in card
    assert "Tolerance for `golden.npz`: 0.02 in every component." in card


@pytest.mark.parametrize("name", ["float", "int8"])
def test_the_network_part_follows_the_front_end(tiny_bundle, int8, name):
    model = onnx.load({"float": tiny_bundle / "model.onnx", "int8": int8.model}[name])
    config, network = tiny_network()
    waveform = melody(TRACK_S * SAMPLE_RATE, seed=3)[None]
    with torch.inference_mode():
        cqt = InferenceModel(config.front_end, network).pool_cqt(torch.from_numpy(waveform)).numpy()
    part = reference_session(network_part(model).SerializeToString())
    [row] = part.run(None, {part.get_inputs()[0].name: cqt})[0]
    [embedding] = reference_session(model.SerializeToString()).run(None, {"waveform": waveform})[0]
    assert np.abs(row / np.linalg.norm(row) - embedding).max() < (1e-5 if name == "float" else 0.02)


def test_transpositions_stay_as_they_are(transposing_bundle, songs, tmp_path):
    bundle = write_int8(transposing_bundle, tmp_path / "int8", songs, transpositions=(-3, 0, 3))
    [kernel] = [value for name, value in OnnxFile.read(bundle.model).weights.items() if name == "transposing"]
    assert kernel.dtype.kind == "f" and set(np.unique(kernel)) == {0, 1}
    assert not [finding for finding in verify(bundle.path) if finding.status == "failed"]


def test_the_note_map_stays_in_float_and_chroma_as_it_was(songs):
    """Nor does it change what int8 makes of the vector: with and without note map, model_id and embedding are one."""
    contracts, models = {}, {}
    for version in (1, 2):
        bundle = open_bundle(GOLDEN / f"contract-{version}")
        contracts[version], models[version], _ = to_int8(bundle.contract, bundle.model.read_bytes(), songs)
    assert contracts[2].model_id == contracts[1].model_id != bundle.contract.model_id
    assert contracts[2].chroma == bundle.contract.chroma
    exact, quantized = OnnxFile.read(bundle.model), OnnxFile.parse(models[2])
    check_graph(contracts[2], bundle.model, quantized)
    assert {name for name in quantized.note_weights} == {name for name in exact.note_weights}
    for name, weight in exact.note_weights.items():
        np.testing.assert_array_equal(quantized.note_weights[name], weight)
    waveform = melody(TRACK_S * SAMPLE_RATE, seed=7)[None]
    embedding, chroma = reference_session(bundle.model.read_bytes()).run(None, {"waveform": waveform})
    rounded, same_chroma = reference_session(models[2]).run(None, {"waveform": waveform})
    np.testing.assert_allclose(same_chroma, chroma, atol=1e-6)
    [alone] = reference_session(models[1]).run(None, {"waveform": waveform})
    np.testing.assert_allclose(rounded, alone, atol=1e-6)
    assert np.abs(rounded - embedding).max() > 1e-4


def test_a_loss_of_map_is_refused_with_its_size(tiny_bundle, songs):
    model = (tiny_bundle / "model.onnx").read_bytes()
    flat = quantize(onnx.load_from_string(model), [np.ones((84, 20), dtype=np.float32)])
    for tensor in flat.graph.initializer:  # activations far beyond their scale all become the largest
        if tensor.name.startswith("activation.") and tensor.name.endswith("_scale"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 1e3, tensor.name))
    with pytest.raises(ExportError, match=r"int8 costs .* of MAP on five melodies .*more than 0\.005: nothing was"):
        check_int8(model, flat.SerializeToString(), songs)


def test_songs_are_whole_tracks_pooled_as_the_network_takes_them(tmp_path):
    from bytecover2_milvus.songs.select import select_songs

    front_end = tiny_network()[0].front_end
    corpus = Corpus.of_songs(select_songs("traditional@0-1"), 2)
    cache = FeatureCache(tmp_path, front_end)
    made = CalibrationSet.of(corpus, corpus, cache, "traditional@0-1")
    assert [len(made.calibration), made.work_ids] == [2, [next(iter(corpus.works))] * 2]
    for cqt, (_, track) in zip(made.validation, corpus.tracks(), strict=True):
        np.testing.assert_array_equal(cqt, cache.load(track).astype(np.float32))  # one cached frame is one frame here


def test_the_command_refuses_what_does_not_go_together(tmp_path):
    result = CliRunner().invoke(main, ["export", "x.safetensors", "--out", str(tmp_path / "b"), "--int8", "--cqt"])
    assert result.exit_code == 2 and "model_cqt.onnx comes in float only" in result.output
    result = CliRunner().invoke(main, ["export", "x.safetensors", "--out", str(tmp_path / "b"), "--songs", "s"])
    assert result.exit_code == 2 and "--songs and --validation-songs are for --int8" in result.output


def test_the_contract_of_an_int8_bundle_is_of_the_same_version(int8, tiny_bundle):
    ours, theirs = (json.loads((path / "contract.json").read_text()) for path in (int8.path, tiny_bundle))
    assert {key for key in ours if ours[key] != theirs[key]} == {"model_id", "parity_tolerance"}
