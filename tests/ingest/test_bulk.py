"""Embeddings without a Milvus: staged in SQLite, written as Parquet, read back and imported by a real server."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import write_tone
from band_embedder import BandEmbedder, NoEmbedder
from click.testing import CliRunner, Result
from conftest import ON_SERVER
from numpy.typing import NDArray
from pyarrow import parquet
from stored_rows import EMBEDDINGS, MODEL, NASTY, a_model, row

from bytecover2_milvus.audio.segments import Segments
from bytecover2_milvus.cli import main
from bytecover2_milvus.errors import CollectionMismatch, OutputError
from bytecover2_milvus.ingest import bulk
from bytecover2_milvus.ingest.bulk import BulkFolder
from bytecover2_milvus.ingest.parquet import ingest_vectors, staging_for, write_vectors
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.ingest.sqlite import Staging
from bytecover2_milvus.ingest.store import Store
from bytecover2_milvus.ingest.vectors import Vectors
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.milvus.schema import FIELDS, Features

ROWS = [
    *[row(n, track_id=text, title=text, path=f"/{text}", metadata={text: [text, 1.5]}) for n, text in enumerate(NASTY)],
    row(100, start_s=0.0, end_s=60.0),
    row(100, start_s=30.0, end_s=90.0),
]


class Power(Exception):
    """It went off."""


class Dying(BandEmbedder):
    """Embeds two tracks, and then no more."""

    left = 2

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.left:
            raise Power
        self.left -= 1
        return super().embed(waveform)


def statuses(folder: Path, store: Store, embedder: BandEmbedder, batch_size: int = 64) -> Counter[str]:
    records = ingest(tracks_in([folder]), embedder, store, workers=0, batch_size=batch_size)
    return Counter(record.status for record in records)


def test_an_ingest_into_a_file_is_as_one_into_a_collection(client, name: str, folder: Path, tmp_path: Path) -> None:
    collection = TrackCollection.create(client, name, BandEmbedder())
    with staging_for(tmp_path / "embedded.parquet", BandEmbedder()) as staging:
        for store in (collection, staging):
            assert statuses(folder, store, BandEmbedder()) == {"added": 4}
        (folder / "e.wav").write_bytes((folder / "a.wav").read_bytes())
        write_tone(folder / "b.wav", 7)
        (folder / "c.wav").unlink()
        (folder / "d.wav").rename(folder / "z.wav")
        for store in (collection, staging):
            assert statuses(folder, store, BandEmbedder()) == {"skipped": 2, "updated": 2}
            assert statuses(folder, store, NoEmbedder()) == {"skipped": 4}
        assert staging.count() == collection.count() == 4
        for number, source in enumerate((collection, staging)):
            write_vectors(source, tmp_path / f"{number}.parquet")
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_what_was_cut_off_goes_on(folder: Path, tmp_path: Path) -> None:
    with Staging(tmp_path / "rows.sqlite", BandEmbedder()) as staging, pytest.raises(Power):
        statuses(folder, staging, Dying(), batch_size=1)
    with Staging(tmp_path / "rows.sqlite", BandEmbedder()) as staging:
        assert statuses(folder, staging, BandEmbedder()) == {"skipped": 2, "added": 2}
        staging.keep_only(["a", "c", "not UTF-8: \udcff"])
        assert {stored.track_id for stored in staging.rows_of(list("abcd"))} == {"a", "c"}
        staging.delete()
    assert not (tmp_path / "rows.sqlite").exists()


def test_tracks_are_cut_and_the_file_tells_how(client, name: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "long.wav", 1, 8.0)
    with Staging(tmp_path / "rows.sqlite", BandEmbedder()) as staging:
        staging.set_segmentation(Segments(4.0, 2.0))
    with Staging(tmp_path / "rows.sqlite", BandEmbedder()) as staging:
        assert statuses(tmp_path, staging, BandEmbedder()) == {"added": 1}
        assert (staging.count(), staging.segments) == (4, Segments(4.0, 2.0))
        write_vectors(staging, tmp_path / "rows.parquet")
    collection = TrackCollection.create(client, name, BandEmbedder())
    assert Counter(record.status for record in ingest_vectors(Vectors(tmp_path / "rows.parquet"), collection))
    assert collection.segments == Segments(4.0, 2.0)
    assert statuses(tmp_path, collection, NoEmbedder()) == {"skipped": 1}


def test_files_that_are_not_ours_or_in_use(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    in_use = pytest.raises(OutputError, match=r"rows.sqlite: cannot be written \(.*locked\); another run is using it")
    with Staging(path, MODEL), in_use:
        Staging(path, MODEL)
    with pytest.raises(CollectionMismatch, match=r"rows.sqlite: holds embeddings of model a1b2, not of c3d4"):
        Staging(path, a_model("c3d4"))
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(OutputError, match=r"text: cannot be written \(file is not a database\)"):
        Staging(tmp_path / "text", MODEL)
    with pytest.raises(OutputError, match=r"text/rows: cannot be written \(.*xist"):
        Staging(tmp_path / "text" / "rows", MODEL)


def test_bulk_files_hold_the_fields_of_the_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "VALUES_PER_FILE", 5 * 128)
    monkeypatch.setattr("bytecover2_milvus.ingest.sqlite.ROWS_PER_PAGE", 5)
    with BulkFolder(tmp_path, MODEL) as folder:
        folder.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
        files = folder.write()
    assert [file.name for file in files] == ["1.parquet", "2.parquet", "3.parquet"]
    told = json.loads((tmp_path / "files.json").read_text())
    uncut = {"segment_s": 0.0, "hop_s": 0.0}
    assert told == {
        "model_id": "a1b2",
        "chroma_id": "",
        **uncut,
        "rows": len(ROWS),
        "files": [file.name for file in files],
    }
    tables = [parquet.read_table(file) for file in files]
    assert [len(table) for table in tables] == [5, 5, 2]
    assert all(table.column_names == list(FIELDS) for table in tables)
    entities = {entity["id"]: entity for table in tables for entity in table.to_pylist()}
    for stored, embedding in zip(ROWS, EMBEDDINGS, strict=False):
        entity = entities[stored.id]
        expected = stored.entity(Features(embedding))
        assert json.loads(entity.pop("statistics")) == expected.pop("statistics")
        assert json.loads(entity.pop("metadata")) == expected.pop("metadata")
        np.testing.assert_array_equal(np.float32(entity.pop("embedding")), expected.pop("embedding"))
        assert entity == expected

    before = files[0].stat().st_mtime_ns
    with BulkFolder(tmp_path, MODEL) as folder:
        assert folder.write() == files and files[0].stat().st_mtime_ns == before  # nothing is new
        folder.delete_tracks([stored.track_id for stored in ROWS[:7]])
        assert not (tmp_path / "files.json").exists()  # until the files hold what the folder holds
        assert folder.write() == files[:1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "embedded.sqlite", "files.json"]


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"files": 1}', '{"files": [1]}', "[" * 5_000, "\0" * 100, '{"files": ["' + "1" * 2_000_000),
        *('{"files": ["2.parquet"]}', '{"files": ["../1.parquet"]}', '{"files": ["/etc/passwd"]}', '{"files": [NaN]}'),
    ],
)
def test_a_list_of_bulk_files_is_not_believed_unseen(tmp_path: Path, content: str) -> None:
    with BulkFolder(tmp_path, MODEL) as folder:
        folder.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
        files = folder.write()
        (tmp_path / "files.json").write_text(content)
        with pytest.raises(OutputError, match=r"files.json: damaged \(.+\); delete it and run again") as refused:
            folder.write()
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 600
        (tmp_path / "files.json").unlink()
        assert folder.write() == files


def test_a_bulk_file_that_does_not_fit_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with BulkFolder(tmp_path, MODEL) as folder:
        folder.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # as a full disk, but for the reason
        try:
            with pytest.raises(OutputError, match=r"1.parquet: cannot be written \(.*File too large"):
                folder.write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.glob("*.parquet")) and not (tmp_path / "files.json").exists()
        assert len(folder.write()) == 1
    assert not caplog.records


@ON_SERVER
@pytest.mark.filterwarnings("ignore:.*ORM-style")
def test_a_server_imports_them(milvus_uri: str, tmp_path: Path) -> None:
    from pymilvus import connections, utility

    client = connect(milvus_uri)
    if not client.get_server_version().startswith(("2.3", "v2.3")) or not hasattr(utility, "do_bulk_insert"):
        pytest.skip("needs Milvus 2.3 with local storage and pymilvus before 3.1; later ones import over REST from S3")
    collection = TrackCollection.open_or_create(client, "test_bulk", MODEL)
    try:
        with BulkFolder(tmp_path, MODEL) as folder:
            folder.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
            (file,) = folder.write()
        connections.connect(uri=milvus_uri)
        task = utility.do_bulk_insert(collection.name, [str(file)])
        deadline = time.monotonic() + 120
        while collection.count() < len(ROWS):
            state = utility.get_bulk_insert_state(task)
            assert state.state_name != "Failed" and time.monotonic() < deadline, state
            time.sleep(0.5)
        by_id = {stored.id: stored for stored in collection.rows_with([stored.id for stored in ROWS], fresh=True)}
        assert by_id == {stored.id: stored for stored in ROWS}
        matches = TrackCollection.open(client, "test_bulk").search(EMBEDDINGS[:5], limit=1)
        assert [found[0].track_id for found in matches] == NASTY[:5]
    finally:
        connections.disconnect("default")
        client.drop_alias("test_bulk", timeout=10)
        client.drop_collection(collection.name, timeout=10)
        close(client)


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)])

    return invoke


def test_embedding_and_inserting_apart_by_the_command_line(
    run: Callable[..., Result], tiny_bundle: Path, tmp_path: Path
) -> None:
    for seed in range(2):
        write_tone(tmp_path / f"{seed}.wav", seed, duration_s=5.0)
    (tmp_path / "covers.csv").write_text("path,work_id\n0.wav,w\n1.wav,w\nnone.wav,w\n")
    model = ("--bundle", tiny_bundle, "--workers", 0)
    result = run("embed", "--manifest", tmp_path / "covers.csv", "--out", tmp_path / "vectors.parquet", *model)
    assert result.exit_code == 1 and "none.wav: No such file" in result.stderr
    assert "2 embeddings of 128 values" in result.stderr
    assert not list(tmp_path.glob("*.sqlite"))
    uri = ("--uri", tmp_path / "milvus.db")
    result = run("ingest", "--vectors", tmp_path / "vectors.parquet", *uri)
    assert result.exit_code == 0 and "2 added; 2 rows in tracks" in result.stderr
    result = run("evaluate", *uri, "--json")
    assert json.loads(result.stdout)["works"] == 1

    folder = tmp_path / "bulk"
    result = run("ingest", tmp_path / "0.wav", "--bulk", folder, *model, "--json")
    assert json.loads(result.stdout)["status"] == "added"
    assert f"1 added; 1 rows in 1 Parquet files in {folder}" in result.stderr
    result = run("ingest", tmp_path / "0.wav", tmp_path / "1.wav", "--bulk", folder, *model)
    assert "1 added, 1 skipped; 2 rows in 1 Parquet files" in result.stderr
    assert run("ingest", "--vectors", tmp_path / "vectors.parquet", "--bulk", folder).exit_code == 2
    assert run("embed", "--out", tmp_path / "none.parquet").exit_code == 2

    for name, code in (("tracks", 1), ("covers", 0), ("covers", 0)):
        result = run("collections", "create", name, "--bundle", tiny_bundle, *uri)
        assert result.exit_code == code and len(result.stderr.splitlines()) == 1, result.output
    assert run("collections", "create", "parts", "--segment", "8", "--bundle", tiny_bundle, *uri).exit_code == 0
    result = run("collections", "describe", "parts", *uri, "--json")
    assert (json.loads(result.stdout)["segment_s"], json.loads(result.stdout)["hop_s"]) == (8.0, 4.0)


def test_a_vectors_file_of_staged_rows_comes_into_a_collection(client, name: str, tmp_path: Path) -> None:
    with staging_for(tmp_path / "rows.parquet", MODEL) as staging:
        staging.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
        staging.upsert([replace(ROWS[0], title="another")], EMBEDDINGS[:1])
        assert write_vectors(staging, tmp_path / "rows.parquet") == len(ROWS)
    collection = TrackCollection.create(client, name, MODEL)
    assert {record.status for record in ingest_vectors(Vectors(tmp_path / "rows.parquet"), collection)} == {"added"}
    assert {stored.title for stored in collection.rows_of([ROWS[0].track_id])} == {"another"}
