"""The bundle reproduces the network, whole or not at all, and anyone can use it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import librosa
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import soxr
import torch
from conftest import EXPORT, lively_note_map, tiny_network
from packaging.requirements import Requirement

from bytecover2_milvus.config import SAMPLE_RATE, Config, Notes
from bytecover2_milvus.embedding.bundle import Bundle, make_model_id, open_bundle
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import BundleError, ExportError
from bytecover2_milvus.export import exporter
from bytecover2_milvus.export.exporter import as_arrays, half_checkpoint, make_contract, vector_weights, write_bundle
from bytecover2_milvus.export.fold import Affine, InferenceModel, fold_backbone, fold_head
from bytecover2_milvus.export.parity import check_cqt_parity, check_parity, melody, probes
from bytecover2_milvus.model.cqt import WaveformToCQT
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.verify import verify


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path) -> onnx.GraphProto:
    return onnx.load(tiny_bundle / "model.onnx").graph


@pytest.fixture(scope="module")
def exported_again(tiny_notes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle of two stages with ``model_cqt.onnx``, exported from what it carries by a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "bytecover2_milvus", "export", tiny_notes_bundle, "--out", "again", "--cqt"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True)
    return folder / "again"


@pytest.fixture(scope="module")
def skipping(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A ByteCover without PCA-FC, with a note map, that skips silence."""
    config, network = tiny_network(feature_dim=None)
    config = without_silence(config)
    folder = tmp_path_factory.mktemp("skipping") / "bundle"
    return write_bundle(config, network, folder, facts={}, note_map=lively_note_map(config.notes))


def without_silence(config: Config) -> Config:
    return replace(config, front_end=replace(config.front_end, silence="skipped"), notes=Notes(width=4, blocks=1))


def waveform_shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


# Folding


