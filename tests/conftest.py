"""What several test files share."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest
from audio_files import write_tone
from band_embedder import BandEmbedder
from chromium import Chromium
from filelock import FileLock
from served_catalogue import served_bundle, served_milvus, served_music  # noqa: F401  # fixtures

import bytecover2_milvus
from benchmarks.milvus_server import MilvusServer, unpack
from bytecover2_milvus.config import Config, FrontEnd, Network, Notes
from bytecover2_milvus.milvus.alias import drop_collection
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect

if TYPE_CHECKING:
    from pymilvus import MilvusClient
    from torch.nn import Module

    from bytecover2_milvus.embedding.bundle import Bundle
    from bytecover2_milvus.export.quantize import CalibrationSet
    from bytecover2_milvus.model.network import ByteCover2
    from bytecover2_milvus.model.note_map import NoteMap

AnyModule = TypeVar("AnyModule", bound="Module")

DATA = Path(os.environ.get("BYTECOVER2_TEST_SCORES", Path(__file__).parents[2] / "shared" / "data"))
EXPORT = Path(__file__).parents[1] / "export"
PACKAGE = Path(bytecover2_milvus.__file__).parent

# Files that take half a minute or more: they are begun first, so that none is left for one of the processes at the end,
# and those that compute beside those that wait for a server.
LONG = ["cli", "promotion", "export", "chroma_rows", "training", "faults", "groups", "network_input", "collection"]
LONG += ["recordings", "service", "decoding", "bulk", "cluster", "retrieval", "table2", "installed"]
_SERVER = pytest.param("server", marks=pytest.mark.milvus)
ON_SERVER = pytest.mark.parametrize("milvus_uri", [_SERVER], indirect=True)  # of a test that is not run on Milvus Lite
ASKS_SERVER = re.compile(r"[\[-]server[\]-]")  # in the name of a test: of the fixture milvus_uri
# Files that `make check` leaves out, and what they do that takes long.
SLOW = set().union(
    ["ablation", "adaptation", "calibration", "choices", "continue", "precision", "training", "unlabelled"],  # train
    ["export", "hostile_checkpoint", "keeping", "network_input", "note_map", "quantize", "query_command"],  # export
    ["bulk", "chroma_rows", "collection", "collections_by_hand", "embedding_function", "faults"],  # start servers
    ["groups", "promotion", "rerank", "rest", "segments", "tokens", "parquet", "verdict"],  # too
    ["cli", "cluster", "consumers", "decoding", "docker_compose", "endings", "examples"],  # start other processes
    ["installed", "layers", "processes", "service", "telemetry", "terminal", "verify"],  # too
    ["evaluation_page", "explain", "groups_page", "page"],  # browsers
    ["audio_fuzz", "audio_oddities", "degrade", "fourier", "performing", "qmax"],  # compute
    ["recordings", "soundfont", "spectral", "syllables"],  # too
    ["benchmarks_of_speed", "groups_benchmark", "rerank_benchmark", "retrieval", "robustness"],  # benchmarks
    ["segments_benchmark", "serve_benchmark", "table1", "table2", "throughput", "validation"],  # too
    ["chroma_benchmark", "excerpts", "jingles"],  # too
)

# One thread of torch in each process, as pytest-xdist runs one on every core: networks are so small that threads only
# wait for each other. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # processes that pytest-xdist starts get 80, whoever sees the tables
# In the background, or under nohup, these are ignored, and what tests start would ignore them too.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file need not be imported, as none of its tests are run."""
    slow = collection_path.suffix == ".py" and _file(collection_path) in SLOW
    return True if slow and config.option.markexpr == "not slow" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs all tests of the Milvus server, and waits for it while others compute files of other tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServerAndFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "server" if ASKS_SERVER.search(nodeid) else nodeid.partition("::")[0]

    return ByServerAndFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {file: rank for rank, file in enumerate(LONG)}
    items.sort(key=lambda item: (not ASKS_SERVER.search(item.nodeid), order.get(_file(item.path), len(order))))
    for item in items:
        if _file(item.path) in SLOW or item.get_closest_marker("milvus"):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """All servers of all processes run the binaries that are unpacked once, in pytest's cache."""
    if MilvusServer.binaries is None and item.get_closest_marker("milvus") and importlib.util.find_spec("milvus"):
        folder = item.config.cache.mkdir("milvus")
        with FileLock(folder.with_suffix(".lock")):
            unpack(folder)
        MilvusServer.binaries = folder


