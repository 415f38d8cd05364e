"""Bundles of both contract versions in Node, C++ and a browser: what golden.npz holds comes back, of version 1 they say
that there is no chroma, and what means nothing is refused.

A missing program or package skips a test, or fails it where ``BYTECOVER2_REQUIRE=consumers`` says that all are there.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import onnx
import pytest
import soundfile
import soxr
from chromium import Chromium
from conftest import missing, write_int8
from numpy.typing import NDArray

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder

REPOSITORY = Path(__file__).parents[2]
CONSUMERS = REPOSITORY / "export" / "consumers"
HEADERS = REPOSITORY / ".cache" / "trixie" / "usr" / "include" / "onnxruntime"
BUNDLE = REPOSITORY / "bytecover2_milvus" / "bundles" / "bytecover2-128"
VERSIONS = {version: REPOSITORY / "tests" / "golden" / f"contract-{version}" for version in (1, 2)}
NO_CHROMA = "contract version 1 has no second stage: no chroma"
CHROMA_TOLERANCE = 0.01
CONVERT = "convert it first: ffmpeg -i IN -ar 22050 OUT.wav"


@pytest.fixture(scope="module")
def int8(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle in int8, calibrated on noise and judged by whether each noise finds its own copy."""
    from bytecover2_milvus.export.quantize import CalibrationSet

    noises = list(np.random.default_rng(0).random((4, 84, 40), dtype=np.float32))
    songs = CalibrationSet(noises, [*noises, *noises], [*"abcd", *"abcd"], "noise")
    return write_int8(tiny_bundle, tmp_path_factory.mktemp("int8") / "bundle", songs, checkpoint=False).path


@pytest.fixture(scope="module", params=["ships", "int8", *VERSIONS])
def bundle(request: pytest.FixtureRequest) -> Path:
    """The bundle that ships, one in int8, one of each contract version: what every consumer must reproduce."""
    if request.param in VERSIONS:
        return VERSIONS[request.param]
    return BUNDLE if request.param == "ships" else request.getfixturevalue("int8")


def golden_of(bundle: Path) -> dict[str, NDArray]:
    with np.load(bundle / "golden.npz") as arrays:
        return dict(arrays)


def outputs_of(bundle: Path) -> list[str]:
    return ["embedding", "chroma"] if "long_chroma" in golden_of(bundle) else ["embedding"]


def tolerance_of(bundle: Path) -> float:
    return json.loads((bundle / "contract.json").read_text())["parity_tolerance"]


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray]:
    return golden_of(BUNDLE)


@pytest.fixture(scope="module")
def tolerance() -> float:
    return tolerance_of(BUNDLE)


def write_golden(bundle: Path, folder: Path) -> list[Path]:
    """The golden waveforms as long.wav and short.wav."""
    paths = [folder / "long.wav", folder / "short.wav"]
    for path in paths:
        soundfile.write(path, golden_of(bundle)[f"{path.stem}_waveform"], SAMPLE_RATE)
    return paths


def check_files(bundle: Path, lines: list[dict]) -> None:
    """Hold what a consumer printed for the files of `write_golden` with ``--chroma`` against ``golden.npz``."""
    golden, outputs = golden_of(bundle), outputs_of(bundle)
    assert [Path(line["file"]).stem for line in lines] == ["long", "short"]
    for line in lines:
        assert list(line) == ["file", *outputs]
        for output, tolerance in zip(outputs, (tolerance_of(bundle), CHROMA_TOLERANCE), strict=False):
            expected = golden[f"{Path(line['file']).stem}_{output}"]
            assert np.shape(line[output]) == expected.shape
            np.testing.assert_allclose(line[output], expected, rtol=0, atol=tolerance)


def module(name: str) -> None:
    if not (CONSUMERS / "node_modules" / name).is_dir():
        missing(f"{name}: npm ci in export/consumers")


def test_what_is_missing_skips_unless_it_is_required(monkeypatch):
    monkeypatch.delenv("BYTECOVER2_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs node"):
        missing("node")
    monkeypatch.setenv("BYTECOVER2_REQUIRE", "consumers")
    with pytest.raises(pytest.fail.Exception, match="needs node, which BYTECOVER2_REQUIRE=consumers says is there"):
        missing("node")


@pytest.mark.parametrize(
    "path", sorted([*CONSUMERS.glob("*.mjs"), *CONSUMERS.glob("*.cpp")]), ids=lambda path: path.name
)
def test_every_file_of_the_consumers_is_short(path):
    assert len(path.read_text().splitlines()) <= 80