def test_folding_the_backbone_changes_nothing():
    _, network = tiny_network()
    folded = fold_backbone(network.backbone)
    cqt = torch.rand(2, 84, 37)
    with torch.inference_mode():
        expected = network.backbone(cqt)
        torch.testing.assert_close(folded(cqt), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("dim", [128, 200, None])
def test_pca_fc_and_bnneck_fold_into_one_layer(dim):
    _, network = tiny_network(dim)
    torch.nn.init.normal_(network.bnneck.bias)
    pooled = torch.randn(5, 256)
    final = fold_head(network)
    assert isinstance(final, Affine if dim is None else torch.nn.Linear)
    with torch.inference_mode():
        torch.testing.assert_close(final(pooled), network.head(pooled)[1], rtol=1e-5, atol=1e-5)


def test_folding_leaves_the_network_as_it_was():
    config, network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    InferenceModel(config.front_end, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_rounding_to_half_precision_costs_little():
    config, network = tiny_network()
    shipped = InferenceModel(config.front_end, network)
    waveform = torch.from_numpy(melody(200_000, seed=0))[None]
    with torch.inference_mode():
        cosine = (shipped(waveform) * network.embed(shipped.front_end(waveform))).sum().item()
    assert cosine > 0.9999


def test_transpositions_are_part_of_the_graph_of_its_sums_and_of_its_model_id(tiny_bundle, transposing_bundle):
    bundle = open_bundle(transposing_bundle)
    assert "mean over transpositions by -3, 0 and 3 semitones" in (bundle.path / "MODEL_CARD.md").read_text("utf-8")
    plain = open_bundle(tiny_bundle).contract
    assert bundle.contract.front_end == plain.front_end and bundle.contract.model_id != plain.model_id
    config, network = tiny_network(transpositions=(-3, 0, 3))
    waveform = melody(200_000, seed=0)
    with torch.inference_mode():
        expected = network.embed(InferenceModel(config.front_end, network).front_end(torch.from_numpy(waveform)[None]))
    assert Embedder(bundle.path, "cpu").embed(waveform) @ expected[0].numpy() > 0.9999
    findings = list(verify(bundle.path))
    assert not [finding for finding in findings if finding.status == "failed"], findings
    assert {finding.check: finding.status for finding in findings}["cqt form"] == "ok"
    assert load_checkpoint(bundle.path).network.config.transpositions == (-3, 0, 3)


# The graph


def test_both_axes_of_the_input_are_dynamic_and_named(graph):
    assert [(value.name, waveform_shape(value)) for value in graph.input] == [("waveform", ["batch", "samples"])]
    assert [(value.name, waveform_shape(value)) for value in graph.output] == [("embedding", ["batch", 128])]


def test_opset_is_18(tiny_bundle):
    opsets = [(entry.domain, entry.version) for entry in onnx.load(tiny_bundle / "model.onnx").opset_import]
    assert opsets == [("", 18)]


def test_one_final_linear_layer_and_no_batch_norm(graph):
    operators = [node.op_type for node in graph.node]
    assert operators.count("Gemm") + operators.count("MatMul") == 1
    assert "BatchNormalization" not in operators


def test_large_weights_are_stored_in_half_precision(graph):
    large = [weight for weight in graph.initializer if np.prod(weight.dims) >= 4096]
    network_weights = [weight for weight in large if not weight.name.startswith("front_end.")]
    assert len(network_weights) >= 8
    assert {weight.data_type for weight in network_weights} == {onnx.TensorProto.FLOAT16}


def test_nothing_of_this_machine_is_in_the_file(tiny_bundle, graph):
    content = (tiny_bundle / "model.onnx").read_bytes()
    for trace in (os.getcwd(), str(Path.home()), sys.prefix, "stack_trace", ".py"):
        assert trace.encode() not in content
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("samples", [81_920, 81_921, 102_399, 512 * 200, 512 * 200 - 1, 61 * 22_050 + 7])
def test_torch_and_onnx_runtime_agree(tiny_bundle, batch, samples):
    config, network = tiny_network()
    shipped = InferenceModel(config.front_end, network)
    session = onnxruntime.InferenceSession(tiny_bundle / "model.onnx", providers=["CPUExecutionProvider"])
    waveforms = np.random.default_rng(samples).normal(0, 0.1, (batch, samples)).astype(np.float32)
    with torch.inference_mode():
        expected = shipped(torch.from_numpy(waveforms)).numpy()
    assert np.abs(session.run(None, {"waveform": waveforms})[0] - expected).max() < 1e-5


# The checkpoint in the bundle


def test_the_bundles_checkpoint_is_the_network_before_folding(tiny_bundle):
    config, network = tiny_network()
    loaded = load_checkpoint(tiny_bundle)
    assert loaded.config == config and loaded.facts == {"Trained on": "nothing, it is for tests"}
    for name, weight in network.state_dict().items():
        expected = weight.half().float() if weight.ndim > 1 else weight
        assert torch.equal(loaded.network.state_dict()[name], expected), name


def test_the_bundles_checkpoint_embeds_as_its_model_does(tiny_bundle):
    loaded = load_checkpoint(tiny_bundle)
    waveform = melody(200_000, seed=0)
    with torch.inference_mode():
        cqt = WaveformToCQT(loaded.config.front_end)(torch.from_numpy(waveform)[None])
        embedding = loaded.network.embed(cqt)[0].numpy()
    assert embedding @ Embedder(tiny_bundle, device="cpu").embed(waveform) > 0.9999


def test_the_checkpoint_can_be_left_out(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "export_onnx", lambda shipped, metadata: (tiny_bundle / "model.onnx").read_bytes())
    small = write_bundle(*tiny_network(), tmp_path / "small", facts={}, checkpoint=False)
    assert not (small.path / "checkpoint.safetensors").exists()
    with pytest.raises(BundleError, match="exported without checkpoint"):
        load_checkpoint(small.path)


def test_a_weight_beyond_half_precision_is_not_written_as_infinity():
    config, network = tiny_network()
    with torch.no_grad():
        network.pca_fc.weight[0, 0] = 1e5
    with pytest.raises(ExportError, match=r"pca_fc\.weight: beyond 65504"):
        half_checkpoint(Checkpoint(config, network))


# What is written, and what is refused


def test_a_bundle_exported_again_in_another_process_has_the_same_bytes(tiny_notes_bundle, exported_again):
    """Though its checkpoint is rounded, and folding rounds once more: it stays the model that it is."""
    for name in ("model.onnx", "contract.json", "checkpoint.safetensors", "embed.py"):
        assert (exported_again / name).read_bytes() == (tiny_notes_bundle / name).read_bytes(), name
    ours, theirs = (np.load(folder / "golden.npz") for folder in (tiny_notes_bundle, exported_again))
    for name in ours.files:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_bytecover_without_pca_fc_exports_too(skipping):
    assert (skipping.contract.name, skipping.contract.embedding_dim) == ("bytecover-256", 256)
    assert Embedder(skipping.path, device="cpu").embed(melody(100_000, seed=0)).shape == (256,)


def test_model_id_changes_with_the_weights_and_with_the_front_end(tiny_bundle):
    config, network = tiny_network()
    shipped = InferenceModel(config.front_end, network)
    model_id = make_model_id(config.front_end, as_arrays(vector_weights(shipped)))
    assert model_id == open_bundle(tiny_bundle).contract.model_id
    assert (
        make_model_id(dataclasses.replace(config.front_end, scale="sqrt"), as_arrays(vector_weights(shipped)))
        != model_id
    )
    shipped.final.bias[0] += 1e-3
    assert make_model_id(config.front_end, as_arrays(vector_weights(shipped))) != model_id


def test_a_bundle_that_skips_silence_embeds_what_is_between_and_keeps_the_time_of_its_chroma(skipping, tmp_path):
    config, network = tiny_network(feature_dim=None)
    assert skipping.contract.front_end.silence == "skipped"
    assert skipping.contract.model_id != make_contract(config, InferenceModel(config.front_end, network)).model_id
    assert "silence at both ends skipped" in (skipping.path / "MODEL_CARD.md").read_text("utf-8")
    assert not [finding for finding in verify(skipping.path) if finding.status == "failed"]
    embedder = Embedder(skipping.path, "cpu", threads=1)
    music, silence = melody(400_000, seed=0), np.zeros(200 * 512, dtype=np.float32)
    late, early = embedder.hear_batch([np.concatenate([silence, music]), np.concatenate([music, silence])])
    assert late.embedding @ early.embedding > 0.9999
    frames = len(silence) // embedder.contract.chroma.frame_samples
    np.testing.assert_allclose(late.chroma[frames + 2 : 40], early.chroma[2 : 40 - frames], atol=0.01)
    assert load_checkpoint(skipping.path).config.front_end.silence == "skipped"
    with pytest.raises(ExportError, match="no silence was skipped"):
        write_bundle(without_silence(config), network, tmp_path / "cqt", facts={}, cqt=True)


def test_a_graph_that_differs_from_the_network_is_not_written(tiny_bundle, tmp_path, monkeypatch):
    graph_of_another_network = (tiny_bundle / "model.onnx").read_bytes()
    monkeypatch.setattr(exporter, "export_onnx", lambda shipped, metadata: graph_of_another_network)
    config, network = tiny_network()
    with torch.no_grad():
        network.pca_fc.weight[0] *= 1.01
    with pytest.raises(ExportError, match=r"ONNX Runtime differs from torch by .*: nothing was written"):
        write_bundle(config, network, tmp_path / "bundle", facts={})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), 1e6], ids=["nan", "beyond half precision"])
