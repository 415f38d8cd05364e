"""Names from the tags of real files: what is taken, what goes before it, and what a new tag costs."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import write_tone
from band_embedder import BandEmbedder, NoEmbedder

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.audio.tags import MAX_CHARACTERS, Tags, read_tags
from bytecover2_milvus.ingest.pipeline import IngestRecord, ingest
from bytecover2_milvus.ingest.sqlite import Staging
from bytecover2_milvus.manifest import Track, tracks_in
from bytecover2_milvus.milvus.schema import Row

CODECS = {"mp3": "libmp3lame", "flac": "flac", "ogg": "", "opus": "libopus", "m4a": "aac", "wav": "pcm_s16le"}
RECORDING, RELEASE = "11111111-2222-3333-4444-555555555555", "aaaaaaaa-2222-3333-4444-555555555555"


def write_tagged(path: Path, seed: int = 0, **tags: str) -> Path:
    """A tone of two seconds in the format of the suffix."""
    tone = write_tone(path.with_suffix(".tone.wav"), seed, 2.0)
    if path.suffix == ".ogg":  # PyAV comes without an encoder of Vorbis
        samples, rate = soundfile.read(tone)
        with soundfile.SoundFile(path, "w", rate, 1, format="OGG", subtype="VORBIS") as vorbis:
            for name, value in tags.items():
                setattr(vorbis, name, value)
            vorbis.write(samples)
        tone.unlink()
        return path
    with av.open(str(tone)) as source, av.open(str(path), "w") as made:
        made.metadata.update(tags)
        rate = 48_000 if path.suffix == ".opus" else 22_050
        stream = made.add_stream(CODECS[path.suffix[1:]], rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate)
        for frame in source.decode(audio=0):
            for ready in resampler.resample(frame):
                made.mux(stream.encode(ready))
        made.mux(stream.encode(None))
    tone.unlink()
    return path


def retag(path: Path, **tags: str) -> None:
    """Other tags around the same packets."""
    new = path.with_name(f"new{path.suffix}")
    with av.open(str(path)) as source, av.open(str(new), "w") as made:
        made.metadata.update(tags)
        stream = made.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    new.replace(path)


def id3(*frames: tuple[str, bytes]) -> bytes:
    """An ID3v2.3 tag."""
    body = b"".join(name.encode() + struct.pack(">IH", len(text), 0) + text for name, text in frames)
    return b"ID3\3\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Staging]:
    with Staging(tmp_path / "staging", BandEmbedder()) as staging:
        yield staging


def run(tracks: list[Track], store: Staging, embedder: BandEmbedder | None = None) -> list[IngestRecord]:
    return list(ingest(tracks, embedder or BandEmbedder(), store, workers=0))


def stored(store: Staging, track_id: str) -> Row:
    (row,) = store.rows_of([track_id])
    return row


@pytest.mark.parametrize("suffix", CODECS)
def test_names_follow_the_tags_and_new_tags_are_not_embedded(suffix: str, tmp_path: Path, store: Staging) -> None:
    path = write_tagged(tmp_path / f"03.{suffix}", title="Fürst", artist="Trad.", album="A")
    run(tracks_in([path]), store)
    row = stored(store, "03")
    assert (row.title, row.artist, row.metadata) == ("Fürst", "Trad.", {"album": "A"})
    (embedding,) = store.features_of([row.id]).values()
    np.testing.assert_allclose(embedding.embedding, BandEmbedder().embed(load_audio(path)), atol=1e-6)

    retag(path, title="A much longer title than before", artist="Trad.")
    (record,) = run(tracks_in([path]), store, NoEmbedder())
    assert (record.status, record.reason) == ("updated", "metadata, title changed")
    new = stored(store, "03")
    assert (new.title, new.artist, new.metadata) == ("A much longer title than before", "Trad.", {})
    assert new.content_hash != row.content_hash
    assert (store.features_of([new.id])[new.id].embedding == embedding.embedding).all()
    assert run(tracks_in([path]), store, NoEmbedder())[0].status == "skipped"

    retag(path)  # no tags any more: the title is that of the path again, and stays so
    path = path.rename(tmp_path / f"04.{suffix}")
    assert run(tracks_in([path]), store)[0].status == "added"
    path.rename(tmp_path / f"05.{suffix}")
    assert run(tracks_in([tmp_path / f"05.{suffix}"]), store, NoEmbedder())[0].status == "updated"
    row = stored(store, "05")
    assert (row.title, row.artist) == ("05", "")


def test_other_audio_is_embedded(tmp_path: Path, store: Staging) -> None:
    path = write_tagged(tmp_path / "a.flac", 0, title="A")
    run(tracks_in([path]), store)
    write_tagged(path, 1, title="B")
    (record,) = run(tracks_in([path]), store)
    assert record.reason == "the file changed" and stored(store, "a").title == "B"


def test_a_manifest_goes_before_tags(tmp_path: Path, store: Staging) -> None:
    path = write_tagged(tmp_path / "a.flac", title="Tagged", artist="Tagged", album="Tagged", isrc="USRC17607839")
    said = Track(path, "a", "w", title="Said", metadata={"album": "Said", "year": 1850})
    run([said], store)
    for _ in range(2):
        row = stored(store, "a")
        assert (row.title, row.artist) == ("Said", "Tagged")
        assert row.metadata == {"album": "Said", "year": 1850, "isrc": "USRC17607839"}
        run(tracks_in([path]), store, NoEmbedder())
    retag(path, title="New", artist="New", album="New")
    run(tracks_in([path]), store, NoEmbedder())
    row = stored(store, "a")
    assert (row.title, row.artist, row.metadata) == ("Said", "New", {"album": "Said", "year": 1850})
    # What a later manifest says is no longer the file's, without the file being read.
    run([Track(path, "a", artist="Said")], store, NoEmbedder())
    retag(path, artist="Newer")
    run(tracks_in([path]), store, NoEmbedder())
    assert stored(store, "a").artist == "Said"


def test_rows_that_older_versions_stored_take_names_when_the_file_is_touched(tmp_path: Path, store: Staging) -> None:
    path = write_tagged(tmp_path / "a.flac", title="Tagged", album="Tagged")
    run(tracks_in([path]), store)
    row = stored(store, "a")
    features = store.features_of([row.id])[row.id]
    old = replace(row, title="a", metadata={}, audio_hash="", from_file=())
    store.upsert([old], features.embedding[None], [features.chroma], [features.statistics])
    assert run(tracks_in([path]), store, NoEmbedder())[0].status == "skipped"  # it is not looked into
    os.utime(path, ns=(1, 1))
    assert run(tracks_in([path]), store, NoEmbedder())[0].reason == "metadata, title changed"
    assert (stored(store, "a").title, stored(store, "a").metadata) == ("Tagged", {"album": "Tagged"})


def test_codes_of_all_forms(tmp_path: Path) -> None:
    path = write_tagged(tmp_path / "a.mp3")
    audio = path.read_bytes()
    path.write_bytes(
        id3(
            ("TIT2", b"\0Caf\xe9"),
            ("TPE1", b"\1\xff\xfe" + "Für\0Elise".encode("utf-16-le")),
            ("TSRC", b"\0us-rc1-76-07839"),
            ("UFID", b"http://musicbrainz.org\0" + RECORDING.encode()),
            ("TXXX", b"\0MusicBrainz Album Id\0" + RELEASE.upper().encode()),
            ("TXXX", b"\0MusicBrainz Artist Id\0nobody"),
        )
        + audio
    )
    codes = {"isrc": "USRC17607839", "musicbrainz_trackid": RECORDING, "musicbrainz_albumid": RELEASE}
    assert read_tags(path) == Tags("Café", "Für, Elise", codes)
    without = write_tagged(tmp_path / "b.mp3").read_bytes()
    path.write_bytes(without + b"TAG" + "Café".encode("latin-1").ljust(30, b"\0") + b"Trad.".ljust(95, b"\0"))
    assert read_tags(path) == Tags("Café", "Trad.")


def test_hostile_tags_are_bounded_and_cleaned(tmp_path: Path, store: Staging) -> None:
    audio = write_tagged(tmp_path / "a.mp3").read_bytes()
    many = [("TXXX", b"\0key%d\0value" % number) for number in range(5_000)]
    tag = id3(
        ("TIT2", b"\3\x1b[31mred\x07\xe2\x80\xae\nline"),
        ("TPE1", b"\3" + b"x" * 3_000_000),
        ("TALB", b"\1\xff\xfe\x00\xd8\x41\x00\xff"),  # half a surrogate pair, half a letter
        *many,
    )
    (tmp_path / "a.mp3").write_bytes(tag + audio)
    run(tracks_in([tmp_path / "a.mp3"]), store)
    row = stored(store, "a")
    assert row.title == "[31mred line" and row.artist == "x" * MAX_CHARACTERS
    assert row.metadata.keys() <= {"album"}
    for cut in (5, 60, 3_000_000):
        (tmp_path / "cut.mp3").write_bytes(tag[:cut])
        assert isinstance(read_tags(tmp_path / "cut.mp3"), Tags)
    assert read_tags(tmp_path / "missing.mp3") == Tags()