# Node


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        missing("node, version 20 or later (Debian: nodejs)")
    return program


def embed(node: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    module("onnxruntime-node")
    return subprocess.run([node, CONSUMERS / "embed.mjs", *arguments], capture_output=True, text=True)


def test_node_reproduces_the_golden_vectors(node, bundle):
    done = embed(node, bundle)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    outputs, allowed = outputs_of(bundle), {"embedding": tolerance_of(bundle), "chroma": CHROMA_TOLERANCE}
    expected = [(name, output) for name in ("long", "short") for output in outputs]
    assert [(line["golden"], line["output"]) for line in lines] == expected
    assert all(line["difference"] <= allowed[line["output"]] for line in lines)
    assert (NO_CHROMA in done.stderr) == (outputs == ["embedding"])


def test_node_neither_keeps_nor_sends_what_it_notes(node, tmp_path, monkeypatch):
    for variable in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert embed(node, BUNDLE).returncode == 0
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("output", "off", "tolerance"), [("embedding", 0.001, 0.0001), ("chroma", 0.02, 0.01)])
@pytest.mark.parametrize("consumer", ["python", "node"])
def test_what_is_beyond_its_tolerance_is_named(request, consumer, output, off, tolerance, tmp_path):
    bundle, golden = shutil.copytree(VERSIONS[2], tmp_path / "bundle"), golden_of(VERSIONS[2])
    golden[f"short_{output}"][-1] += np.float32(off)
    np.savez(bundle / "golden.npz", **golden)
    program = [sys.executable, "-P", REPOSITORY / "export" / "embed.py"]
    if consumer == "node":
        module("onnxruntime-node")
        program = [request.getfixturevalue("node"), CONSUMERS / "embed.mjs"]
    done = subprocess.run([*program, bundle], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.removeprefix("embed.mjs: ") == f"short: {output} differs by more than {tolerance}\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_node_prints_embedding_and_chroma_of_every_file(node, version, tmp_path):
    done = embed(node, VERSIONS[version], "--chroma", *write_golden(VERSIONS[version], tmp_path))
    assert done.returncode == 0, done.stderr
    *files, pair = map(json.loads, done.stdout.splitlines())
    check_files(VERSIONS[version], files)
    assert pair["similarity"] == pytest.approx(np.dot(*(file["embedding"] for file in files)), abs=1e-6)
    assert done.stderr == ("" if version == 2 else f"{VERSIONS[1]}: {NO_CHROMA}\n")


def test_node_prints_the_embedding_of_one_file(node, golden, tolerance, tmp_path):
    soundfile.write(tmp_path / "short.wav", golden["short_waveform"], SAMPLE_RATE)
    done = embed(node, BUNDLE, tmp_path / "short.wav")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), golden["short_embedding"], atol=tolerance)


def test_node_compares_every_pair(node, golden, tmp_path):
    paths = [tmp_path / f"{name}.wav" for name in ("long", "short", "long again")]
    for path in paths:
        soundfile.write(path, golden[f"{path.stem.split()[0]}_waveform"], SAMPLE_RATE)
    done = embed(node, BUNDLE, *paths)
    lines = map(json.loads, done.stdout.splitlines())
    similarity = {(Path(line["a"]).stem, Path(line["b"]).stem): line["similarity"] for line in lines}
    across = float(golden["long_embedding"] @ golden["short_embedding"])
    expected = {("long", "short"): across, ("long", "long again"): 1.0, ("short", "long again"): across}
    assert similarity == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")] + [("WAVEX", "PCM_24")],
)
def test_node_reads_wav_files_as_libsndfile_does(node, container, subtype, tmp_path):
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(0).uniform(-1, 1, (501, 3))
    soundfile.write(path, noise, 8000, format=container, subtype=subtype)
    code = (
        "const {decodeWav} = await import(process.argv[1]); const {readFileSync} = await import('node:fs');"
        "const {rate, waveform} = decodeWav(Uint8Array.from(readFileSync(process.argv[2])).buffer);"
        "console.log(JSON.stringify([rate, [...waveform]]))"
    )
    command = [node, "--input-type=module", "-e", code, CONSUMERS / "wav.mjs", path]
    rate, waveform = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert rate == 8000
    np.testing.assert_allclose(waveform, soundfile.read(path)[0].mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "rate", "samples", "message"),
    [
        ("other rate", 44100, np.full(88200, 0.5), "44100 Hz: resample it to 22050 Hz"),
        ("short", SAMPLE_RATE, np.full(11025, 0.5), "too short: 0.50 s, 1 s are needed"),
        ("silent", SAMPLE_RATE, np.zeros(30000), "silent: no sample above -60 dBFS"),
        ("damaged", SAMPLE_RATE, np.full(30000, np.nan), "damaged: samples that are not numbers"),
        ("empty", SAMPLE_RATE, np.zeros(0), "too short: 0.00 s, 1 s are needed"),
    ],
)
def test_node_refuses_what_would_mean_nothing(node, name, rate, samples, message, tmp_path):
    path = tmp_path / f"{name}.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    done = embed(node, BUNDLE, path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"embed.mjs: {path}: {message}\n")