def test_weights_that_half_precision_cannot_hold_are_refused(tiny_bundle, value):
    config, network = tiny_network()
    with torch.no_grad():
        network.backbone.conv1.weight[0, 0, 0, 0] = value
    shipped = InferenceModel(config.front_end, network)
    with pytest.raises(ExportError, match="nothing was written"):
        check_parity(
            lambda waveform: network.embed(shipped.front_end(waveform)),
            shipped,
            (tiny_bundle / "model.onnx").read_bytes(),
            probes(config.front_end.minimum_samples)[:1],
        )


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="exists and is no bundle; name a new folder"):
        write_bundle(*tiny_network(), tmp_path, facts={})
    with pytest.raises(ExportError, match=r"thesis\.tex: exists and is no bundle"):
        write_bundle(*tiny_network(), tmp_path / "thesis.tex", facts={})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_named(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "export_onnx", lambda shipped, metadata: (tiny_bundle / "model.onnx").read_bytes())
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="file/bundle: cannot be written"):
        write_bundle(*tiny_network(), tmp_path / "file" / "bundle", facts={})


def test_a_bundle_is_replaced_whole(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "export_onnx", lambda shipped, metadata: (tiny_bundle / "model.onnx").read_bytes())
    for sentence in ("first", "second"):
        write_bundle(*tiny_network(), tmp_path / "bundle", facts={"Trained on": sentence})
    assert "| Trained on | second |" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_card_states_the_contract_and_the_facts(tiny_bundle):
    card = (tiny_bundle / "MODEL_CARD.md").read_text()
    assert f"| model_id | `{open_bundle(tiny_bundle).contract.model_id}` |" in card
    assert "| Trained on | nothing, it is for tests |" in card
    assert f"onnxruntime {onnxruntime.__version__}" in card.splitlines()[-1]  # "named at the end"
    assert not re.search(r"\$\w", card)  # every blank of the template is filled in


