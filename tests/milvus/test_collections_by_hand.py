"""The `collections` commands, `ingest --vectors` and `--metrics`, in this process, on Milvus Lite and on a server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from stored_rows import EMBEDDINGS, ESCAPES, MODEL, NASTY, row

from bytecover2_milvus.cli import main
from bytecover2_milvus.ingest.batch import IngestRecord
from bytecover2_milvus.ingest.prometheus import IngestRun
from bytecover2_milvus.milvus.alias import drop_collection, has_collection
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.index import load_state

TEXTS = [*NASTY, "--yes", "-"]
ROWS = [
    *[row(number, track_id=text, artist="Trad." if number < 3 else text) for number, text in enumerate(TEXTS)],
    row(0, track_id=TEXTS[0], artist="Trad.", start_s=0.0, end_s=60.0),  # a segment
]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def scratch(client) -> Iterator[TrackCollection]:
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", MODEL)
    yield collection
    if has_collection(client, collection.name):
        drop_collection(client, collection.name)


@pytest.fixture
def covers(scratch: TrackCollection) -> Iterator[TrackCollection]:
    scratch.upsert(ROWS, EMBEDDINGS[: len(ROWS)])
    yield scratch
    scratch.client.delete(scratch.name, filter='id != ""', timeout=30)


@pytest.fixture
def run(milvus_uri: str) -> Run:
    def invoke(*arguments: object, input: str = "") -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)], input=input, env={"BYTECOVER2_URI": milvus_uri})

    return invoke


def lines(result: Result, schema: str) -> list[dict]:
    """The JSON lines on stdout, each valid against its schema."""
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    form = json.loads(files("bytecover2_milvus.schemas").joinpath(f"{schema}.schema.json").read_text(encoding="utf-8"))
    for line in rows:
        jsonschema.validate(line, form)
    return rows


def test_tracks_are_deleted_by_name_whatever_the_name(covers: TrackCollection, run: Run) -> None:
    result = run("collections", "delete-tracks", covers.name, "--yes", "--json", "--", *TEXTS[2:], "absent ' one")
    deleted = lines(result, "deletion")
    assert [(line["track_id"], line["status"], line["rows"]) for line in deleted] == [
        *[(text, "deleted", 1) for text in TEXTS[2:]],
        ("absent ' one", "absent", 0),
    ]
    assert result.exit_code == 1 and """"absent ' one" is not in""" in result.stderr
    assert {stored.track_id for stored in covers.rows_of(TEXTS)} == set(TEXTS[:2])
    result = run("collections", "delete-tracks", covers.name, TEXTS[0], "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"1 tracks deleted from {covers.name}, 2 rows" in result.stderr
    assert covers.count() == 1


def test_tracks_are_deleted_by_filter(covers: TrackCollection, run: Run) -> None:
    result = run("collections", "delete-tracks", covers.name, "--filter", 'artist == "Trad."', "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert {line["track_id"] for line in lines(result, "deletion")} == set(TEXTS[:3])
    assert {stored.track_id for stored in covers.rows_of(TEXTS)} == set(TEXTS[3:])
    result = run("collections", "delete-tracks", covers.name, "--filter", 'artist == "Trad."')  # no question for none
    assert result.exit_code == 0 and "0 tracks deleted" in result.stderr


@pytest.mark.parametrize(
    ("answer", "code", "told"), [("n\n", 1, "Aborted"), ("\n", 1, "Aborted"), ("", 2, "--yes"), ("maybe\n", 2, "--yes")]
)
def test_nothing_is_deleted_without_confirmation(
    covers: TrackCollection, run: Run, answer: str, code: int, told: str
) -> None:
    for command in (("delete-tracks", covers.name, TEXTS[0]), ("drop", covers.name)):
        result = run("collections", *command, input=answer)
        assert result.exit_code == code and told in result.stderr and result.stdout == ""
    assert "rows" in result.stderr
    assert covers.count() == len(ROWS)


def test_a_confirmed_deletion(covers: TrackCollection, run: Run) -> None:
    result = run("collections", "delete-tracks", covers.name, TEXTS[0], input="y\n")
    assert f"Delete 1 tracks, 2 rows, of {covers.name} at " in result.stderr and result.exit_code == 0
    assert covers.count() == len(ROWS) - 2


def test_nothing_is_deleted_from_where_an_alias_went_while_the_user_was_asked(
    covers: TrackCollection, client, name: str, run: Run, monkeypatch
) -> None:
    other = TrackCollection.create(client, f"{name}_other", MODEL)
    client.create_alias(covers.name, name, timeout=10)

    def moving(*_: object, **__: object) -> bool:
        client.alter_alias(other.name, name, timeout=10)
        return True

    monkeypatch.setattr("click.confirm", moving)
    result = run("collections", "drop", name)
    assert result.exit_code == 1 and f"{name}: stands for {other.name} now" in result.stderr
    assert has_collection(client, covers.name) and has_collection(client, other.name)
    client.alter_alias(covers.name, name, timeout=10)
    result = run("collections", "delete-tracks", name, TEXTS[0])
    assert result.exit_code == 1 and f"2 rows were deleted from {covers.name}" in result.stderr
    client.drop_alias(name, timeout=10)


@pytest.mark.parametrize("filter", ESCAPES)
def test_a_filter_that_is_none_deletes_and_exports_nothing(
    covers: TrackCollection, run: Run, filter: str, tmp_path: Path
) -> None:
    result = run("collections", "delete-tracks", covers.name, "--filter", filter, "--yes")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    out = tmp_path / "rows.parquet"
    assert run("collections", "export", covers.name, "--filter", filter, "--out", out).exit_code == 1
    assert covers.count() == len(ROWS) and not out.exists()


def test_an_export_of_nothing_leaves_what_is_there(covers: TrackCollection, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    out.write_text("a backup")
    result = run("collections", "export", covers.name, "--filter", 'artist == "nobody"', "--out", out)
    assert result.exit_code == 1 and f'{covers.name}: no row passes artist == "nobody"' in result.stderr
    assert out.read_text() == "a backup"
    assert run("collections", "export", covers.name, "--out", tmp_path / "rows.csv").exit_code == 2


def test_which_tracks_must_be_said_in_one_way(covers: TrackCollection, run: Run) -> None:
    for how in ([], ["--filter", " "], [TEXTS[0], "--filter", "size == 0"]):
        assert run("collections", "delete-tracks", covers.name, *how, "--yes").exit_code == 2
    assert covers.count() == len(ROWS)


def test_who_has_more_rows_than_milvus_lite_serves_well_is_told(run, covers, milvus_uri, monkeypatch) -> None:
    embedded = milvus_uri.endswith(".db")
    monkeypatch.setattr("bytecover2_milvus.milvus.index.LITE_ROWS", len(ROWS) - 1)
    told = run("collections", "describe", covers.name).stderr
    assert (f"{len(ROWS)} rows; Milvus Lite" in told and "use a server" in told) == embedded
    monkeypatch.setattr("bytecover2_milvus.milvus.index.LITE_ROWS", len(ROWS))
    assert not run("collections", "describe", covers.name).stderr


def test_who_only_looks_loads_nothing_on_a_server(covers: TrackCollection, client, milvus_uri: str, run: Run) -> None:
    embedded = milvus_uri.endswith(".db")
    covers.flush()
    client.release_collection(covers.name, timeout=30)
    (described,) = lines(run("collections", "describe", covers.name, "--json"), "collection")
    assert covers.name in run("collections", "list").stdout
    assert "rows" in run("collections", "drop", covers.name, input="n\n").stderr
    assert "a1b2" in run("doctor", "--collection", covers.name).stdout
    assert load_state(client, covers.name) == ("Loaded" if embedded else "NotLoad")
    assert described["load_state"] == load_state(client, covers.name)
    assert described["rows"] >= len(ROWS) and described["segments"] == (1 if embedded else None)
    assert TrackCollection.open(client, covers.name).count() == len(ROWS)


def test_exported_rows_are_ingested_and_described(
    covers: TrackCollection, client, name: str, run: Run, tmp_path: Path
) -> None:
    out, metrics = tmp_path / "rows.parquet", tmp_path / "ingest.prom"
    result = run("collections", "export", covers.name, "--out", out, "--json")
    assert lines(result, "exported_rows") == [
        {"collection": covers.name, "path": str(out), "rows": len(ROWS), "model_id": "a1b2"}
    ]
    result = run("ingest", "--vectors", out, "--collection", name, "--json", "--metrics", metrics)
    assert result.exit_code == 0, result.output
    assert {line["status"] for line in lines(result, "ingest_record")} == {"added"}
    n_tracks = len({row.track_id for row in ROWS})
    assert f"{n_tracks} added; {len(ROWS)} rows in {name}" in result.stderr
    samples = {
        (sample.name, sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(metrics.read_text(encoding="utf-8"))
        for sample in family.samples
        if sample.labels["collection"] == name
    }
    assert samples["bytecover2_ingest_tracks", "added"] == n_tracks < len(ROWS)
    assert samples["bytecover2_ingest_rows", None] == len(ROWS)
    assert samples["bytecover2_ingest_completed", None] == 1

    (described,) = lines(run("collections", "describe", name, "--json"), "collection")
    assert (described["collection"], described["aliases"], described["previous"]) == (f"{name}_a1b2", [name], None)
    assert (described["rows"], described["segments"], described["model_id"]) == (len(ROWS), 1, "a1b2")
    assert described["last_ingest"]
    listed = lines(run("collections", "list", "--json"), "collection")
    assert {line["collection"]: (line["aliases"], line["rows"]) for line in listed}[f"{name}_a1b2"] == (
        [name],
        len(ROWS),
    )
    for command in (("list",), ("describe", name)):
        result = run("collections", *command)
        assert result.exit_code == 0 and "a1b2" in result.stdout
    result = run("collections", "drop", name, input="n\n")
    assert f"Delete {name}_a1b2 (alias {name}) with {len(ROWS)} rows at " in result.stderr
    assert run("collections", "drop", name, "--yes").exit_code == 0
    assert not has_collection(client, name) and not has_collection(client, f"{name}_a1b2")


def test_a_failed_run_says_so_in_its_metrics(run: Run, name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no Parquet")
    metrics = tmp_path / "deep" / "ingest.prom"
    result = run("ingest", "--vectors", tmp_path / "bad.parquet", "--collection", name, "--metrics", metrics)
    assert result.exit_code == 1 and "bad.parquet" in result.stderr
    assert f'bytecover2_ingest_completed{{collection="{name}"}} 0.0' in metrics.read_text(encoding="utf-8")
    assert run("ingest", "--vectors", tmp_path / "bad.parquet", tmp_path).exit_code == 2
    result = run("ingest", tmp_path, "--collection", name, "--metrics", tmp_path / "bad.parquet" / "ingest.prom")
    assert result.exit_code == 1 and "ingest.prom: cannot be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1  # nothing was begun


def test_metrics_are_what_a_reader_of_prometheus_reads() -> None:
    progress = IngestRun("tracks")
    for number, status in enumerate(("added", "added", "failed")):
        progress.count(IngestRecord("a.wav", f"t{number}", "", status, "x", duration_s=None if number else 61.5))
    progress.rows = 1_234_567_890
    families = {family.name: family for family in text_string_to_metric_families(progress.text(now=1.7e9 + 0.25))}
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    by_status = {sample.labels["status"]: sample.value for sample in families["bytecover2_ingest_tracks"].samples}
    assert by_status == {"added": 2, "updated": 0, "skipped": 0, "failed": 1}
    audio = {sample.labels["status"]: sample.value for sample in families["bytecover2_ingest_audio_seconds"].samples}
    assert audio == {"added": 61.5, "updated": 0, "skipped": 0, "failed": 0}
    (rows,) = families["bytecover2_ingest_rows"].samples
    assert (rows.value, rows.labels) == (1_234_567_890, {"collection": "tracks"})
    assert families["bytecover2_ingest_end_timestamp_seconds"].samples[0].value == 1.7e9 + 0.25
    assert families["bytecover2_ingest_duration_seconds"].samples[0].value >= 0
    (quoted, *_) = text_string_to_metric_families(IngestRun('a "b"\\').text(now=0))
    assert quoted.samples[0].labels["collection"] == 'a "b"\\'