def test_node_refuses_what_is_no_wav_file(node, tmp_path):
    path = tmp_path / "notes.wav"
    path.write_text("not audio")
    done = embed(node, BUNDLE, path)
    assert (done.returncode, done.stderr) == (1, f"embed.mjs: {path}: no WAV file: convert it to one\n")


def test_node_refuses_a_contract_it_does_not_know(node, tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle")
    contract = json.loads((bundle / "contract.json").read_text())
    (bundle / "contract.json").write_text(json.dumps(contract | {"contract_version": 3}))
    done = embed(node, bundle)
    assert (done.returncode, done.stderr) == (1, "embed.mjs: contract version 3: this program knows versions 1 and 2\n")


# C++


@pytest.fixture(scope="module")
def embed_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """embed.cpp, compiled with the ONNX Runtime that is installed, or with headers and onnxruntime-node's library."""
    compiler = shutil.which("c++")
    if compiler is None or not Path("/usr/include/sndfile.hh").exists():
        missing("a C++ compiler and libsndfile (Debian: g++, libsndfile1-dev)")
    library = CONSUMERS / "node_modules" / "onnxruntime-node" / "bin" / "napi-v6" / "linux" / "x64"
    flags = [f"-I{HEADERS}", f"-L{library}", f"-Wl,-rpath,{library}", "-l:libonnxruntime.so.1"]
    if shutil.which("pkg-config") and not subprocess.run(["pkg-config", "--exists", "libonnxruntime"]).returncode:
        flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "libonnxruntime"], text=True).split()
    elif not (HEADERS.is_dir() and library.is_dir()):
        missing(f"libonnxruntime-dev (Debian 13 has it), or its headers in {HEADERS} and onnxruntime-node")
    program = tmp_path_factory.mktemp("cpp") / "embed"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", CONSUMERS / "embed.cpp", "-o", program, "-lsndfile", *flags]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert (compiled.returncode, compiled.stderr) == (0, "")
    return program