# The form that takes the pooled CQT


def from_cqt(bundle: Path, cqt: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(bundle / "model_cqt.onnx", providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {"cqt": cqt})[0]


@pytest.mark.parametrize("samples", [81_920, 102_399, 61 * 22_050 + 7])
def test_the_cqt_form_after_our_front_end_is_the_waveform_form(exported_again, samples):
    config, network = tiny_network()
    waveforms = np.stack([melody(samples, seed) for seed in range(2)])
    with torch.inference_mode():
        cqt = InferenceModel(config.front_end, network).pool_cqt(torch.from_numpy(waveforms)).numpy()
    expected = Embedder(exported_again, device="cpu").embed_batch(list(waveforms))
    assert np.abs(from_cqt(exported_again, cqt) - expected).max() < 1e-5
    assert np.abs(from_cqt(exported_again, 50 * cqt) - expected).max() < 1e-5  # at any level


def test_the_cqt_form_takes_librosas_cqt_as_the_readme_makes_it(exported_again):
    embedder = Embedder(exported_again, device="cpu")
    waveform = melody(10 * SAMPLE_RATE, seed=0)
    [recipe] = re.findall(r"```python\n(.*?)```", (EXPORT / "README.md").read_text(), re.DOTALL)
    names = {"np": np, "librosa": librosa, "waveform": waveform} | dataclasses.asdict(embedder.contract.front_end)
    exec(recipe, names)
    similarity = from_cqt(exported_again, names["cqt"][None])[0] @ embedder.embed(waveform)
    assert similarity > 0.999


def test_a_bundle_with_the_cqt_form_verifies(exported_again):
    status = {finding.check: finding.status for finding in verify(exported_again, "cpu")}
    assert set(status.values()) == {"ok"}
    assert "`model_cqt.onnx`" in (exported_again / "MODEL_CARD.md").read_text()


def test_a_cqt_form_that_differs_is_not_written(exported_again):
    config, network = tiny_network()
    with torch.no_grad():
        network.pca_fc.weight[0] *= 1.01
    model_cqt = (exported_again / "model_cqt.onnx").read_bytes()
    with pytest.raises(ExportError, match=r"the form that takes the CQT differs by .*: nothing was written"):
        check_cqt_parity(InferenceModel(config.front_end, network), model_cqt, [melody(100_000, seed=0)[None]])


# The reference consumer


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with numpy, onnxruntime, soundfile and what these require, and no more."""
    folder = tmp_path_factory.mktemp("consumer")
    venv.create(folder, symlinks=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    runtime = metadata.packages_distributions()["onnxruntime"][0]
    wanted = ["numpy", runtime, "soundfile"]
    for name in wanted:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(distribution.locate_file(top))
        requirements = map(Requirement, distribution.requires or [])
        wanted += [need.name for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    return folder / "bin" / "python"


def run_consumer(consumer: Path, bundle: Path, *arguments: Path) -> list:
    command = [consumer, "-I", bundle / "embed.py", bundle, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_reference_consumer_is_short(tiny_bundle):
    assert len((tiny_bundle / "embed.py").read_text().splitlines()) <= 80


def test_the_consumers_environment_holds_nothing_of_ours(consumer):
    code = "import importlib.util as u; print([n for n in ('bytecover2_milvus', 'torch', 'scipy') if u.find_spec(n)])"
    assert subprocess.run([consumer, "-I", "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_reference_consumer_reproduces_the_golden_vectors(consumer, tiny_bundle):
    lines = run_consumer(consumer, tiny_bundle)
    assert [line["golden"] for line in lines] == ["long", "short"]
    assert max(line["difference"] for line in lines) <= 1e-4


def test_the_reference_consumer_gives_the_embedders_embedding(consumer, tiny_bundle, tmp_path):
    waveform = melody(100_003, seed=7)
    soundfile.write(tmp_path / "song.wav", waveform, SAMPLE_RATE, subtype="FLOAT")
    [embedding] = run_consumer(consumer, tiny_bundle, tmp_path / "song.wav")
    np.testing.assert_allclose(embedding, Embedder(tiny_bundle, device="cpu").embed(waveform), atol=1e-5)


def test_the_reference_consumer_compares_a_file_with_itself_and_refuses_what_is_none(consumer, tiny_bundle, tmp_path):
    song = tmp_path / "song.wav"
    soundfile.write(song, melody(100_003, seed=7), SAMPLE_RATE, subtype="FLOAT")
    [line] = run_consumer(consumer, tiny_bundle, song, song)
    assert line["similarity"] == pytest.approx(1, abs=1e-5)
    samples = melody(100_003, seed=7)
    samples[5] = np.nan
    for name, content in (("nan.wav", samples), ("silent.wav", np.zeros(100_000)), ("short.wav", samples[10:100])):
        soundfile.write(tmp_path / name, content, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "click.wav", np.ones(1), 2 * SAMPLE_RATE + 1, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    for name in ("nan.wav", "silent.wav", "short.wav", "click.wav", "text.wav", "missing.wav"):
        command = [consumer, "-I", tiny_bundle / "embed.py", tiny_bundle, song, tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert name in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(("name", "content"), [("model.onnx", b"half of a mod"), ("model.onnx", None)])
def test_the_reference_consumer_names_the_file_that_is_damaged(consumer, tiny_bundle, tmp_path, name, content):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / name).unlink()
    if content:
        (bundle / name).write_bytes(content)
    done = subprocess.run([consumer, "-I", bundle / "embed.py", bundle], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("embed.py: ") and name in done.stderr and "Traceback" not in done.stderr


def test_the_reference_consumer_resamples_and_mixes_channels(consumer, tiny_bundle, tmp_path):
    waveform = melody(10 * SAMPLE_RATE, seed=8)
    stereo = soxr.resample(waveform, SAMPLE_RATE, 44_100)[:, None] * np.array([[0.5, 1.5]], dtype=np.float32)
    paths = [tmp_path / "mono.wav", tmp_path / "stereo.flac", tmp_path / "other.wav"]
    soundfile.write(paths[0], waveform, SAMPLE_RATE)
    soundfile.write(paths[1], stereo, 44_100)
    soundfile.write(paths[2], melody(10 * SAMPLE_RATE, seed=9), SAMPLE_RATE)
    same, other, _ = run_consumer(consumer, tiny_bundle, *paths)
    assert (same["a"], same["b"]) == (str(paths[0]), str(paths[1]))
    assert same["similarity"] > 0.9999 > other["similarity"]
