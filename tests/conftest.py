"""What several test files share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from audio_files import write_tone
from band_embedder import BandEmbedder
from chromium import Chromium

import bytecover2_milvus
from benchmarks.milvus_server import MilvusServer
from bytecover2_milvus.collection import TrackCollection
from bytecover2_milvus.config import Config, FrontEnd, Network
from bytecover2_milvus.milvus import close, connect
from bytecover2_milvus.naming import drop_collection

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from bytecover2_milvus.bundle import Bundle
    from bytecover2_milvus.export.quantize import CalibrationSet
    from bytecover2_milvus.model.network import ByteCover2

DATA = Path(os.environ.get("BYTECOVER2_TEST_SCORES", Path(__file__).parents[2] / "shared" / "data"))
EXPORT = Path(__file__).parents[1] / "export"

os.environ.pop("COLUMNS", None)  # processes that pytest-xdist starts get 80, whoever sees the tables


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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Headless Chromium, in the size of a desk's screen."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing("chromium or google-chrome (Debian: chromium)")
    with Chromium(program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Milvus server: ``BYTECOVER2_TEST_MILVUS_URI``, or one of our own in a fresh folder."""
    if uri := os.environ.get("BYTECOVER2_TEST_MILVUS_URI"):
        yield uri
        return
    pytest.importorskip("milvus", reason="no Milvus server here; pip install milvus==2.3.5 (Linux, x86-64)")
    with MilvusServer(tmp_path_factory.mktemp("milvus-server")) as server:
        yield server.uri


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=pytest.mark.milvus)])
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
    """A real bundle of a small untrained network, D = 128: to read, not to change.

    Exporting takes ten seconds, nearly all of it torch's; the bundle is kept in pytest's cache for as long as the code
    that makes it stays the same.
    """
    package = Path(bytecover2_milvus.__file__).parent
    sources = [*package.glob("model/*.py"), *EXPORT.glob("*.*"), package / "bundle.py", package / "config.py"]
    sources.append(package / "training" / "checkpoint.py")
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources)))
    path = request.config.cache.mkdir("tiny_bundle") / code.hexdigest()[:16]
    if not path.is_dir():
        from bytecover2_milvus.export.exporter import write_bundle

        made = path.with_suffix(f".{os.getpid()}")  # other processes may be making it too
        write_bundle(*tiny_network(), made, facts={"Trained on": "nothing, it is for tests"})
        with contextlib.suppress(OSError):  # another one was faster
            made.rename(path)
    return path


def write_int8(tiny_bundle: Path, folder: Path, songs: CalibrationSet, checkpoint: bool = True) -> Bundle:
    """The tiny bundle in int8, calibrated on `songs` and judged by them, in `folder`."""
    from bytecover2_milvus.export import exporter

    with pytest.MonkeyPatch.context() as patch:  # what torch would export again in ten seconds
        patch.setattr(exporter, "export_onnx", lambda shipped, metadata: (tiny_bundle / "model.onnx").read_bytes())
        return exporter.write_bundle(*tiny_network(), folder, facts={}, checkpoint=checkpoint, int8=songs)


def tiny_network(feature_dim: int | None = 128) -> tuple[Config, ByteCover2]:
    """An eighth of the paper's width and a block per group, its normalisations as if it had been trained."""
    import torch

    from bytecover2_milvus.model.network import ByteCover2

    config = Config(FrontEnd(time_pooling=20), Network(feature_dim, base_width=8, stage_blocks=(1, 1, 1, 1)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ByteCover2(config.network)
        for module in network.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return config, network