def _file(path: Path) -> str:
    return path.stem.removeprefix("test_")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recordings and scores that `docs/songs.md` describes."""
    if not DATA.is_dir():
        pytest.skip(f"needs the scores of docs/songs.md; BYTECOVER2_TEST_SCORES names the folder, {DATA} is none")
    return DATA


def missing(what: str) -> NoReturn:
    """Skip, or fail where ``.ci/run`` has installed what the consumers need."""
    if os.environ.get("BYTECOVER2_REQUIRE") == "consumers":
        pytest.fail(f"needs {what}, which BYTECOVER2_REQUIRE=consumers says is there")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """The browser that is installed."""
    return (
        shutil.which("chromium")
        or shutil.which("google-chrome")
        or missing("chromium or google-chrome (Debian: chromium)")
    )


@pytest.fixture(scope="session")
def browser(chromium_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Headless Chromium, in the size of a desk's screen."""
    with Chromium(chromium_program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A real Milvus server in a fresh folder."""
    pytest.importorskip("milvus", reason="no Milvus server here; pip install milvus==2.3.5 (Linux, x86-64)")
    with MilvusServer(tmp_path_factory.mktemp("milvus-server"), quick=True) as server:
        yield server


@pytest.fixture(scope="module")
def milvus_server(request: pytest.FixtureRequest) -> str:
    """The address of a real Milvus server: ``BYTECOVER2_TEST_MILVUS_URI``, or `own_server`."""
    if uri := os.environ.get("BYTECOVER2_TEST_MILVUS_URI"):
        return uri
    server: MilvusServer = request.getfixturevalue("own_server")
    if not server.answers():  # tests of another module ended it, or the machine was too busy for it
        server.kill()
        server.start()
    return server.uri


@pytest.fixture(scope="module", params=["lite", _SERVER])
def milvus_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Milvus Lite, then the server: what is tested through this fixture holds on both."""
    if request.param == "server":
        return request.getfixturevalue("milvus_server")
    return str(tmp_path_factory.mktemp("lite") / "milvus.db")


@pytest.fixture(scope="module")
def client(milvus_uri: str) -> Iterator[MilvusClient]:
    connected = connect(milvus_uri)
    yield connected
    close(connected)


@pytest.fixture
def name(client: MilvusClient) -> Iterator[str]:
    """A name for a collection or an alias, free before the test and after it."""
    chosen = f"test_{uuid.uuid4().hex}"
    yield chosen
    for collection in client.list_collections(timeout=10):
        if collection.startswith(chosen):
            for alias in client.list_aliases(collection, timeout=10)["aliases"]:
                client.drop_alias(alias, timeout=10)
            client.drop_collection(collection, timeout=10)


@pytest.fixture(scope="module")
def scratch(client: MilvusClient) -> Iterator[TrackCollection]:
    """A collection for the tests of a module: a new one takes a server three seconds."""
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", BandEmbedder())
    yield collection
    drop_collection(client, collection.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four tracks: a.wav to d.wav."""
    music = tmp_path / "music"
    music.mkdir()
    for seed, letter in enumerate("abcd"):
        write_tone(music / f"{letter}.wav", seed)
    return music


@pytest.fixture(scope="session")
def tiny_bundle(request: pytest.FixtureRequest) -> Path:
    """A real bundle of a small untrained network, D = 128: to read, not to change."""
    return _kept_bundle(request, "tiny_bundle", lambda folder: _write_tiny(*tiny_network(), folder))


@pytest.fixture(scope="session")
def tiny_notes_bundle(request: pytest.FixtureRequest) -> Path:
    """The same network beside a small untrained note map: a bundle with a second stage."""

    def write(folder: Path) -> None:
        config, network = tiny_network()
        config = dataclasses.replace(config, notes=Notes(width=8, blocks=1))
        _write_tiny(config, network, folder, note_map=lively_note_map(config.notes))

    return _kept_bundle(request, "tiny_notes_bundle", write)


@pytest.fixture(scope="session")
def transposing_bundle(request: pytest.FixtureRequest) -> Path:
    """The same network with the mean over three transpositions, and ``model_cqt.onnx``."""
    return _kept_bundle(
        request,
        "transposing_bundle",
        lambda folder: _write_tiny(*tiny_network(transpositions=(-3, 0, 3)), folder, cqt=True),
    )


def _write_tiny(
    config: Config, network: ByteCover2, folder: Path, note_map: NoteMap | None = None, cqt: bool = False
) -> None:
    from bytecover2_milvus.export.exporter import write_bundle

    write_bundle(config, network, folder, facts={"Trained on": "nothing, it is for tests"}, note_map=note_map, cqt=cqt)


def _kept_bundle(request: pytest.FixtureRequest, name: str, write: Callable[[Path], None]) -> Path:
    """A bundle in pytest's cache, for as long as the code that makes it stays the same: it takes torch ten seconds."""
    sources = [*PACKAGE.glob("model/*.py"), *EXPORT.glob("*.*"), PACKAGE / "config.py"]
    sources += [PACKAGE / part for part in ("embedding/bundle.py", "embedding/contract.py", "training/checkpoint.py")]
    return _kept(request, name, sources, write)


@pytest.fixture(scope="session")
def tone_folder(request: pytest.FixtureRequest) -> Path:
    """A folder with the measured tones of our own instruments, which takes half a minute: to read, not to change.

    The files in it are named by versions of what makes them (songs/version.py).
    """
    from bytecover2_milvus.training.data.tone_bank import ToneBank

    folder = request.config.cache.mkdir("tones")
    with FileLock(folder.with_suffix(".lock")):
        ToneBank.open(folder, FrontEnd(time_pooling=20))
    return folder


def _kept(request: pytest.FixtureRequest, name: str, sources: list[Path], make: Callable[[Path], object]) -> Path:
    """A folder in pytest's cache, for as long as the `sources` of what makes it stay the same; made by one process."""
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources)))
    path = request.config.cache.mkdir(name) / code.hexdigest()[:16]
    with FileLock(path.with_suffix(".lock")):
        if not path.is_dir():
            unfinished = path.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(path)
    return path


