"""Waveforms in, unit embeddings out."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from bytecover2_milvus.embedding.bundle import default_bundle, write_sums
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.embedding.session import without_prints
from bytecover2_milvus.errors import AudioError, BundleError, DeviceError, EmptyAudio, ShortAudio, SilentAudio
from bytecover2_milvus.export.parity import melody

BUILT_WITH_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder(tiny_bundle, device="cpu", threads=1)


def test_an_embedding_is_a_unit_vector_of_float32(embedder):
    embedding = embedder.embed(melody(100_003, seed=0))
    assert embedding.shape == (embedder.dim,) == (128,)
    assert embedding.dtype == np.float32
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_says_whose_embeddings_they_are(embedder, tiny_bundle):
    contract = json.loads((tiny_bundle / "contract.json").read_text())
    assert embedder.model_id == contract["model_id"]
    assert embedder.contract_version == 1
    assert embedder.provider == "CPUExecutionProvider"


def test_a_bundle_without_a_note_map_hears_no_chroma(embedder):
    assert (embedder.chroma_id, embedder.chroma_channels) == ("", 0)
    waveforms = [melody(100_003, seed=0), melody(30_000, seed=1)]
    for heard, waveform in zip(embedder.hear_batch(waveforms), waveforms, strict=True):
        np.testing.assert_allclose(heard.embedding, embedder.embed(waveform), atol=1e-6)
        assert heard.chroma is None and embedder.hear(waveform).chroma is None


@pytest.mark.parametrize("name", ["long", "short"])
def test_reproduces_the_golden_vectors(embedder, tiny_bundle, name):
    golden = np.load(tiny_bundle / "golden.npz")
    embedding = embedder.embed(golden[f"{name}_waveform"].astype(np.float32) / 32768)
    assert np.abs(embedding - golden[f"{name}_embedding"]).max() <= embedder.contract.parity_tolerance


def test_a_batch_equals_its_members_alone_whatever_their_lengths(embedder):
    lengths = [90_000, 30_000, 120_001, 90_000, 90_000, 120_001]  # the second is repeated, equal lengths share a call
    waveforms = [melody(length, seed) for seed, length in enumerate(lengths)]
    together = embedder.embed_batch(waveforms)
    alone = np.stack([embedder.embed(waveform) for waveform in waveforms])
    assert together.shape == (6, 128)
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.fixture
def long(monkeypatch) -> np.ndarray:
    """A waveform in three parts, as those beyond half an hour are, the second of them silent."""
    monkeypatch.setattr("bytecover2_milvus.embedding.embedder.LONGEST_S", 5.0)
    waveform = melody(3 * 100_000, seed=0)
    waveform[100_000:200_000] = 0
    return waveform


def test_a_long_recording_has_the_unit_mean_of_its_audible_parts(embedder, long):
    mean = embedder.embed(long[:100_000]) + embedder.embed(long[200_000:])
    expected = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(embedder.embed(long), expected, atol=1e-6)
    batch = embedder.embed_batch([long, long[:100_000], long])
    np.testing.assert_allclose(batch[[0, 2]], np.stack([expected] * 2), atol=1e-6)


def test_a_long_recording_may_lie_in_a_file(embedder, long, tmp_path):
    long.tofile(tmp_path / "waveform.f32")
    mapped = np.memmap(tmp_path / "waveform.f32", np.float32, "r")
    np.testing.assert_array_equal(embedder.embed(mapped), embedder.embed(long))
    converted = mapped.astype(np.float32)  # still a memmap, over no file
    np.testing.assert_array_equal(embedder.embed(converted), embedder.embed(long))


def test_a_long_silence_is_refused(embedder, long):
    with pytest.raises(SilentAudio, match="silent waveform"):
        embedder.embed(0 * long)


def test_a_batch_beyond_the_memory_bound_is_split(embedder, monkeypatch):
    waveforms = [melody(90_000, seed) for seed in range(5)]
    whole = embedder.embed_batch(waveforms)
    monkeypatch.setattr("bytecover2_milvus.embedding.embedder.BATCH_SAMPLES", 200_000)  # two at a time, then one
    np.testing.assert_allclose(embedder.embed_batch(waveforms), whole, atol=1e-6)


def test_no_waveforms_give_no_embeddings(embedder):
    assert embedder.embed_batch([]).shape == (0, 128)


def test_a_short_waveform_is_repeated_and_not_padded(embedder):
    short = melody(30_000, seed=3)  # 81 920 samples are the minimum: three copies
    np.testing.assert_array_equal(embedder.embed(short), embedder.embed(np.tile(short, 3)))
    padded = np.concatenate([short, np.zeros(60_000, dtype=np.float32)])
    assert np.abs(embedder.embed(short) - embedder.embed(padded)).max() > 1e-3


def test_loudness_does_not_matter(embedder):
    waveform = melody(100_000, seed=4)
    np.testing.assert_allclose(embedder.embed(waveform), embedder.embed(0.1 * waveform), atol=1e-5)


def test_the_number_of_threads_does_not_matter(embedder, tiny_bundle):
    waveform = melody(100_000, seed=5)
    two_threads = Embedder(tiny_bundle, device="cpu", threads=2)
    np.testing.assert_allclose(embedder.embed(waveform), two_threads.embed(waveform), atol=1e-6)


@pytest.mark.parametrize(
    ("waveform", "error", "message"),
    [
        (np.zeros(0, np.float32), EmptyAudio, "0 samples"),
        (np.full(22_049, 0.1, np.float32), ShortAudio, r"22049 samples: at least 22050 are needed \(1 s"),
        (np.zeros(100_000, np.float32), SilentAudio, "peak 0.0e[+]00 is below 0.001"),
        (np.full(100_000, np.nan, np.float32), AudioError, "NaN or infinite"),
        (np.full(100_000, -np.inf, np.float32), AudioError, "NaN or infinite"),
        (np.ones((2, 100_000), np.float32), AudioError, r"shape \(2, 100000\): one dimension"),
        (np.ones(100_000), AudioError, "float64"),
    ],
    ids=["empty", "short", "silent", "nan", "infinite", "stereo", "float64"],
)
def test_what_has_no_meaningful_embedding_is_refused(embedder, waveform, error, message):
    with pytest.raises(error, match=message):
        embedder.embed(waveform)
    with pytest.raises(error, match=message):
        embedder.embed_batch([melody(100_000, seed=0), waveform])


def test_a_model_that_its_contract_does_not_describe_is_refused(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    contract = json.loads((folder / "contract.json").read_text()) | {"model_id": "0" * 32}
    (folder / "contract.json").write_text(json.dumps(contract))
    write_sums(folder)
    with pytest.raises(BundleError, match=r"model\.onnx: its metadata is not contract\.json's in model_id"):
        Embedder(folder, device="cpu")


def test_a_model_that_onnx_runtime_cannot_load_is_refused(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    whole = (folder / "model.onnx").read_bytes()
    model = onnx.load_from_string(whole)
    model.graph.node[-1].op_type = "Nonsense"
    for content, reason in (
        (whole[:1000], "not an ONNX file"),
        (model.SerializeToString(), "ONNX Runtime cannot load it"),
    ):
        (folder / "model.onnx").write_bytes(content)
        write_sums(folder)
        with pytest.raises(BundleError, match=rf"model\.onnx: {reason}"):
            Embedder(folder, device="cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells and limits the memory that is mapped")
def test_a_computation_that_memory_does_not_suffice_for_is_one_error(tiny_bundle):
    code = (
        "import resource, sys, numpy\n"
        "from bytecover2_milvus import Embedder\n"
        "embedder = Embedder(sys.argv[1], 'cpu', threads=1)\n"
        "noise = numpy.random.default_rng(0).uniform(-1, 1, 900 * 22050).astype(numpy.float32)\n"
        "mapped = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (mapped + (20 << 20),) * 2)\n"
        "embedder.embed(noise)"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_bundle], capture_output=True, text=True)
    *_, line = done.stderr.splitlines()
    assert "DeviceError: CPUExecutionProvider: ONNX Runtime failed on 900 s of audio" in line, done.stderr


def test_nothing_is_printed(tiny_bundle, capfd):
    Embedder(tiny_bundle, device="auto").embed(melody(100_000, seed=0))
    assert capfd.readouterr() == ("", "")


def test_threads_share_it_and_make_their_own(embedder, tiny_bundle):
    """A redirection of sys.stdout while a session is made would be undone in another order than it was done."""
    waveforms, before = [melody(90_000, seed) for seed in range(4)], sys.stdout
    start = Barrier(4)

    def embed(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start.wait(60)
        own = Embedder(tiny_bundle, device="auto", threads=1)
        return embedder.embed(waveform), own.embed(waveform)

    with ThreadPoolExecutor(4) as threads:
        shared, own = zip(*threads.map(embed, waveforms), strict=True)
    assert sys.stdout is before
    expected = [embedder.embed(waveform) for waveform in waveforms]
    np.testing.assert_allclose(shared, expected, atol=1e-6)
    np.testing.assert_allclose(own, expected, atol=1e-6)


def talkative(times: int = 2) -> str:
    print("Failed to load libcudnn.so" * times)
    return sys.byteorder


def test_a_function_is_silenced_by_itself_and_nothing_else(capsys):
    assert without_prints(talkative)() == sys.byteorder
    assert capsys.readouterr().out == ""
    talkative()
    assert "libcudnn" in capsys.readouterr().out


def test_pickled_it_is_its_bundle_and_settings(embedder, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_bundle.parent)
    relative = Embedder(tiny_bundle.name, device="cpu", threads=1)
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(relative)
    assert len(pickled) < 1000
    again, waveform = pickle.loads(pickled), melody(90_000, seed=0)
    assert (again.model_id, again.provider) == (embedder.model_id, embedder.provider)
    np.testing.assert_array_equal(again.embed(waveform), embedder.embed(waveform))


def test_what_was_pickled_is_not_opened_as_another_model(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    pickled = pickle.dumps(Embedder(folder, device="cpu", threads=1))
    shutil.rmtree(folder)
    shutil.copytree(default_bundle(), folder)
    with pytest.raises(BundleError, match=r"bundle: holds model \w+ now, not \w+ that was pickled"):
        pickle.loads(pickled)


def test_an_embedding_that_is_not_finite_is_none(embedder):
    waveform = melody(90_000, seed=0)
    waveform[100] = 3e38
    with pytest.raises(AudioError, match="too loud for float32: its embedding is not finite"):
        embedder.embed(waveform)


def test_an_unknown_device_is_refused(tiny_bundle):
    with pytest.raises(DeviceError, match="'tpu': choose one of auto, cpu, cuda"):
        Embedder(tiny_bundle, device="tpu")


@pytest.mark.skipif(BUILT_WITH_CUDA, reason="this ONNX Runtime is built with CUDA")
def test_cuda_that_is_not_there_is_an_error_and_not_the_cpu(tiny_bundle):
    with pytest.raises(DeviceError, match=r"no CUDA provider; .*pip install \"onnxruntime-gpu\[cuda,cudnn\]"):
        Embedder(tiny_bundle, device="cuda")
    assert Embedder(tiny_bundle, device="auto").provider == "CPUExecutionProvider"


@pytest.mark.cuda
@pytest.mark.parametrize("bundle", ["tiny", "the one that ships"])
def test_cuda_gives_the_embeddings_of_the_cpu(tiny_bundle, bundle):
    path = tiny_bundle if bundle == "tiny" else default_bundle()
    try:
        on_cuda = Embedder(path, device="cuda")
    except DeviceError as error:
        pytest.skip(str(error))
    waveforms = [melody(length, seed=length) for length in (30_000, 100_003, 600_000)]
    embeddings, expected = (embedder.embed_batch(waveforms) for embedder in (on_cuda, Embedder(path, device="cpu")))
    assert (embeddings * expected).sum(axis=1).min() >= 0.9999
    assert np.abs(embeddings - expected).max() <= on_cuda.contract.parity_tolerance


def test_a_call_that_fails_is_not_tried_again_elsewhere(tiny_bundle, monkeypatch, capfd):
    """ONNX Runtime would print so, and go on with the CPU from then on."""
    failing = Embedder(tiny_bundle, device="cpu")

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(there, name)

        def run(self, *_: object) -> None:
            raise EPFail("the device is gone")

    there = failing._session._sess
    monkeypatch.setattr(failing._session, "_sess", Failing())
    with pytest.raises(DeviceError, match=r"ONNX Runtime failed on 5 s of audio \(the device is gone\)"):
        failing.embed(melody(100_003, seed=0))
    assert capfd.readouterr().out == "" and isinstance(failing._session._sess, Failing)


def test_without_onnx_runtime_the_error_says_what_to_install(tiny_bundle):
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from bytecover2_milvus.embedding.embedder import Embedder\n"
        "from bytecover2_milvus.errors import DeviceError\n"
        f"try: Embedder({str(tiny_bundle)!r})\n"
        "except DeviceError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "onnxruntime is missing or broken: pip install" in done.stdout
    assert "--force-reinstall onnxruntime, or onnxruntime-gpu" in done.stdout
