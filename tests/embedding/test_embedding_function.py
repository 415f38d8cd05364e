"""The embedding function and collections with fields of their owner, on Milvus Lite and on a real server."""

from __future__ import annotations

import inspect
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import write_tone
from pymilvus import DataType, MilvusClient

from bytecover2_milvus import ByteCover2EmbeddingFunction, Embedder, FieldMap, MappedCollection, load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import (
    AudioError,
    CollectionError,
    CollectionMismatch,
    CollectionMissing,
    SilentAudio,
    UnreadableAudio,
)

DOCS = Path(__file__).parents[2] / "docs" / "milvus.md"
FIELDS = FieldMap(id="song_id", embedding="cover", path="file")


@pytest.fixture(scope="module")
def embed() -> ByteCover2EmbeddingFunction:
    return ByteCover2EmbeddingFunction(device="cpu", threads=1)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("audio")
    return [write_tone(folder / f"{number} 'ü'.wav", number, duration_s=3.0) for number in range(4)]


def create(client: MilvusClient, name: str, *, dim: int = 128, metric: str = "COSINE", **options: bool) -> None:
    schema = client.create_schema(**options)
    schema.add_field("song_id", DataType.INT64, is_primary=True)
    schema.add_field("title", DataType.VARCHAR, max_length=200)
    schema.add_field("cover", DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("cover", index_type="FLAT", metric_type=metric)
    client.create_collection(name, schema=schema, index_params=index, timeout=30)


def test_it_gives_what_the_embedder_gives_for_paths_and_waveforms(embed, audio) -> None:
    embedder = Embedder(device="cpu", threads=1)
    expected = [embedder.embed(load_audio(path)) for path in audio]
    waveforms = [load_audio(path) for path in audio]
    for given in (audio, [str(path) for path in audio], waveforms, tuple(audio), np.stack(waveforms)):
        for method in (embed, embed.encode_documents, embed.encode_queries):
            embeddings = method(given)
            assert isinstance(embeddings, list)
            np.testing.assert_array_equal(embeddings, expected)
    assert embed([]) == [] and embed.dim == 128
    assert list(inspect.signature(embed.encode_queries).parameters) == ["queries"]
    assert list(inspect.signature(embed.encode_documents).parameters) == ["documents"]


def test_what_cannot_be_embedded_names_its_file(embed, audio, tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match=r"gone.wav"):
        embed([audio[0], tmp_path / "gone.wav"])
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(SilentAudio, match=r"silent.wav"):
        embed([tmp_path / "silent.wav"])
    with pytest.raises(AudioError, match="float32 is needed"):
        embed([np.zeros(SAMPLE_RATE)])
    for single in (str(audio[0]), audio[0], load_audio(audio[0])):
        with pytest.raises(TypeError, match="in a list"):
            embed(single)


def test_rows_are_added_once_and_found(client, name: str, embed, audio) -> None:
    create(client, name)
    songs = MappedCollection(client, name, FIELDS, embed)
    rows = [{"song_id": n, "title": f'"{n}" \\ 🎹', "file": path} for n, path in enumerate(audio)]
    assert songs.add(rows) == 4
    assert songs.add([rows[0] | {"title": "first"}, rows[0] | {"title": "last"}]) == 2
    assert client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=30)[0] == {
        "count(*)": 4
    }
    expected = np.stack(embed(audio))
    for n, hits in enumerate(songs.search(audio, limit=4, output_fields=["title"])):
        assert (hits[0]["song_id"], hits[0]["title"]) == (n, rows[n]["title"] if n else "last")
        by_id = {hit["song_id"]: hit["similarity"] for hit in hits}
        np.testing.assert_allclose([by_id[k] for k in range(4)], expected @ expected[n], atol=1e-5)
    (hits,) = songs.search([load_audio(audio[2])], filter="song_id < 2")
    assert {hit["song_id"] for hit in hits} == {0, 1}
    with pytest.raises(CollectionError, match="too many"):
        songs.search([audio[2]], filter='song_id < 2) or (title != ""')
    assert songs.search([]) == [] and songs.add([]) == 0


