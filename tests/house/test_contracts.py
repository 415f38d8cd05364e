"""Bundles of every released contract keep giving their embeddings; of another contract, the reason is given."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle, write_sums
from bytecover2_milvus.embedding.contract import SECOND_STAGE
from bytecover2_milvus.embedding.embedder import LONGEST_S, Embedder
from bytecover2_milvus.embedding.onnx_file import OnnxFile
from bytecover2_milvus.errors import AudioError, BundleError
from bytecover2_milvus.export.parity import melody
from bytecover2_milvus.model.cqt import ConstantQ

GOLDEN = Path(__file__).parents[1] / "golden"
README = (Path(__file__).parents[2] / "export" / "README.md").read_text(encoding="utf-8")
NETWORK = "380dcc3a5e469986f08b19209194aa0a"
MODEL_IDS = {1: NETWORK, 2: NETWORK}  # as they were made; see golden/README.md
CHROMA_IDS = {1: "", 2: "c8e9bab2d46eec99de077947f851bd3e"}
KERNELS = {  # SHA-256 of what the constant-Q transform of 7 octaves of 12 bins from C1 on is computed with, float32
    "front_end.constant_q.kernels": "ff439e8b1aa1920c29344eaa19202f8fce53c482e4bc794ba9177d003a12db86",
    "front_end.constant_q.half_band": "bd7c9c8c57d4a9184e8c44e724213ea4d2a4f87934d457e541bf37dfee3a20c0",
    "front_end.constant_q.scale": "68de9f1852aca53b6e2624e23df26df5bbc13e912facddabf3ef93e8a76d173a",
}
SAMPLE_RATE = 22_050  # Hz


def session_of(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return session_of(GOLDEN / "contract-1")


def embed(session: onnxruntime.InferenceSession, waveforms: np.ndarray) -> np.ndarray:
    return session.run(["embedding"], {"waveform": waveforms.astype(np.float32)})[0]


# Old bundles


def test_there_is_a_golden_bundle_of_every_contract_version():
    assert {path.name for path in GOLDEN.glob("contract-*")} == {f"contract-{version}" for version in MODEL_IDS}
    assert list(MODEL_IDS) == list(range(1, SECOND_STAGE + 1))


@pytest.mark.parametrize("version", MODEL_IDS)
def test_a_golden_bundle_is_the_one_that_was_made_then(version):
    contract = open_bundle(GOLDEN / f"contract-{version}").contract
    assert (contract.contract_version, contract.model_id) == (version, MODEL_IDS[version])
    assert contract.chroma_id == CHROMA_IDS[version]


@pytest.mark.parametrize("name", ["long", "short"])
@pytest.mark.parametrize("version", MODEL_IDS)
def test_an_old_bundle_gives_the_embeddings_it_gave(version, name):
    embedder = Embedder(GOLDEN / f"contract-{version}", device="cpu", threads=1)
    golden = np.load(GOLDEN / f"contract-{version}" / "golden.npz")
    embedding = embedder.embed(golden[f"{name}_waveform"].astype(np.float32) / 32768)
    assert np.abs(embedding - golden[f"{name}_embedding"]).max() <= embedder.contract.parity_tolerance


@pytest.mark.parametrize("name", ["long", "short"])
def test_a_bundle_of_version_2_gives_the_chroma_it_gave_and_the_embedding_of_version_1(name):
    first, second = (Embedder(GOLDEN / f"contract-{version}", device="cpu", threads=1) for version in (1, 2))
    golden = np.load(GOLDEN / "contract-2" / "golden.npz")
    waveform = golden[f"{name}_waveform"].astype(np.float32) / 32768
    alone, heard = first.hear(waveform), second.hear(waveform)
    assert heard.chroma.shape == golden[f"{name}_chroma"].shape
    assert np.abs(heard.chroma - golden[f"{name}_chroma"]).max() <= 0.01
    assert alone.chroma is None and (first.chroma_id, first.chroma_channels) == ("", 0)
    np.testing.assert_allclose(heard.embedding, alone.embedding, atol=1e-6)


@pytest.mark.parametrize("name", ["long", "short"])
def test_chroma_has_a_frame_for_every_whole_frame_of_the_constant_q_transform(name):
    contract, golden = open_bundle(GOLDEN / "contract-2").contract, np.load(GOLDEN / "contract-2" / "golden.npz")
    hop_length, samples = contract.front_end.hop_length, len(golden[f"{name}_waveform"])
    waveform = golden[f"{name}_waveform"].astype(np.float32) / 32768
    copies = -(-contract.minimum_samples // samples)
    [frames] = session_of(GOLDEN / "contract-2").run(["chroma"], {"waveform": np.tile(waveform, copies)[None]})[0]
    n_frames = (1 + samples // hop_length) * hop_length // contract.chroma.frame_samples
    assert len(golden[f"{name}_chroma"]) == n_frames == {"long": 8, "short": 3}[name]
    assert np.abs(frames[:n_frames] - golden[f"{name}_chroma"]).max() <= 0.01
    assert len(frames) == (1 + copies * samples // hop_length) * hop_length // contract.chroma.frame_samples


@pytest.mark.parametrize(("version", "outputs"), [(1, [None]), (2, ["embedding", "chroma"])])
def test_the_reference_consumer_of_an_old_bundle_still_runs(version, outputs):
    folder = GOLDEN / f"contract-{version}"
    done = subprocess.run([sys.executable, "-P", folder / "embed.py", folder], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [(name, output) for name in ("long", "short") for output in outputs]
    assert [(line["golden"], line.get("output")) for line in lines] == expected, done.stderr


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_an_unknown_contract_version_is_refused_with_the_reason(version, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "contract-1", tmp_path / "bundle"))
    contract = json.loads((folder / "contract.json").read_text()) | {"contract_version": version}
    (folder / "contract.json").write_text(json.dumps(contract))
    write_sums(folder)
    reason = rf"contract\.json: contract version {version}, this package reads 1 and 2; install the package that made"
    for opener in (open_bundle, Embedder):
        with pytest.raises(BundleError, match=reason):
            opener(folder)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (1, "this program knows contract version 1"),
        (2, "contract version 3: this program knows versions 1 and 2"),
    ],
)
def test_the_reference_consumer_refuses_an_unknown_contract_version_too(version, reason, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / f"contract-{version}", tmp_path / "bundle"))
    contract = json.loads((folder / "contract.json").read_text()) | {"contract_version": version + 1}
    (folder / "contract.json").write_text(json.dumps(contract))
    done = subprocess.run([sys.executable, "-P", folder / "embed.py", folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{reason}\n")


# The front end, which model_id does not hash


def test_the_front_end_has_the_kernels_that_model_ids_stand_for():
    buffers = ConstantQ(open_bundle(default_bundle()).contract.front_end).named_buffers("front_end.constant_q")
    assert {name: hashlib.sha256(buffer.numpy().tobytes()).hexdigest() for name, buffer in buffers} == KERNELS, (
        "model_id does not tell bundles with these kernels from those with the old ones, and their embeddings differ: "
        "a change of the kernels needs a new contract version, and new model_ids"
    )


@pytest.mark.parametrize(
    "folder", [default_bundle(), *(GOLDEN / f"contract-{version}" for version in MODEL_IDS)], ids=lambda path: path.name
)
def test_bundles_hold_these_kernels(folder):
    arrays = OnnxFile.read(folder / "model.onnx").arrays
    held = {name: hashlib.sha256(array).hexdigest() for name, array in arrays.items() if name.startswith("front_end.")}
    assert held == KERNELS


# What export/README.md says of the contract


def test_every_field_of_the_contract_has_a_row_that_says_how_the_metadata_holds_it():
    contract = open_bundle(GOLDEN / "contract-2").contract
    metadata = contract.to_metadata()
    expected = {f"front_end.{name}": "" for name in dataclasses.asdict(contract.front_end)}
    expected |= {f"chroma.{name}": "" for name in dataclasses.asdict(contract.chroma)}
    for name, value in contract.to_dict().items():
        expected[name] = "string" if metadata[name] == value else "JSON"
        assert expected[name] == "string" or json.loads(metadata[name]) == value
    [table] = re.findall(r"^## The fields of the contract$(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (\w*) ?\|$", table, re.MULTILINE)
    assert dict(rows) == expected and len(rows) == len(expected)


def test_the_length_at_which_recordings_are_cut_is_the_embedders():
    samples = round(LONGEST_S * SAMPLE_RATE)
    assert f"longer than {LONGEST_S:_.0f} s, {samples:_} samples:".replace("_", " ") in README


# What export/README.md says of silence, short and long input


def test_the_graph_gives_a_unit_vector_for_silence_which_the_embedder_refuses(session):
    silence = np.zeros((1, 100_000))
    assert np.linalg.norm(embed(session, silence)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(AudioError, match="silent"):
        Embedder(GOLDEN / "contract-1", device="cpu").embed(silence[0].astype(np.float32))


def test_the_graph_gives_a_unit_vector_below_the_minimum_but_another_one_than_repeating_does(session):
    short = melody(SAMPLE_RATE, seed=0)
    alone, repeated = embed(session, short[None]), embed(session, np.tile(short, 4)[None])
    assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)
    assert (alone @ repeated.T).item() < 0.999


def test_the_graph_is_an_error_below_one_input_frame(session):
    frame = 20 * 512  # samples: time_pooling x hop_length
    assert embed(session, melody(frame - 512, seed=0)[None]).shape == (1, 128)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        embed(session, melody(frame - 513, seed=0)[None])


def test_silent_recordings_match_one_another(session):
    short, long = (embed(session, np.zeros((1, samples))) for samples in (170_000, 300_000))
    assert (short @ long.T).item() > 0.95


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_own_embedding_only(session, value):
    waveforms = np.stack([melody(90_000, seed) for seed in (0, 1)])
    waveforms[1, 5] = value
    assert np.isfinite(embed(session, waveforms)).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("gain", [0.01, 10])
def test_level_does_not_matter(session, gain):
    waveform = melody(90_000, seed=0)[None]
    np.testing.assert_allclose(embed(session, gain * waveform), embed(session, waveform), atol=1e-5)


def test_padding_does(session):
    waveform = melody(90_000, seed=0)
    padded = np.concatenate([waveform, np.zeros(45_000)])
    assert np.abs(embed(session, padded[None]) - embed(session, waveform[None])).max() > 1e-3


def test_chroma_keeps_to_its_recording_and_to_no_level():
    second_stage = session_of(GOLDEN / "contract-2")
    waveforms = np.stack([melody(90_000, seed) for seed in (0, 1)])
    [chroma] = second_stage.run(["chroma"], {"waveform": waveforms})
    [softer] = second_stage.run(["chroma"], {"waveform": np.float32(0.01) * waveforms})
    np.testing.assert_allclose(softer, chroma, atol=1e-4)
    waveforms[1, 5] = np.nan
    [spoilt] = second_stage.run(["chroma"], {"waveform": waveforms})
    np.testing.assert_array_equal(spoilt[0], chroma[0])
    assert not np.isfinite(spoilt[1]).any()