def write_int8(
    bundle: Path,
    folder: Path,
    songs: CalibrationSet,
    checkpoint: bool = True,
    transpositions: tuple[int, ...] = (0,),
) -> Bundle:
    """The float bundle of a `tiny_network` in int8, calibrated on `songs` and judged by them, in `folder`."""
    from bytecover2_milvus.export import exporter

    network = tiny_network(transpositions=transpositions)
    with pytest.MonkeyPatch.context() as patch:  # what torch would export again in ten seconds
        patch.setattr(exporter, "export_onnx", lambda shipped, metadata: (bundle / "model.onnx").read_bytes())
        return exporter.write_bundle(*network, folder, facts={}, checkpoint=checkpoint, int8=songs)


def tiny_network(feature_dim: int | None = 128, transpositions: tuple[int, ...] = (0,)) -> tuple[Config, ByteCover2]:
    """An eighth of the paper's width and a block per group, its normalisations as if it had been trained."""
    import torch

    from bytecover2_milvus.model.network import ByteCover2

    config = Config(
        FrontEnd(time_pooling=20),
        Network(feature_dim, base_width=8, stage_blocks=(1, 1, 1, 1), transpositions=transpositions),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ByteCover2(config.network)
        for module in network.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return config, network


def lively_note_map(notes: Notes) -> NoteMap:
    """A note map with random weights whose output is no constant."""
    import torch

    from bytecover2_milvus.model.note_map import NoteMap

    torch.manual_seed(0)
    return with_statistics(NoteMap(notes))


def with_statistics(module: AnyModule) -> AnyModule:
    """`module` with normalisations as if it had been trained."""
    import torch

    for layer in module.modules():
        if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.1)
            layer.bias.data.normal_(0, 0.1)
    return module
