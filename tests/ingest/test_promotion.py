"""Another model behind an alias, and back, on Milvus Lite and on a real server, with real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from audio_files import write_tone
from band_embedder import BandEmbedder
from click.testing import CliRunner, Result
from conftest import ON_SERVER
from numpy.typing import NDArray

from benchmarks.speed.promotion import main as benchmark
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.audio.segments import Segments
from bytecover2_milvus.cli import main
from bytecover2_milvus.errors import CollectionError, CollectionMismatch, CollectionMissing
from bytecover2_milvus.ingest.check_index import share_found
from bytecover2_milvus.ingest.pipeline import IngestRecord, ingest
from bytecover2_milvus.ingest.promote import MOVED, STAGE, Promotion, promote, roll_back
from bytecover2_milvus.manifest import tracks_in
from bytecover2_milvus.milvus.alias import aliases_of, collection_behind, drop_collection, has_collection, set_property
from bytecover2_milvus.milvus.collection import TrackCollection

GOLDEN = Path(__file__).parents[1] / "golden" / "contract-1"


class OtherBands(BandEmbedder):
    """Another model: the bands from the other end."""

    model_id = "others"

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().embed(waveform)[::-1].copy()


class ThirdBands(BandEmbedder):
    model_id = "thirds"


ON_LITE = pytest.mark.parametrize("milvus_uri", ["lite"], indirect=True, scope="module")  # what no backend changes


class Power(Exception):
    """It went off."""


def run_ingest(collection: TrackCollection, paths: list[Path], embedder: BandEmbedder | None = None) -> None:
    records = ingest(tracks_in(paths), embedder or BandEmbedder(), collection, workers=0)
    assert {record.status for record in records} <= {"added", "updated", "skipped"}


@pytest.fixture
def old(client, name: str, folder: Path) -> Iterator[TrackCollection]:
    """What the first ingest makes, with the four tracks."""
    collection = TrackCollection.open_or_create(client, name, BandEmbedder())
    run_ingest(collection, [folder])
    yield collection


def move(client, name: str, embedder: BandEmbedder | None = None, **how: object) -> Promotion:
    return promote(client, name, embedder or OtherBands(), workers=0, **how)


def titles(collection: TrackCollection) -> str:
    return "".join(sorted(Path(path).stem for path in collection.fetch().paths))


def test_the_share_of_nearest_rows_that_is_found() -> None:
    nearest = np.float32([[0.8, 0.9], [0.5, 0.5]])
    assert share_found([[0.9, 0.8], [0.5, 0.5]], nearest) == 1.0
    assert share_found([[0.9, 0.7], [0.5]], nearest) == 0.5  # one of two, and one of two


def test_a_first_ingest_makes_a_collection_behind_an_alias(old: TrackCollection, client, name: str) -> None:
    assert old.name == f"{name}_bands" and aliases_of(client, old.name) == [name]
    described = TrackCollection.open(client, name).describe()
    assert (described["collection"], described["aliases"], described["previous"]) == (old.name, [name], None)
    client.drop_alias(name, timeout=10)  # as if cut off before it was made
    assert TrackCollection.open_or_create(client, name, BandEmbedder()).count() == 4
    drop_collection(client, name)
    assert not has_collection(client, name) and not has_collection(client, old.name)


def test_a_new_model_and_back_while_queries_go_on(old: TrackCollection, client, name: str, folder: Path) -> None:
    waveform = load_audio(folder / "b.wav")

    def ask(model: BandEmbedder) -> float:
        """Similarity of a file to itself: 1 only if query and rows are of one model."""
        (matches,) = TrackCollection.open(client, name, model.model_id).search(model.embed(waveform), limit=4)
        assert matches[0].title == "b" and len(matches) == 4
        return matches[0].similarity

    records: list[IngestRecord] = []

    def watch(record: IngestRecord) -> None:
        records.append(record)
        assert ask(BandEmbedder()) > 0.9999

    done = move(client, name, watch=watch)
    assert [record.status for record in records] == ["added"] * 4
    assert done == Promotion(name, old.name, "bands", f"{name}_others", "others", 4, 4, 0, 0, 1.0, 4, True)
    assert ask(OtherBands()) > 0.9999
    assert old.search(BandEmbedder().embed(waveform), limit=1)[0][0].similarity > 0.9999  # opened before: no mixture
    with pytest.raises(CollectionMismatch, match=f"{name}: holds embeddings of model others, not of bands"):
        ask(BandEmbedder())
    new = TrackCollection.open(client, name)
    assert new.describe()["previous"] == old.name
    assert {(row.path, row.mtime_ns) for row in new.rows_of(new.fetch().track_ids)} == {
        (row.path, row.mtime_ns) for row in old.rows_of(old.fetch().track_ids)
    }

    again = move(client, name)
    assert (again.stored, again.moved, again.from_collection) == (0, False, f"{name}_others")

    run_ingest(new, [write_tone(folder / "e.wav", 5)], OtherBands())
    back = roll_back(client, name)
    assert (back.from_collection, back.to_collection, back.lacking) == (f"{name}_others", old.name, 1)
    assert ask(BandEmbedder()) > 0.9999
    with pytest.raises(CollectionError, match=f"{name}: nothing to roll back to, its collection was not promoted"):
        roll_back(client, name)
    with pytest.raises(CollectionError, match=rf"{name}_others: has been in use and .* such as 'e'; ingest them"):
        move(client, name)
    run_ingest(old, [folder])
    assert move(client, name).stored == 0 and titles(TrackCollection.open(client, name)) == "abcde"
    drop_collection(client, old.name)
    with pytest.raises(CollectionError, match=f"nothing to roll back to, {old.name} has been dropped"):
        roll_back(client, name)


def test_what_was_cut_off_goes_on_and_what_answers_wrongly_stays_behind(
    old: TrackCollection, client, name: str
) -> None:
    def cut(record: IngestRecord) -> None:
        raise Power

    with pytest.raises(Power):
        move(client, name, watch=cut)
    done = move(client, name, hold=True)
    assert (done.stored, done.tracks, done.moved) == (0, 4, False)  # the batch was acknowledged
    new = TrackCollection.open(client, f"{name}_others")
    right = new.embeddings_of([new.rows_of(["a"])[0].id])
    new.upsert(new.rows_of(["a"]), np.eye(1, new.dim, dtype=np.float32))
    with pytest.raises(CollectionError, match=r"_others: .*a.wav, embedded once more, finds 0\.\d+ at best"):
        move(client, name)
    new.upsert(new.rows_of(["a"]), np.stack(list(right.values())))
    client.create_alias(new.name, f"{name}_x", timeout=10)
    with pytest.raises(CollectionError, match=f"{new.name}: the alias {name}_x stands for it"):
        move(client, name)
    client.drop_alias(f"{name}_x", timeout=10)
    assert collection_behind(client, name) == old.name
    assert move(client, name).moved and collection_behind(client, name) == new.name


def test_segments_are_promoted_too(client, name: str, tmp_path: Path) -> None:
    collection = TrackCollection.open_or_create(client, name, BandEmbedder())
    collection.set_segmentation(Segments(4.0, 2.0))
    run_ingest(collection, [write_tone(tmp_path / "long.wav", 1, 8.0), write_tone(tmp_path / "short.wav", 2)])
    assert collection.count() == 5
    done = move(client, name)
    new = TrackCollection.open(client, name)
    assert (done.tracks, new.count(), new.segments) == (2, 5, collection.segments)
    assert {row.id for row in new.rows_of(["long"])} == {row.id for row in collection.rows_of(["long"])}


@ON_LITE
def test_files_that_are_gone_stop_it_or_are_left_out(old: TrackCollection, client, name: str, folder: Path) -> None:
    (folder / "c.wav").unlink()
    with pytest.raises(CollectionError, match=rf"{name}_others: lacks tracks of {name}_bands, such as 'c' \(.*c.wav"):
        move(client, name)
    assert TrackCollection.open(client, name).model_id == "bands"
    (folder / "a.wav").unlink()  # embedded by the run before: nothing is missing
    done = move(client, name, leave_out=True)
    assert (done.tracks, done.stored, done.left_out, done.moved) == (3, 0, 1, True)
    assert titles(TrackCollection.open(client, name)) == "abd"


def test_what_is_ingested_changed_and_deleted_meanwhile(old: TrackCollection, client, name: str, folder: Path) -> None:
    def meanwhile(record: IngestRecord) -> None:
        if record.track_id == "d":
            write_tone(folder / "a.wav", 7)
            run_ingest(old, [write_tone(folder / "e.wav", 5), folder / "a.wav"])
            old.delete_tracks(["b"])

    done = move(client, name, watch=meanwhile)
    assert (done.tracks, done.deleted, done.moved) == (4, 1, True)
    new = TrackCollection.open(client, name)
    assert titles(new) == "acde"
    assert {row.id for row in new.rows_of(["a"])} == {row.id for row in old.rows_of(["a"])}


def test_an_ingest_learns_that_the_alias_has_moved_and_loses_nothing(
    old: TrackCollection, client, name: str, folder: Path
) -> None:
    running = TrackCollection.open(client, name, "bands")
    new = move(client, name).to_collection
    write_tone(folder / "late.wav", 9)
    with pytest.raises(CollectionMismatch, match=f"{name}: stands for {new} now; what .* is in {old.name}"):
        run_ingest(running, [folder])
    assert titles(TrackCollection.open(client, name)) == "abcd"  # no row of the old model among them
    set_property(client, new, STAGE, MOVED)  # as if the promotion had been cut off just behind the alias
    assert move(client, name).stored == 1
    assert titles(TrackCollection.open(client, name)) == "abcdlate"
    assert move(client, name).stored == 0


def test_what_a_promotion_left_undone_undoes_nothing_that_came_later(
    old: TrackCollection, client, name: str, monkeypatch
) -> None:
    def cut(*_: object) -> None:
        raise Power

    with monkeypatch.context() as patched, pytest.raises(Power):
        patched.setattr("bytecover2_milvus.ingest.promote._move", cut)
        move(client, name)
    old.delete_tracks(["d"])  # no alias has stood for the new collection, so it follows
    done = move(client, name)
    assert (done.deleted, done.moved) == (1, True)
    new = TrackCollection.open(client, name)
    (row,) = new.rows_of(["a"])
    new.upsert([replace(row, title="corrected")], new.embeddings_of([row.id])[row.id][None])
    set_property(client, new.name, STAGE, MOVED)  # as if it had been cut off just behind the alias
    assert move(client, name).stored == 0
    assert [stored.title for stored in new.rows_of(["a"])] == ["corrected"]


def test_a_collection_of_that_name_comes_behind_an_alias(client, name: str, folder: Path) -> None:
    plain = TrackCollection.create(client, name, BandEmbedder())
    run_ingest(plain, [folder])
    with pytest.raises(CollectionError, match=f"{name}: nothing to roll back to"):
        roll_back(client, name)
    assert move(client, name).from_collection == f"{name}_bands"
    assert roll_back(client, name).to_collection == f"{name}_bands"
    for command in (lambda: roll_back(client, f"{name}_bands"), lambda: move(client, f"{name}_bands")):
        with pytest.raises(CollectionError, match=f"{name}_bands: the collection behind the alias {name}; name {name}"):
            command()
    client.drop_alias(name, timeout=10)
    with pytest.raises(CollectionMissing, match=f"{name}: no .*; which of {name}_bands, {name}_others it stood for"):
        move(client, name)
    drop_collection(client, f"{name}_others")
    with pytest.raises(CollectionMissing, match="no_such: no collection or alias of that name; ingest makes one"):
        move(client, "no_such")
    assert move(client, name).tracks == 4  # as after a run that was cut off behind the renaming


def test_of_two_promotions_at_once_the_first_counts(old: TrackCollection, client, name: str) -> None:
    def meanwhile(record: IngestRecord) -> None:
        if record.track_id == "d":
            move(client, name, ThirdBands())

    with pytest.raises(CollectionError, match=f"{name}: stands for {name}_thirds now, no more for {name}_bands"):
        move(client, name, watch=meanwhile)
    assert collection_behind(client, name) == f"{name}_thirds"


@ON_SERVER
def test_queries_and_an_ingest_of_other_processes(milvus_uri: str, tiny_bundle: Path, tmp_path: Path) -> None:
    for seed in range(24):
        write_tone(tmp_path / f"{seed}.wav", seed, duration_s=5.0)
    command = [str(tmp_path), "--from", str(GOLDEN), "--to", str(tiny_bundle), "--uri", milvus_uri]
    result = CliRunner().invoke(benchmark, command)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["wrong"], told["failed"], told["lost"]) == (0, 0, 0)
    assert min(told[name] for name in ("queries_old", "queries_new", "queries_kept")) > 0


@pytest.fixture
def run(milvus_uri: str) -> Callable[..., Result]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)], env={"BYTECOVER2_URI": milvus_uri})

    return invoke


def line(result: Result, schema: str) -> dict:
    (found,) = [json.loads(text) for text in result.stdout.splitlines()]
    form = files("bytecover2_milvus.schemas").joinpath(f"{schema}.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(found, json.loads(form))
    return found


@ON_LITE
def test_two_bundles_by_the_command_line(
    client, name: str, run: Callable[..., Result], tiny_bundle: Path, tmp_path: Path
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for seed in range(2):
        write_tone(music / f"{seed}.wav", seed, duration_s=5.0)
    assert run("ingest", music, "--collection", name, "--bundle", GOLDEN, "--workers", 0).exit_code == 0
    (music / "1.wav").rename(music / "away")
    promotion = ("collections", "promote", name, "--bundle", tiny_bundle, "--workers", 0, "--json")
    result = run(*promotion)
    assert (result.exit_code, result.stdout) == (1, "") and "1.wav: No such file" in result.stderr
    shutil.move(music / "away", music / "1.wav")
    done = line(run(*promotion), "promotion")
    assert (done["moved"], done["tracks"], done["stored"], done["files_asked"]) == (True, 2, 1, 2)
    assert line(run(*promotion), "promotion")["moved"] is False
    query = ("query", music / "0.wav", "--collection", name, "--json", "--limit", 1, "--bundle")
    assert json.loads(run(*query, tiny_bundle).stdout)["similarity"] > 0.9999
    refused = run(*query, GOLDEN)
    assert refused.exit_code == 1
    assert done["from_model_id"] in refused.stderr and done["to_model_id"] in refused.stderr
    back = line(run("collections", "rollback", name, "--json"), "rollback")
    assert (back["to_model_id"], back["lacking"]) == (done["from_model_id"], 0)
    assert json.loads(run(*query, GOLDEN).stdout)["similarity"] > 0.9999
    refused = run("collections", "rollback", name)
    assert refused.exit_code == 1 and len(refused.stderr.splitlines()) == 1
