"""Ingest on a Ray cluster of several nodes: the same as a single process does, also when some of it dies."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import write_melody, write_two_hours
from click.testing import CliRunner

from bytecover2_milvus.audio.segments import Segments
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import ClusterError, CollectionMismatch, DeviceError
from bytecover2_milvus.ingest.pipeline import IngestRecord, ingest
from bytecover2_milvus.ingest.ray import DEATHS, Cluster
from bytecover2_milvus.ingest.ray_connection import OBJECT_STORE
from bytecover2_milvus.manifest import Track, tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.milvus.schema import STORED

pytest.importorskip("ray", reason='Ray is not installed; pip install ".[ray]"')

NODE = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "node_ip_address": "127.0.0.2"}  # which Ray leaves as it is


class Nodes:
    """A Ray cluster of a head and other nodes, one core each, all on this machine and not to be seen from others."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as NodesHere

        self._nodes = NodesHere(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        self.address = self._nodes.address

    @contextmanager
    def one_more(self) -> Iterator[Callable[[], None]]:
        """A node, and what kills it as a power cut would."""
        added = [self._nodes.add_node(**NODE)]

        def kill() -> None:
            (raylet,) = added[0].all_processes["raylet"]
            subprocess.run(["pkill", "-KILL", "-P", str(raylet.process.pid)], check=False)  # they would live on a while
            self._nodes.remove_node(added.pop(), allow_graceful=False)

        yield kill
        if added:
            kill()

    def stop(self) -> None:
        self._nodes.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve melodies, one of them silent for a while, a copy of one, a silent file, and one that is no audio."""
    folder = tmp_path_factory.mktemp("audio")
    for seed in range(11):
        write_melody(folder / f"{seed:02}.flac", seed, 9.0 + seed / 4)
    write_melody(folder / "11.wav", 11, 14.0, silent=(3.0, 9.5))
    shutil.copy(folder / "03.flac", folder / "copy.flac")
    soundfile.write(folder / "silent.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    (folder / "text.mp3").write_text("no audio at all")
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[TrackCollection]:
    """Empty, of the model that ships, cut into segments."""
    client = connect(str(tmp_path / "cluster.db"))
    collection = TrackCollection.create(client, "tracks", Embedder(device="cpu", threads=1))
    collection.set_segmentation(Segments(4.0, 2.0))
    yield collection
    close(client)


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, IngestRecord], dict[str, Any]]:
    """Records and entities of the same files ingested by one process."""
    client = connect(str(tmp_path_factory.mktemp("alone") / "alone.db"))
    embedder = Embedder(device="cpu", threads=1)
    collection = TrackCollection.create(client, "tracks", embedder)
    collection.set_segmentation(Segments(4.0, 2.0))
    records = list(ingest(tracks_in([folder]), embedder, collection, workers=0))
    stored = entities(collection)
    close(client)
    return by_track(records), stored


def entities(collection: TrackCollection) -> dict[str, Any]:
    """All that is stored, by id; embeddings to the last bit."""
    rows = [row for page in collection.pages(["id", *STORED, "embedding", "chroma"]) for row in page]
    return {row["id"]: row | {"embedding": np.asarray(row["embedding"], np.float32).tobytes()} for row in rows}


def by_track(records: Iterable[IngestRecord]) -> dict[str, IngestRecord]:
    listed = list(records)
    found = {record.track_id: record for record in listed}
    assert len(found) == len(listed)
    return found


def on_cluster(nodes: Nodes, folder: Path, collection: TrackCollection, **options: Any) -> Iterator[IngestRecord]:
    return ingest(tracks_in([folder]), Cluster(nodes.address, device="cpu", **options), collection, batch_size=2)


def test_a_cluster_stores_what_one_process_stores(nodes, folder, collection, alone) -> None:
    records, stored = alone
    assert {record.status for record in records.values()} == {"added", "skipped", "failed"}
    assert by_track(on_cluster(nodes, folder, collection)) == records
    assert entities(collection) == stored
    # A second run decodes what has a silent segment, to see that it is silent, and embeds nothing.
    again = by_track(on_cluster(nodes, folder, collection))
    assert {record.status for record in again.values()} == {"skipped", "failed"}
    assert entities(collection) == stored


def test_chroma_comes_from_the_cluster_too(nodes, folder, tiny_notes_bundle, tmp_path) -> None:
    client, embedder = connect(str(tmp_path / "chroma.db")), Embedder(tiny_notes_bundle, "cpu", threads=1)
    alone, together = (TrackCollection.create(client, name, embedder) for name in ("alone", "together"))
    tracks = tracks_in([folder])[:3]
    list(ingest(tracks, embedder, alone, workers=0))
    with Cluster(nodes.address, tiny_notes_bundle, "cpu", workers=1) as cluster:
        assert (cluster.chroma_id, cluster.chroma_channels) == (embedder.chroma_id, 24)
        list(ingest(tracks, cluster, together))
    assert entities(together) == entities(alone) and together.count_chroma() == 3
    statistics = [
        {track_id: stored.statistics for track_id, stored in one.stored_chroma(["00", "01", "02"]).items()}
        for one in (alone, together)
    ]
    assert statistics[0] == statistics[1] and statistics[0]["00"]["n"] == 2
    close(client)


def test_other_segments_are_cut_from_what_is_stored(nodes, folder, collection) -> None:
    embedder = Embedder(device="cpu", threads=1)
    collection.set_segmentation(Segments())
    list(ingest(tracks_in([folder]), embedder, collection, workers=0))
    collection.set_segmentation(Segments(5.0, 2.5))
    records = by_track(on_cluster(nodes, folder, collection))
    assert (records["00"].status, records["00"].reason) == ("updated", "segments changed")
    recut = entities(collection)
    collection.client.delete(collection.name, filter='id != ""', timeout=30)
    list(ingest(tracks_in([folder]), embedder, collection, workers=0))
    assert entities(collection) == recut


def test_a_node_that_dies_in_mid_run_costs_nothing(nodes, folder, collection, alone, monkeypatch) -> None:
    hand_out, seen = Cluster._hand_out, 0

    def once_there_are_two(cluster: Cluster, *args: Any) -> None:
        nonlocal seen
        seen = max(seen, len(cluster._started))
        if seen == 2:  # else one may be done before the other is ready
            hand_out(cluster, *args)

    monkeypatch.setattr(Cluster, "_hand_out", once_there_are_two)
    with nodes.one_more() as kill, pytest.warns(UserWarning, match="its worker died, it goes to another"):
        tracks = [
            track for track in tracks_in([folder]) if track.track_id != "copy"
        ]  # which of two comes first may change
        run = ingest(tracks, Cluster(nodes.address, device="cpu"), collection, batch_size=2)
        given = [next(run) for _ in range(2)]
        kill()
        given += run
    assert {record.track_id: record.status for record in given} == {
        track_id: record.status for track_id, record in alone[0].items() if track_id != "copy"
    }
    assert entities(collection) == alone[1]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see who reads a file")
def test_a_file_that_kills_its_workers_is_given_up(nodes, folder, collection, tmp_path) -> None:
    deadly = write_two_hours(tmp_path / "deadly.wav")
    killed: set[int] = set()

    def kill_its_readers() -> None:
        while len(killed) < DEATHS:
            for worker in readers(deadly):
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)  # perhaps for a second time, while it dies

    killer = threading.Thread(target=kill_its_readers, daemon=True)
    killer.start()
    tracks = [*tracks_in([folder / "00.flac"]), Track(deadly, "deadly"), *tracks_in([folder / "01.flac"])]
    with pytest.warns(UserWarning, match="its worker died"):
        records = by_track(ingest(tracks, Cluster(nodes.address, device="cpu"), collection))
    killer.join(10)
    assert 0 < len(killed) <= DEATHS  # on a busy machine, one may die before it has opened the file
    assert {track_id: record.status for track_id, record in records.items()} == {
        "00": "added",
        "01": "added",
        "deadly": "failed",
    }
    assert f"{deadly}: 3 workers died over it" in records["deadly"].reason


def readers(path: Path) -> set[int]:
    """Other processes that have a file open."""
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended, or closed what was listed
            if os.readlink(descriptor) == str(path):
                found.add(int(descriptor.parts[2]))
    return found - {os.getpid()}


def test_a_run_whose_process_is_killed_goes_on(nodes, folder, tmp_path, alone) -> None:
    uri = str(tmp_path / "killed.db")
    command = ["ingest", str(folder), "--uri", uri, "--segment", "4", "--device", "cpu", "--ray", nodes.address]
    first = subprocess.Popen(
        [sys.executable, "-c", SMALL_BATCHES, *command, "--json"], stdout=subprocess.PIPE, text=True
    )
    given = [json.loads(first.stdout.readline()) for _ in range(5)]
    first.kill()
    given += [json.loads(line) for line in first.communicate(timeout=30)[0].splitlines()]
    added = {record["track_id"] for record in given if record["status"] == "added"}
    assert 0 < len(added) < 12

    second = subprocess.run(
        [sys.executable, "-m", "bytecover2_milvus", *command, "--json"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1  # two files cannot be embedded
    assert "goes to another" not in second.stderr
    records = {record["track_id"]: record for record in map(json.loads, second.stdout.splitlines())}
    assert {records[track_id]["status"] for track_id in added} == {"skipped"}
    assert records.keys() == alone[0].keys()
    client = connect(uri)
    assert entities(TrackCollection.open(client, "tracks")) == alone[1]
    close(client)


SMALL_BATCHES = """
import bytecover2_milvus.ingest.pipeline as ingest
ingest.ingest.__kwdefaults__["batch_size"] = 2
from bytecover2_milvus.cli import main
main()
"""


def test_what_a_cluster_lacks_is_said_in_one_line(nodes, folder, tmp_path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"no Ray cluster to be used at {nobody} .*refused"):
        Cluster(nobody)
    with pytest.raises(DeviceError, match=r"CUDA was asked for but the Ray cluster at .* has no GPU"):
        Cluster(nodes.address, device="cuda")
    monkeypatch.setitem(sys.modules, "ray", None)
    told = CliRunner().invoke(main, ["ingest", str(folder), "--uri", str(tmp_path / "a.db"), "--ray", "auto"])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith('Error: ray is not installed: pip install "ray[client]>=')
    assert not (tmp_path / "a.db").exists()


def test_workers_of_another_model_are_refused(nodes, folder, collection) -> None:
    with Cluster(nodes.address, device="cpu") as cluster:
        cluster._contract = dataclasses.replace(cluster._contract, model_id="other")
        with pytest.raises(CollectionMismatch, match="not of other"):
            ingest(tracks_in([folder]), cluster, collection)
        collection.model_id = "other"
        with pytest.raises(
            ClusterError, match=r"on .*: model .*, not other with note map .*; install the same bytecover2-milvus"
        ):
            list(ingest(tracks_in([folder]), cluster, collection))


LOCAL_CLUSTER = """
import os, re, subprocess
from pathlib import Path
from bytecover2_milvus.ingest.ray import Cluster
with Cluster("local", device="cpu", workers=1):
    for line in subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines():
        for pid in re.findall("pid=([0-9]+)", line):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                print(line)
"""


@pytest.mark.skipif(not shutil.which("ss"), reason="needs ss, to see who listens where")
def test_a_local_cluster_is_for_this_user_of_this_machine(tmp_path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    run = subprocess.run(
        [sys.executable, "-c", LOCAL_CLUSTER],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        umask=0o022,
        timeout=120,
    )
    listening = [line.split() for line in run.stdout.splitlines() if "gcs_server" in line or "raylet" in line]
    assert listening, run.stderr
    assert {line[3].rpartition(":")[0] for line in listening} <= {"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"}
    assert not token.exists() or token.stat().st_mode & 0o077 == 0
