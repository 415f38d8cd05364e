"""Scores become songs: MIDI, MusicXML and POP909; what is damaged is left out by name."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from written_scores import BACKWARDS, TUNE, melody, write_midi, write_musicxml

from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.readers import read_song, read_songs, song_paths
from bytecover2_milvus.songs.select import select_songs


@pytest.mark.parametrize("names", [("Bass", "Melody"), ("Lead Guitar", "Vocals"), ("Piano", "Soprano Sax")])
def test_a_midi_file_gives_its_melody_not_what_comes_first(tmp_path: Path, names: tuple[str, str]) -> None:
    song = read_song(write_midi(tmp_path / "A Tune.mid", names=names))
    assert song.song_id == "a-tune"
    assert melody(song)[: len(TUNE)] == TUNE


@pytest.mark.parametrize(
    ("parts", "lead"),
    [
        (("Flute", "Bassoon"), 0),
        (("Piano", "Electric Bass"), 0),
        (("Trumpet", "Alto Saxophone"), 0),
        (("Piano", "Soprano Saxophone"), 0),
        (("Piano", "Soprano"), 1),
        (("Piano", "Tenor"), 1),
        (("Klavier", "Singstimme"), 1),
        (("Violin", "Bass 1"), 1),
        (("Piano", "Tenor (Rodolfo)"), 1),
    ],
)
def test_the_melody_of_a_musicxml_file_is_the_voice_if_there_is_one(
    parts: tuple[str, str], lead: int, tmp_path: Path
) -> None:
    song = read_song(write_musicxml(tmp_path / "song.musicxml", *parts))
    assert melody(song)[: len(TUNE)] == (TUNE, BACKWARDS)[lead]


def test_a_folder_of_pop909(shared_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sorted((shared_data / "pop909").iterdir())[0], tmp_path / "001"))
    song = read_song(folder)
    assert song.song_id == "pop909-001" and len(melody(song)) > 50
    assert any(section.chords for section in song.sections)
    (folder / "versions").mkdir()  # as the data set comes
    assert [found.song_id for found in read_songs([folder], tmp_path / "cache")] == ["pop909-001"]


def test_a_chord_that_is_none_is_refused_with_its_line(shared_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sorted((shared_data / "pop909").iterdir())[0], tmp_path / "001"))
    (folder / "chord_midi.txt").write_text("0.0 1.5 N\n1.5 3.0 C:9\n")
    with pytest.raises(SongError, match=r"chord_midi\.txt: not a line of start, end, chord: '1\.5 3\.0 C:9'"):
        read_song(folder)


def test_what_is_damaged_is_left_out_by_name_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    write_midi(scores / "good.mid")
    write_midi(scores / "no-tempo.mid", tempo=0)
    write_midi(scores / "no-beats.mid", beats=0)
    (scores / "cut.mid").write_bytes((scores / "good.mid").read_bytes()[:20])
    (scores / "text.musicxml").write_text("no score")
    (scores / "gone.mid").symlink_to(tmp_path / "nowhere.mid")
    odd = scores / os.fsdecode(b"caf\xe9.mid")
    shutil.copy(scores / "good.mid", odd)
    for workers in (1, 2):
        with caplog.at_level(logging.WARNING):
            songs = select_songs(str(scores), tmp_path / "cache", workers)
        assert sorted(song.song_id for song in songs) == ["caf", "good"]
        told = {Path(str(record.args[0]).split(":")[0]).name: record.getMessage() for record in caplog.records}
        assert told.keys() == {"no-tempo.mid", "no-beats.mid", "cut.mid", "text.musicxml", "gone.mid"}
        assert not [message for message in told.values() if "()" in message]
        caplog.clear()


def test_songs_of_one_name_keep_apart(tmp_path: Path) -> None:
    paths = [write_midi(tmp_path / "tune.mid"), write_midi(tmp_path / "tune.midi"), write_midi(tmp_path / "tune-2.mid")]
    assert sorted(song.song_id for song in read_songs(sorted(paths))) == ["tune", "tune-2", "tune-3"]


def test_places_without_songs(tmp_path: Path) -> None:
    with pytest.raises(SongError, match="no songs here"):
        song_paths(tmp_path)
    (tmp_path / "notes.txt").write_text("do re mi")
    with pytest.raises(SongError, match=r"notes\.txt: not a song"):
        read_song(tmp_path / "notes.txt")
    with pytest.raises(SongError, match=r"no-tempo\.mid: cannot be read as a song"):
        read_song(write_midi(tmp_path / "no-tempo.mid", tempo=0))
