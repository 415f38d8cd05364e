"""Chroma and statistics of stored tracks, on Milvus Lite and on a real server: stored, kept, carried, renewed."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import write_melody
from band_embedder import BandEmbedder, ChromaEmbedder
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from pyarrow import parquet

from bytecover2_milvus.alignment.chroma import decode, to_levels
from bytecover2_milvus.alignment.qmax import ALIGNMENT, Qmax, qmax_scores
from bytecover2_milvus.alignment.score import cohort_statistics
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.audio.segments import Segments
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import CHROMA_GROUPS, SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Heard
from bytecover2_milvus.errors import ChromaError, CollectionMismatch, InputRefused, VectorsError
from bytecover2_milvus.ingest.bulk import BulkFolder
from bytecover2_milvus.ingest.parquet import ingest_vectors, staging_for, write_vectors
from bytecover2_milvus.ingest.pipeline import ingest
from bytecover2_milvus.ingest.promote import promote, roll_back
from bytecover2_milvus.ingest.sqlite import Staging
from bytecover2_milvus.ingest.store import Store
from bytecover2_milvus.ingest.vectors import Vectors
from bytecover2_milvus.manifest import Track, tracks_in
from bytecover2_milvus.milvus.alias import drop_collection, name_for
from bytecover2_milvus.milvus.cohort import BACKGROUNDS
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.index import ensure_index
from bytecover2_milvus.milvus.properties import CONTRACT_VERSION, MODEL_ID
from bytecover2_milvus.milvus.schema import SECOND_STAGE, collection_schema

ON_LITE = pytest.mark.parametrize("milvus_uri", ["lite"], indirect=True, scope="module")  # what no backend changes


class Deaf(ChromaEmbedder):
    """For runs that must not hear anything."""

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        raise AssertionError("heard again")


class ShortMemory(ChromaEmbedder):
    """For runs that must not hear more than a part."""

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        assert len(waveform) <= 4 * SAMPLE_RATE
        return super().hear(waveform)


class OtherMap(ChromaEmbedder):
    """The same embeddings beside the chroma of another note map."""

    chroma_id = "least"


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five melodies of 12 frames of chroma and more, and a jingle that is too short to be aligned."""
    folder = tmp_path_factory.mktemp("music")
    for seed, letter in enumerate("abcde"):
        write_melody(folder / f"{letter}.wav", seed, 6.0 + seed)
    write_melody(folder / "jingle.wav", 9, 1.5)
    return folder


@pytest.fixture(scope="module")
def shared(client) -> Iterator[TrackCollection]:
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", ChromaEmbedder())
    yield collection
    drop_collection(client, collection.name)


@pytest.fixture
def collection(shared: TrackCollection) -> Iterator[TrackCollection]:
    yield shared
    shared.client.delete(shared.name, filter='id != ""', timeout=30)
    shared.set_segmentation(Segments())


def run(
    tracks: list[Path | Track], collection: Store, embedder: BandEmbedder | None = None, batch_size: int = 64
) -> dict[str, str]:
    """Status, and the reason if there is one, by track_id."""
    listed = [track for one in tracks for track in ([one] if isinstance(one, Track) else tracks_in([one]))]
    records = ingest(listed, embedder or ChromaEmbedder(), collection, workers=0, batch_size=batch_size)
    return {record.track_id: " ".join(filter(None, (record.status, record.reason))) for record in records}