def test_cpp_reproduces_the_golden_vectors(embed_cpp, bundle, tmp_path):
    done = subprocess.run(
        [embed_cpp, bundle / "model.onnx", *write_golden(bundle, tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(("long", "short"), done.stdout.splitlines(), strict=True):
        *embedding, path = line.split()
        assert path == str(tmp_path / f"{name}.wav")
        expected = golden_of(bundle)[f"{name}_embedding"]
        np.testing.assert_allclose(np.array(embedding, float), expected, rtol=0, atol=tolerance_of(bundle))


@pytest.mark.parametrize("version", VERSIONS)
def test_cpp_prints_embedding_and_chroma_of_every_file(embed_cpp, version, tmp_path):
    model, paths = VERSIONS[version] / "model.onnx", write_golden(VERSIONS[version], tmp_path)
    done = subprocess.run([embed_cpp, model, "--chroma", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "" if version == 2 else f"{model}: {NO_CHROMA}\n")
    rows: dict[str, list[list[float]]] = {}
    for line in done.stdout.splitlines():
        *numbers, path = line.split()
        rows.setdefault(path, []).append([float(number) for number in numbers])
    outputs = outputs_of(VERSIONS[version])
    files = [
        dict(zip(["file", *outputs], [path, embedding, chroma], strict=False))
        for path, (embedding, *chroma) in rows.items()
    ]
    check_files(VERSIONS[version], files)


def test_cpp_refuses_a_contract_it_does_not_know(embed_cpp, tmp_path):
    model = onnx.load(VERSIONS[1] / "model.onnx")
    next(fact for fact in model.metadata_props if fact.key == "contract_version").value = "3"
    onnx.save(model, tmp_path / "model.onnx")
    done = subprocess.run([embed_cpp, tmp_path / "model.onnx", "a.wav"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "embed: this program knows contract versions 1 and 2\n")


@pytest.mark.parametrize(
    ("rate", "samples", "message"),
    [
        (44100, np.full(88200, 0.5), CONVERT),
        (SAMPLE_RATE, np.full(11025, 0.5), "too short"),
        (SAMPLE_RATE, np.zeros(30000), "silent or damaged"),
        (SAMPLE_RATE, np.full(30000, np.nan), "silent or damaged"),
    ],
)
def test_cpp_refuses_what_would_mean_nothing(embed_cpp, rate, samples, message, tmp_path):
    path = tmp_path / "refused.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    done = subprocess.run([embed_cpp, BUNDLE / "model.onnx", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"embed: {path}: {message}\n")


# Python


@pytest.mark.parametrize("version", VERSIONS)
def test_python_prints_embedding_and_chroma_of_every_file(version, tmp_path):
    command = [sys.executable, "-P", REPOSITORY / "export" / "embed.py", VERSIONS[version], "--chroma"]
    done = subprocess.run([*command, *write_golden(VERSIONS[version], tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *files, pair = map(json.loads, done.stdout.splitlines())
    check_files(VERSIONS[version], files)
    assert pair["similarity"] == pytest.approx(np.dot(*(file["embedding"] for file in files)), abs=1e-6)
    assert done.stderr == ("" if version == 2 else f"{VERSIONS[1]}: {NO_CHROMA}\n")


# Python and C++, which read with libsndfile


@pytest.fixture(params=["python", "cpp"])
def by_libsndfile(request: pytest.FixtureRequest) -> list[str | Path]:
    """The command of a consumer but for the files."""
    if request.param == "python":
        return [sys.executable, "-P", REPOSITORY / "export" / "embed.py", BUNDLE]
    return [request.getfixturevalue("embed_cpp"), BUNDLE / "model.onnx"]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
def test_what_libsndfile_reads_gives_the_packages_embedding(by_libsndfile, golden, suffix, tmp_path):
    path = tmp_path / f"stereo.{suffix}"
    waveform = golden["long_waveform"][: 8 * SAMPLE_RATE] / 32768
    soundfile.write(path, np.stack([waveform, 0.5 * waveform[::-1]], axis=1), SAMPLE_RATE)
    done = subprocess.run([*by_libsndfile, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.replace(str(path), "").strip("[]\n ").replace(",", " ")
    embedding = np.array(numbers.split(), float)
    assert embedding @ Embedder(BUNDLE, device="cpu").embed(load_audio(path)) > 0.9999


def test_python_resamples_as_the_package_does(golden, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, soxr.resample(golden["long_waveform"] / 32768, SAMPLE_RATE, 44100), 44100)
    command = [sys.executable, "-P", REPOSITORY / "export" / "embed.py", BUNDLE, path]
    embedding = json.loads(subprocess.check_output(command, text=True))
    assert embedding @ Embedder(BUNDLE, device="cpu").embed(load_audio(path)) > 0.9999


@pytest.mark.parametrize("name", ["song.mp3", "piped.flac", "song.m4a", "notes.wav"])
def test_what_libsndfile_reads_in_part_or_not_at_all_is_refused(by_libsndfile, golden, name, tmp_path):
    path = tmp_path / name
    waveform = golden["short_waveform"]
    if name == "song.mp3":  # of one with a variable rate and without a Xing header it would read a fraction
        soundfile.write(path, waveform, SAMPLE_RATE)
    elif name == "piped.flac":  # an encoder that cannot seek back leaves the number of samples, 36 bits, at zero
        soundfile.write(path, waveform, SAMPLE_RATE)
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        path.write_bytes(content)
    else:
        path.write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    done = subprocess.run([*by_libsndfile, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.removeprefix("embed: ") == f"{path}: {CONVERT}\n"


def test_a_file_that_is_not_there_is_named(by_libsndfile, tmp_path):
    done = subprocess.run([*by_libsndfile, tmp_path / "gone.wav"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "gone.wav" in done.stderr and "No such file" in done.stderr and "convert" not in done.stderr


# The browser


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of the page, the files of `folder` being served as by ``python -m http.server``."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/export/web/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(browser: Chromium) -> Chromium:
    module("onnxruntime-web")
    return browser


@pytest.fixture(scope="module")
def loaded(chromium: Chromium) -> Iterator[Chromium]:
    with serve(REPOSITORY) as url:
        chromium.open(url)
        chromium.wait("!document.querySelector('#check').disabled")
        yield chromium


@pytest.fixture
def page(loaded: Chromium) -> Iterator[Chromium]:
    """The page with its model, free of errors at the end."""
    yield loaded
    assert loaded.errors == []


FIRST, SECOND = ".recording:nth-child(1)", ".recording:nth-child(2)"


def finish(page: Chromium) -> list[str]:
    """What the page says of the two recordings when it is done with them."""
    page.wait("[...document.querySelectorAll('progress')].every((progress) => progress.hidden)")
    return [page.text(f"{section} .status") for section in (FIRST, SECOND)]


def embeddings(page: Chromium) -> list[NDArray]:
    """Of the two recordings, out of the file that the page offers to save."""
    saved = json.loads(unquote(page.evaluate("document.querySelector('#save').href").partition(",")[2]))
    assert saved["model_id"] == json.loads((BUNDLE / "contract.json").read_text())["model_id"]
    return [np.array(recording["embedding"]) for recording in saved["recordings"]]


def test_the_page_reproduces_the_golden_vectors_from_files(page, golden, tolerance, tmp_path):
    for section, name in ((FIRST, "long"), (SECOND, "short")):
        soundfile.write(tmp_path / f"{name}.wav", golden[f"{name}_waveform"], SAMPLE_RATE)
        page.choose(f"{section} input", tmp_path / f"{name}.wav")
    assert finish(page) == ["long.wav, 20.0 s", "short.wav, 3.0 s"]
    for embedding, name in zip(embeddings(page), ("long", "short"), strict=True):
        np.testing.assert_allclose(embedding, golden[f"{name}_embedding"], atol=tolerance)
    similarity = golden["long_embedding"] @ golden["short_embedding"]
    assert float(page.text("#similarity")) == pytest.approx(similarity, abs=1e-3)


def test_the_page_checks_the_browser_from_the_keyboard(page):
    reached = []
    page.evaluate("document.activeElement.blur()")  # Tab goes on from there
    while "check" not in reached:
        page.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
        assert len(reached) < 40
    assert reached[0] == "file"
    page.press("Enter")
    page.wait("document.querySelector('#checked').textContent.includes('difference')")
    assert re.search(r"embedding \S+, within the tolerance of 0\.0001\b", page.text("#checked"))


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg"])
def test_the_page_decodes_and_resamples_as_the_package_does(page, golden, suffix, tmp_path):
    path = tmp_path / f"stereo.{suffix}"
    waveform = soxr.resample(golden["long_waveform"][: 8 * SAMPLE_RATE] / 32768, SAMPLE_RATE, 44100)
    soundfile.write(path, np.stack([waveform, 0.5 * waveform[::-1]], axis=1), 44100)
    page.drop(FIRST, path)
    page.drop(SECOND, path)
    assert finish(page) == [f"stereo.{suffix}, 8.0 s"] * 2
    assert page.text("#similarity") == "1.000"
    expected = Embedder(BUNDLE, device="cpu").embed(load_audio(path))
    for embedding in embeddings(page):
        assert embedding @ expected > 0.999


def test_the_page_says_what_is_wrong_with_a_file_and_goes_on(page, golden, tmp_path):
    (tmp_path / "notes.mp3").write_text("not audio")
    soundfile.write(tmp_path / "silent.wav", np.zeros(30000), SAMPLE_RATE)
    soundfile.write(tmp_path / "short.wav", golden["long_waveform"][:11025], SAMPLE_RATE)
    soundfile.write(tmp_path / "good.wav", golden["short_waveform"], SAMPLE_RATE)
    page.drop(FIRST, tmp_path / "notes.mp3", tmp_path / "silent.wav")
    assert finish(page) == [
        "notes.mp3: this browser cannot decode it; choose an MP3, WAV, FLAC, Ogg or M4A file",
        "silent.wav: silent: no sample above -60 dBFS",
    ]
    assert page.evaluate("document.querySelectorAll('.status.failed').length") == 2
    page.drop(SECOND, tmp_path / "short.wav", tmp_path / "good.wav")
    assert finish(page) == ["good.wav, 3.0 s", "short.wav: too short: 0.50 s, 1 s are needed"]
    assert page.text("#similarity") == "–"
    page.drop(SECOND, tmp_path / "good.wav")
    assert finish(page) == ["good.wav, 3.0 s"] * 2
    assert page.text("#similarity") == "1.000"


def test_the_page_shows_the_file_that_was_chosen_last(page, golden, tmp_path):
    soundfile.write(tmp_path / "long.wav", golden["long_waveform"], SAMPLE_RATE)
    soundfile.write(tmp_path / "short.wav", golden["short_waveform"], SAMPLE_RATE)
    page.drop(FIRST, tmp_path / "long.wav", tmp_path / "short.wav")
    page.drop(FIRST, tmp_path / "short.wav")
    assert finish(page) == ["short.wav, 3.0 s"] * 2
    assert page.text("#similarity") == "1.000"


def test_the_page_sends_nothing(page, golden, tmp_path):
    page.requests.clear()
    soundfile.write(tmp_path / "private.wav", golden["short_waveform"], SAMPLE_RATE)
    page.drop(FIRST, tmp_path / "private.wav")
    assert finish(page)[0] == "private.wav, 3.0 s"
    assert page.requests  # for its player
    assert {request["url"].partition(":")[0] for request in page.requests} <= {"blob", "data"}


def test_the_page_may_reach_no_other_server(page):
    blocked = (
        "new Promise((resolve) => {"
        " document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));"
        " fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert page.evaluate(blocked) == "connect-src"
    page.errors.clear()  # the browser reports what it blocked


def test_every_control_of_the_page_has_a_name(page):
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node["role"]["value"] in ("button", "link", "meter", "progressbar")]
    names = [node["name"]["value"] for node in controls if not node["ignored"]]
    assert all(names)
    assert {"Check this browser", "Similarity"} <= set(names)
    for which in ("First", "Second"):
        assert any(name.startswith(f"{which} recording") for name in names)


@contextmanager
def page_of(chromium: Chromium, bundle: Path, folder: Path) -> Iterator[Chromium]:
    """The page with another bundle, which lies in `folder` where the page looks for one."""
    (folder / "export").symlink_to(REPOSITORY / "export")
    (folder / "bytecover2_milvus" / "bundles").mkdir(parents=True)
    (folder / "bytecover2_milvus" / "bundles" / BUNDLE.name).symlink_to(bundle)
    with serve(folder) as url:
        chromium.open(url)
        chromium.wait("!document.querySelector('#check').disabled")
        yield chromium


def check_page(page: Chromium) -> str:
    """What the page says of ``golden.npz``."""
    page.evaluate("document.querySelector('#check').click()")
    page.wait("document.querySelector('#checked').textContent.startsWith('golden.npz')")
    return page.text("#checked")


def test_the_page_reproduces_the_golden_vectors_in_int8(chromium, int8, tmp_path):
    with page_of(chromium, int8, tmp_path) as page:
        assert re.fullmatch(
            r"golden\.npz: largest difference of embedding \S+, within the tolerance of 0\.02", check_page(page)
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_the_page_saves_what_a_bundle_of_each_version_gives(chromium, version, tmp_path):
    paths = write_golden(VERSIONS[version], tmp_path)
    with page_of(chromium, VERSIONS[version], tmp_path) as page:
        assert page.text("#model").endswith(NO_CHROMA) == (version == 1)
        assert re.search(r"of chroma \S+, within the tolerance of 0\.01$", check_page(page)) or version == 1
        page.drop(FIRST, *paths)
        finish(page)
        link = page.evaluate("document.querySelector('#save').href")
    saved, contract = (
        json.loads(unquote(link.partition(",")[2])),
        json.loads((VERSIONS[version] / "contract.json").read_text()),
    )
    assert saved.get("chroma_id") == contract.get("chroma", {}).get("chroma_id")
    outputs = outputs_of(VERSIONS[version])
    check_files(
        VERSIONS[version],
        [
            {"file": saved_as["name"], **{output: saved_as[output] for output in outputs}}
            for saved_as in saved["recordings"]
        ],
    )
    assert ("chroma" in saved["recordings"][0]) == (version == 2)


def test_the_page_says_that_its_model_is_missing(chromium, tmp_path):
    (tmp_path / "export").symlink_to(REPOSITORY / "export")
    with serve(tmp_path) as url:
        chromium.open(url)
        chromium.wait("document.querySelector('#model').classList.contains('failed')")
    assert chromium.text("#model").startswith("The model did not load: http://127.0.0.1")
    assert chromium.text("#model").endswith("contract.json: 404 File not found")
    assert chromium.evaluate("document.querySelector('#check').disabled")
