"""A score that is damaged or made to harm is left out in a line, soon, and without taking memory."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest
from written_scores import TICKS, write_midi, write_musicxml

from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.readers import read_song, read_songs, song_paths

CONTAINER = '<container><rootfiles><rootfile full-path="score.xml"/></rootfiles></container>'


def refused(path: Path) -> str:
    with pytest.raises(SongError) as raised:
        read_song(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 500
    return message


def write_messages(path: Path, *messages: mido.messages.BaseMessage) -> Path:
    note = [mido.Message("note_on", note=60, time=0), mido.Message("note_off", note=60, time=TICKS)]
    file = mido.MidiFile(ticks_per_beat=TICKS)
    file.tracks.append(mido.MidiTrack([*messages, *(32 * note)]))
    file.save(path)
    return path


def write_mxl(path: Path, score: bytes, container: str = CONTAINER) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("score.xml", score)
    return path


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (mido.Message("note_on", note=50, velocity=0, time=2**28 - 1), "beats, at most 20000 are read"),
        (mido.MetaMessage("time_signature", numerator=4, denominator=2**30), "a time signature of 4/1073741824"),
        (mido.MetaMessage("time_signature", numerator=255, denominator=4), "a time signature of 255/4"),
        (mido.MetaMessage("set_tempo", tempo=1), "a tempo of 6e+07 beats per minute"),
        (mido.MetaMessage("set_tempo", tempo=0), "ZeroDivisionError"),
    ],
)
def test_midi_of_no_music_is_refused(message, reason, tmp_path):
    assert reason in refused(write_messages(tmp_path / "a.mid", message))


@pytest.mark.parametrize(
    ("duration", "reason"),
    [
        ("999999999", "at most 20000 are read"),
        ("-5", "not a readable MusicXML file"),
        *((nonsense, "no melody in its bars") for nonsense in ("1e400", "9" * 5000, "nan")),
    ],
)
def test_musicxml_of_no_music_is_refused(duration, reason, tmp_path):
    path = write_musicxml(tmp_path / "a.musicxml", "Soprano", "Bass")
    path.write_text(path.read_text().replace("<duration>1<", f"<duration>{duration}<"))
    assert reason in refused(path)


def test_a_compressed_score_is_unpacked_within_bounds(tmp_path):
    score = write_musicxml(tmp_path / "a.musicxml", "Soprano", "Bass").read_bytes()
    packed = read_song(write_mxl(tmp_path / "a.mxl", score))
    assert packed.sections == read_song(tmp_path / "a.musicxml").sections
    bomb = write_mxl(tmp_path / "bomb.mxl", score + b" " * (20 << 20))
    assert bomb.stat().st_size < 100_000
    assert "it unpacks to more than" in refused(bomb)
    elsewhere = CONTAINER.replace("score.xml", "../../score.xml")
    assert "names no score in it" in refused(write_mxl(tmp_path / "b.mxl", score, elsewhere))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY name SYSTEM "{secret}">',
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY name "&b;&b;&b;&b;&b;&b;&b;&b;">',
    ],
    ids=["file", "laughs"],
)
def test_xml_entities_are_refused(entities, packed, tmp_path):
    (tmp_path / "secret").write_text("Voice")
    path = write_musicxml(tmp_path / "a.musicxml", "Soprano", "Bass")
    declared = f"<!DOCTYPE score-partwise [{entities.format(secret=tmp_path / 'secret')}]>"
    text = declared + path.read_text().replace("<part-name>Soprano", "<part-name>&name;")
    path.write_text(text)
    path = write_mxl(tmp_path / "a.mxl", text.encode()) if packed else path
    assert "it declares XML entities" in refused(path)


def test_a_document_type_without_entities_is_as_programs_write_it(tmp_path):
    path = write_musicxml(tmp_path / "a.musicxml", "Soprano", "Bass")
    plain = read_song(path)
    public = '"-//Recordare//DTD MusicXML 3.1 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd"'
    path.write_text(f"<!DOCTYPE score-partwise PUBLIC {public}>" + path.read_text())
    assert read_song(path) == plain


def test_links_that_loop_are_followed_once(tmp_path):
    (tmp_path / "folder").mkdir()
    write_midi(tmp_path / "folder" / "a.mid")
    for name in "bcd":
        (tmp_path / "folder" / name).symlink_to(".")
        (tmp_path / name).symlink_to("folder")
    assert [path.name for path in song_paths(tmp_path)] == ["a.mid"]


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_no_file_is_left_out_and_the_rest_read(cached, tmp_path, caplog):
    music = tmp_path / "music"
    music.mkdir()
    os.mkfifo(music / "a.mid")
    (music / "b.mid").symlink_to("/dev/zero")
    write_midi(music / "c.mid")
    with (music / "d.mid").open("wb") as file:
        file.truncate(1 << 40)
    with caplog.at_level(logging.WARNING):
        [song] = read_songs(song_paths(music), tmp_path / "cache" if cached else None)
    assert song.song_id == "c"
    assert [record.getMessage().split(":")[1].strip() for record in caplog.records] == [
        str(music / f"{name}.mid") for name in "abd"
    ]


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", "{}", "null", '["a", "b"]', "\x00"])
def test_a_damaged_cache_is_read_anew(content, tmp_path):
    path = write_midi(tmp_path / "a.mid")
    [song] = read_songs([path], tmp_path / "cache")
    [kept] = (tmp_path / "cache").iterdir()
    kept.write_text(content)
    assert list(read_songs([path], tmp_path / "cache")) == [song]


@pytest.mark.parametrize(
    "write", [write_midi, lambda path: write_musicxml(path, "Soprano", "Bass")], ids=["midi", "xml"]
)
def test_files_changed_at_random_are_songs_or_are_refused(write: Callable[[Path], Path], tmp_path):
    path = tmp_path / ("a.mid" if write is write_midi else "a.musicxml")
    whole, rng = write(path).read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), size=rng.integers(1, 6)):
            content[at] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
        try:
            assert read_song(path).sections
        except SongError as error:
            assert str(error).startswith(str(path))