def heard(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    waveform = load_audio(path)
    return ChromaEmbedder().embed(waveform), to_levels(ChromaEmbedder().chroma(waveform))


def expected_statistics(track: str, music: Path) -> dict[str, object]:
    """By pairs, one by one."""
    embedding, levels = heard(music / f"{track}.wav")
    others = [heard(path) for path in sorted(music.iterdir()) if path.stem != track]
    long = [other for _, other in others if len(other) >= Qmax().embedding]
    scores = qmax_scores(levels, long).T if len(levels) >= Qmax().embedding else [[]] * 2
    similarities = {
        "vector": [embedding @ other for other, _ in others],
        **dict(zip(CHROMA_GROUPS, scores, strict=True)),
    }
    told = {name: cohort_statistics(values, BACKGROUNDS[name]) for name, values in similarities.items()}
    return {"n": 5, "alignment": ALIGNMENT, **told}


def assert_whole(collection: TrackCollection | Staging, music: Path) -> None:
    """Every melody is there with the chroma and the statistics that it should have."""
    letters = [path.stem for path in sorted(music.iterdir())]
    id_of = {row.track_id: row.id for row in collection.rows_of(letters) if row.is_whole}
    known = collection.features_of(list(id_of.values()))
    for letter in letters:
        embedding, levels = heard(music / f"{letter}.wav")
        features = known[id_of[letter]]
        np.testing.assert_allclose(features.embedding, embedding, atol=1e-6)
        np.testing.assert_array_equal(decode(features.chroma, 24, letter), levels)
        expected = expected_statistics(letter, music)
        assert features.statistics.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(features.statistics[name], values, atol=2e-6)


def test_an_ingest_stores_chroma_and_statistics_with_each_track(collection: TrackCollection, music: Path) -> None:
    assert (collection.has_chroma, collection.chroma_id, collection.chroma_channels) == (True, "most", 24)
    assert collection.cohort() == []
    assert set(run([music], collection).values()) == {"added"}
    assert_whole(collection, music)
    stored = collection.stored_chroma(["a", "nobody", "jingle"])
    assert sorted(stored) == ["a", "jingle"] and stored["a"].statistics["n"] == 5
    np.testing.assert_array_equal(decode(stored["a"].chroma, 24, "a"), heard(music / "a.wav")[1])
    background = BACKGROUNDS["notes"]  # it cannot be aligned
    assert stored["jingle"].statistics["notes"] == [background.mean, background.sd]
    cohort = collection.cohort()
    assert [track.id for track in cohort] == sorted(row.id for row in collection.rows_of([*"abcde", "jingle"]))
    described = collection.describe()
    assert (described["chroma_id"], described["rows_with_chroma"], described["rows"]) == ("most", 6, 6)


def test_what_changes_without_audio_keeps_chroma_and_statistics(collection: TrackCollection, music: Path) -> None:
    run([music], collection)
    before = collection.stored_chroma(["a"])["a"]
    assert run([Track(music / "a.wav", "a", "w", "A title")], collection, Deaf())["a"].startswith("updated")
    after = collection.stored_chroma(["a"])["a"]
    assert (after.id, after.chroma, after.statistics) == (before.id, before.chroma, before.statistics)
    assert set(run([music], collection, Deaf()).values()) == {"skipped"}
    # A bundle without a note map takes nothing away either.
    assert run([Track(music / "a.wav", "a", "v")], collection, BandEmbedder())["a"].startswith("updated")
    assert collection.stored_chroma(["a"])["a"].chroma == before.chroma


def test_segments_have_no_chroma(collection: TrackCollection, music: Path) -> None:
    run([music], collection)
    collection.set_segmentation(Segments(4.0, 2.0))
    run([music], collection, ShortMemory())
    rows = {row.id: row for row in collection.rows_of(list("abcde"))}
    known = collection.features_of(list(rows))
    assert len(rows) > 10 and all(bool(known[id].chroma) == row.is_whole for id, row in rows.items())
    assert all(bool(known[id].statistics) == row.is_whole for id, row in rows.items())
    assert collection.count_chroma() == 6
    collection.set_segmentation(Segments())
    run([music], collection, Deaf())
    assert_whole(collection, music)


def test_rows_without_chroma_get_it_when_their_files_are_ingested_again(
    collection: TrackCollection, music: Path
) -> None:
    run([music], collection, BandEmbedder())
    assert collection.count_chroma() == 0 and collection.count() == 6 and collection.stored_chroma(["a"]) == {}
    assert set(run([music], collection, BandEmbedder()).values()) == {"skipped"}
    assert set(run([music], collection).values()) == {"updated chroma added"}
    assert_whole(collection, music)
    assert set(run([music], collection, Deaf()).values()) == {"skipped"}


def test_statistics_follow_a_collection_that_grows(collection: TrackCollection, music: Path) -> None:
    """The first tracks are stored when there are no others, one by one; at the end none counts on few of them."""
    run([music], collection, batch_size=1)
    sizes = {track: stored.statistics["n"] for track, stored in collection.stored_chroma([*"abcde", "jingle"]).items()}
    assert len(sizes) == 6 and min(sizes.values()) >= 3  # half of the six there are
    run([music], collection, Deaf())
    assert collection.with_old_statistics(3) == []


@ON_LITE
def test_statistics_are_the_same_however_an_ingest_is_divided(client, name: str, music: Path, monkeypatch) -> None:
    """Batches end when time is up, so they differ from run to run; here with a cohort that is soon full."""
    for module in ("milvus.cohort", "milvus.chroma_rows", "ingest.cohort_statistics"):
        monkeypatch.setattr(f"bytecover2_milvus.{module}.SIZE", 3)
    found = []
    for number, batch_size in enumerate((1, 4, 64)):
        collection = TrackCollection.create(client, f"{name}_{number}", ChromaEmbedder())
        run([music], collection, batch_size=batch_size)
        stored = collection.stored_chroma([*"abcde", "jingle"])
        found.append({track: known.statistics for track, known in stored.items()})
        drop_collection(client, f"{name}_{number}")
    assert len(found[0]) == 6 and found[0] == found[1] == found[2]
    assert min(known["n"] for known in found[0].values()) >= 2


def test_the_cohort_are_the_smallest_ids(collection: TrackCollection, music: Path, monkeypatch) -> None:
    run([music], collection)
    ids = sorted(row.id for row in collection.rows_of([*"abcde", "jingle"]))
    for size in (1, 2, 5):
        monkeypatch.setattr("bytecover2_milvus.milvus.chroma_rows.SIZE", size)
        assert [track.id for track in collection.cohort()] == ids[:size]


def test_once_the_cohort_is_full_nobody_looks_for_small_ones(client, name: str, music: Path, monkeypatch) -> None:
    monkeypatch.setattr("bytecover2_milvus.ingest.cohort_statistics.SIZE", 4)
    collection = TrackCollection.create(client, name, ChromaEmbedder())
    tracks = tracks_in([music])
    run(tracks[:3], collection, batch_size=1)
    assert not collection.has_full_cohort
    run(tracks, collection, batch_size=1)
    assert TrackCollection.open(client, name).has_full_cohort
    sizes = [stored.statistics["n"] for stored in collection.stored_chroma([*"abcde", "jingle"]).values()]
    assert len(sizes) == 6 and min(sizes) >= 2
    monkeypatch.setattr(TrackCollection, "with_old_statistics", None)
    assert set(run(tracks, collection, Deaf()).values()) == {"skipped"}


def test_damaged_chroma_is_an_error_that_names_the_track_and_no_score(collection: TrackCollection, music: Path) -> None:
    run([music], collection)
    (row,) = collection.rows_of(["b"])
    (known,) = collection.features_of([row.id]).values()
    broken = known.chroma[:20] + ("a" if known.chroma[20] != "a" else "b") + known.chroma[21:]
    collection.upsert([row], known.embedding[None], [broken], [known.statistics])
    with pytest.raises(ChromaError, match=r"^b: its stored chroma is damaged .*delete the track and ingest it again"):
        decode(collection.stored_chroma(["b"])["b"].chroma, 24, "b")
    with pytest.warns(UserWarning, match="^b: its stored chroma is damaged .* counts in no cohort"):
        assert [track.track_id for track in collection.cohort()].count("b") == 0
    collection.delete_tracks(["b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run([music], collection)
    assert collection.stored_chroma(["b"])["b"].chroma == known.chroma
    with pytest.raises(InputRefused, match="no text of base 85"):
        collection.upsert([row], known.embedding[None], ["ä"], [{}])
    with pytest.raises(InputRefused, match="statistics that are no JSON"):
        collection.upsert([row], known.embedding[None], [known.chroma], [{"n": float("nan")}])


def test_another_note_maps_chroma_is_refused(collection: TrackCollection, music: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectionMismatch, match="is of note map most, not of least; `collections promote"):
        run([music], collection, OtherMap())
    Staging(tmp_path / "staged", ChromaEmbedder()).close()
    with pytest.raises(CollectionMismatch, match="holds chroma of note map most, not of least"):
        Staging(tmp_path / "staged", OtherMap())


def make_old(client, name: str) -> TrackCollection:
    """A collection as the versions before the second stage made it, behind an alias, as an ingest did."""
    schema = collection_schema(128)
    fields = [field for field in schema.fields if field.name not in SECOND_STAGE]
    old_schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in fields:
        old_schema.add_field(field.name, field.dtype, is_primary=field.is_primary, **field.params)
    own_name = name_for(name, "bands")
    properties = {MODEL_ID: "bands", CONTRACT_VERSION: "1"}
    client.create_collection(
        own_name, schema=old_schema, properties=properties, consistency_level="Bounded", timeout=30
    )
    ensure_index(client, own_name)
    client.create_alias(own_name, name, timeout=30)
    return TrackCollection.open(client, name)


def test_a_collection_of_an_older_version_works_and_gets_a_second_stage_by_promotion(
    client, name: str, music: Path, tmp_path: Path
) -> None:
    old = make_old(client, name)
    assert not old.has_chroma and old.why_no_second_stage(ChromaEmbedder()) == (
        f"{name}: it has no second stage; `collections promote {name}` gives it one"
    )
    client.drop_alias(name, timeout=30)  # it comes back, to the same collection
    assert TrackCollection.open_or_create(client, name, ChromaEmbedder()).name == old.name
    assert set(run([music], old, BandEmbedder()).values()) == {"added"}
    # A bundle with a note map and the same embeddings uses it as it is.
    opened = TrackCollection.open_or_create(client, name, ChromaEmbedder())
    assert opened.name == old.name
    opened.delete_tracks(["a"])
    assert run([music], opened)["a"] == "added"
    assert run([Track(music / "b.wav", "b", "w")], opened, Deaf())["b"].startswith("updated")
    opened.set_segmentation(Segments(4.0, 2.0))
    run([music], opened)
    opened.set_segmentation(Segments())
    run([music], opened)
    (matches,) = opened.search(heard(music / "c.wav")[0], limit=1)
    assert matches[0].track_id == "c" and len(opened.fetch().track_ids) == 6
    described = opened.describe()
    assert (described["chroma_id"], described["rows_with_chroma"], described["rows"]) == (None, 0, 6)
    assert opened.stored_chroma(["a"]) == {} and opened.cohort() == [] and opened.count_chroma() == 0

    # What it exports goes into a collection with a second stage, and the other way round.
    assert write_vectors(opened, tmp_path / "old.parquet") == 6
    vectors = Vectors(tmp_path / "old.parquet")
    assert (vectors.chroma_id, vectors.chroma_channels) == ("", 0)
    assert {record.status for record in ingest_vectors(vectors, opened)} == {"skipped"}

    moved = promote(client, name, ChromaEmbedder(), workers=0)
    assert (moved.moved, moved.tracks, moved.stored) == (True, 6, 6)
    assert (moved.from_collection, moved.to_collection) == (old.name, f"{old.name}_most")
    new = TrackCollection.open(client, name)
    assert new.why_no_second_stage(ChromaEmbedder()) == ""
    assert_whole(new, music)
    assert new.rows_of(["b"])[0].work_id == "w"
    assert promote(client, name, ChromaEmbedder(), workers=0).to_collection == new.name  # nothing to do
    assert promote(client, name, BandEmbedder(), workers=0).to_collection == new.name  # nor to lose
    other = promote(client, name, OtherMap(), workers=0)
    assert other.to_collection == f"{old.name}_least" and other.tracks == 6
    assert roll_back(client, name).to_collection == new.name
    assert roll_back(client, name).to_collection == old.name


def test_vectors_carry_chroma_and_statistics(collection: TrackCollection, client, name: str, music, tmp_path) -> None:
    run([music], collection)
    file = tmp_path / "rows.parquet"
    assert write_vectors(collection, file) == 6
    copy = TrackCollection.create(client, name, Vectors(file))
    assert {record.status for record in ingest_vectors(Vectors(file), copy)} == {"added"}
    assert_whole(copy, music)
    assert {record.status for record in ingest_vectors(Vectors(file), copy)} == {"skipped"}

    # A row without chroma gets it; a file without chroma takes none away.
    (row,), (known,) = copy.rows_of(["c"]), collection.features_of([copy.rows_of(["c"])[0].id]).values()
    copy.upsert([row], known.embedding[None])
    statuses = {record.track_id: record.status for record in ingest_vectors(Vectors(file), copy)}
    assert statuses == {"a": "skipped", "b": "skipped", "c": "updated", "d": "skipped", "e": "skipped"} | {
        "jingle": "skipped"
    }
    assert_whole(copy, music)
    plain = parquet.read_table(file).drop_columns(list(SECOND_STAGE))
    parquet.write_table(plain, tmp_path / "plain.parquet")
    copy.upsert([replace(row, title="another")], known.embedding[None], [known.chroma], [known.statistics])
    assert {r.track_id for r in ingest_vectors(Vectors(tmp_path / "plain.parquet"), copy) if r.status == "updated"} == {
        "c"
    }
    assert_whole(copy, music)

    table = parquet.read_table(file)
    chroma = table.column("chroma").to_pylist()
    chroma[0] = chroma[1][:-5]
    damaged = table.set_column(table.column_names.index("chroma"), table.field("chroma"), [chroma])
    parquet.write_table(damaged, tmp_path / "damaged.parquet")
    with pytest.raises(VectorsError, match=r"damaged .*its stored chroma is damaged"):
        list(Vectors(tmp_path / "damaged.parquet"))


@ON_LITE
def test_files_for_other_machines_carry_them_too(client, name: str, music: Path, tmp_path: Path) -> None:
    """A staging file of an older version goes on, and is completed."""
    with staging_for(tmp_path / "rows.parquet", ChromaEmbedder()) as staging:
        run([music], staging, batch_size=1)
        assert staging.count_chroma() == 6 and staging.with_old_statistics(3) == []
    with staging_for(tmp_path / "rows.parquet", BandEmbedder()) as staging:
        assert run([Track(music / "a.wav", "a", "w")], staging, BandEmbedder())["a"].startswith("updated")
        assert staging.count_chroma() == 6
    old = tmp_path / "old"
    with Staging(old, BandEmbedder()) as staging:
        run([music], staging, BandEmbedder())
        for column in SECOND_STAGE:
            staging._db.execute(f"ALTER TABLE rows DROP COLUMN {column}")
        staging._db.commit()
    with Staging(old, ChromaEmbedder()) as staging:
        assert set(run([music], staging).values()) == {"updated chroma added"}
        assert_whole(staging, music)
        assert write_vectors(staging, tmp_path / "staged.parquet") == 6
    copy = TrackCollection.create(client, name, Vectors(tmp_path / "staged.parquet"))
    list(ingest_vectors(Vectors(tmp_path / "staged.parquet"), copy))
    assert_whole(copy, music)
    with BulkFolder(tmp_path / "bulk", ChromaEmbedder()) as folder:
        run([music], folder)
        (file,) = folder.write()
    assert json.loads((tmp_path / "bulk" / "files.json").read_text())["chroma_id"] == "most"
    entities = {entity["track_id"]: entity for entity in parquet.read_table(file).to_pylist()}
    for letter, stored in copy.stored_chroma(list("abcde")).items():
        assert entities[letter]["chroma"] == stored.chroma
        assert json.loads(entities[letter]["statistics"]) == stored.statistics


@ON_LITE
def test_a_second_stage_by_the_command_line(
    milvus_uri: str, client, name: str, music: Path, tiny_bundle: Path, tiny_notes_bundle: Path, tmp_path: Path
) -> None:
    """The two bundles have one model_id: their embeddings compare."""

    def invoke(*arguments: object) -> Result:
        place = ["--uri", milvus_uri] if arguments[0] != "embed" else []
        result = CliRunner().invoke(main, [str(argument) for argument in [*arguments, *place]])
        assert result.exit_code == 0, result.stderr
        return result

    def checks(bundle: Path) -> dict[str, tuple[str, str]]:
        lines = invoke("doctor", "--collection", name, "--bundle", bundle, "--json").stdout.splitlines()
        return {check["check"]: (check["status"], check["detail"]) for check in map(json.loads, lines)}

    def rows_with_chroma() -> tuple[int, str | None]:
        described = json.loads(invoke("collections", "describe", name, "--json").stdout)
        return described["rows_with_chroma"], described["chroma_id"]

    lack = f"{name}: it has no second stage; `collections promote {name}` gives it one"
    into = ("--collection", name, "--workers", 0, "--bundle")
    ask = ("query", music / "a.wav", "--limit", 1, "--json", "--collection", name, "--bundle")
    assert "second stage" not in invoke("ingest", music, *into, tiny_bundle).stderr
    assert invoke(*ask, tiny_bundle).stderr == "note: this bundle has no note map, and so no second stage\n"
    assert checks(tiny_bundle)["second stage"] == ("skipped", "this bundle has no note map, and so no second stage")
    for told in (invoke("ingest", music, *into, tiny_notes_bundle), invoke(*ask, tiny_notes_bundle)):
        assert told.stderr.splitlines().count(f"note: {lack}") == 1
    assert checks(tiny_notes_bundle)["second stage"] == ("skipped", lack)
    assert rows_with_chroma() == (0, None)

    promotion = ("collections", "promote", name, "--bundle", tiny_notes_bundle, "--workers", 0, "--json")
    done = json.loads(invoke(*promotion).stdout)
    assert (done["moved"], done["stored"]) == (True, 6) and done["from_model_id"] == done["to_model_id"]
    uncalibrated = (
        "note: this bundle has a note map but no calibration.json for this alignment, and so no second stage\n"
    )
    assert invoke(*ask, tiny_notes_bundle).stderr == uncalibrated
    chroma_id = checks(tiny_notes_bundle)["second stage"][1].split()[-1]
    assert checks(tiny_notes_bundle)["second stage"] == ("ok", f"note map {chroma_id}")
    assert rows_with_chroma() == (6, chroma_id)
    assert json.loads(invoke(*promotion).stdout)["moved"] is False

    # Embedded elsewhere, the same rows come in.
    invoke("embed", music, "--out", tmp_path / "rows.parquet", "--workers", 0, "--bundle", tiny_notes_bundle)
    counts = invoke("ingest", "--vectors", tmp_path / "rows.parquet", "--collection", f"{name}_copy").stderr
    assert counts.startswith("6 added")
    stored, copy = (TrackCollection.open(client, one).stored_chroma(["a", "b"]) for one in (name, f"{name}_copy"))
    for track_id, of_track in stored.items():
        assert (copy[track_id].chroma, copy[track_id].statistics) == (of_track.chroma, of_track.statistics)