def test_a_bad_row_stores_nothing_of_its_batch(client, name: str, embed, audio, tmp_path: Path) -> None:
    create(client, name)
    songs = MappedCollection(client, name, FIELDS, embed)
    good = {"song_id": 1, "title": "a", "file": audio[0]}
    for bad, error, reason in (
        ({"song_id": 2, "title": "b", "file": tmp_path / "gone.wav"}, AudioError, r"gone.wav"),
        ({"song_id": 2, "title": "b", "path": audio[1]}, CollectionError, r"a row without 'file', only song_id"),
        ({"song_id": 2, "file": audio[1]}, CollectionError, "title"),
    ):
        with pytest.raises(error, match=reason):
            songs.add([good, bad])
    assert songs.search([audio[0]]) == [[]]


def test_keys_that_milvus_gives_and_fields_without_a_schema(client, name: str, embed, audio) -> None:
    create(client, name, auto_id=True, enable_dynamic_field=True)
    songs = MappedCollection(client, name, FIELDS, embed)
    rows = [{"title": "a", "file": audio[0], "mood": "merry"}, {"title": "b", "file": load_audio(audio[1])}]
    assert songs.add(rows) == 2
    (hits,) = songs.search([audio[0]], output_fields=["file", "mood"])
    assert [(hit["file"], hit["mood"]) for hit in hits] == [(str(audio[0]), "merry"), (None, None)]


def test_field_maps_and_models_that_do_not_fit(client, name: str, embed, audio, monkeypatch) -> None:
    with pytest.raises(CollectionMissing, match="create it first"):
        MappedCollection(client, name, FIELDS, embed)
    create(client, name)
    for fields, reason in (
        (FieldMap(id="song", embedding="cover"), "no field song, only song_id, title, cover"),
        (FieldMap(id="title", embedding="cover"), "title is not the primary key"),
        (FieldMap(id="song_id", embedding="title"), "title is VARCHAR .*; FLOAT_VECTOR of dim 128"),
    ):
        with pytest.raises(CollectionMismatch, match=reason):
            MappedCollection(client, name, fields, embed)
    opened_before = MappedCollection(client, name, FIELDS, embed)
    MappedCollection(client, name, FIELDS, embed).add([{"song_id": 1, "title": "a", "file": audio[0]}])
    MappedCollection(client, name, FIELDS, embed)
    monkeypatch.setattr(ByteCover2EmbeddingFunction, "model_id", "other")
    search = partial(opened_before.search, [audio[0]])
    for use in (search, partial(opened_before.add, [{"song_id": 2, "title": "b", "file": audio[0]}])):
        with pytest.raises(CollectionMismatch, match=r"holds embeddings of model .*, not of other"):
            use()
    with pytest.raises(CollectionMismatch, match=f"holds embeddings of model {'[0-9a-f]' * 32}, not of other"):
        MappedCollection(client, name, FIELDS, embed)


@pytest.mark.parametrize(("options", "reason"), [({"dim": 64}, "of dim 128 is needed"), ({"metric": "L2"}, "by L2")])
def test_collections_that_do_not_fit(client, name: str, embed, options: dict, reason: str) -> None:
    create(client, name, **options)
    with pytest.raises(CollectionMismatch, match=reason):
        MappedCollection(client, name, FIELDS, embed)


def test_the_documented_example_runs(milvus_uri, client, name, tmp_path, monkeypatch, capsys) -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## In a collection of your own")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    for seed, file in enumerate(("greensleeves", "scarborough-fair", "cover")):
        write_tone(tmp_path / f"{file}.flac", seed % 2, duration_s=10.0)  # the cover is Greensleeves once more
    monkeypatch.chdir(tmp_path)
    exec(code.replace("catalogue.db", milvus_uri).replace('"songs"', repr(name)), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "7 Greensleeves 1.0" and second.startswith("8 Scarborough Fair ")
