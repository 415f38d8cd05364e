"""The traditional tunes are written as the notation says, sound as tunes do, and their mistakes are named."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.read.traditional import read_melodies, traditional_songs
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.songs.score import SCALES, Chord, Section, Song

SONGS = traditional_songs()
LEANING = {"dark-eyes"}  # tunes that begin their bars a step off the chord and resolve
each_song = pytest.mark.parametrize("song", SONGS, ids=lambda song: song.song_id)


def _toml(**changes: str) -> str:
    """A song of two bars, with other values for some of its lines."""
    lines = {
        "key": '"C major"',
        "form": '"A"',
        "melody": '"C4 D4 E4 - | G4:3/2 F#4:1/2 Bb4:2"',
        "chords": '"C | G7 Am"',
    } | changes
    return f"""
[[song]]
id = "tune"
title = "Tune"
origin = "nowhere"
key = {lines["key"]}
beats_per_bar = 4
bpm = 100
form = {lines["form"]}

[song.sections.A]
melody = {lines["melody"]}
chords = {lines["chords"]}
"""


def _chord_at(section: Section, beat: float) -> Chord:
    return next(chord for chord in reversed(section.chords) if chord.onset <= beat + 1e-9)


def _intervals(song: Song) -> list[int]:
    """Steps from note to note, repeated notes taken as one, through all sections in order."""
    pitches = [note.pitch for section in song.sections for note in section.melody]
    return [int(step) for step in np.diff(pitches) if step]


def _edit_distance(one: list[int], other: list[int]) -> int:
    row = list(range(len(other) + 1))
    for i, step in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, other_step in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (step != other_step))
    return row[-1]


def test_the_notation() -> None:
    (song,) = read_melodies(_toml())
    (section,) = song.sections
    assert (song.song_id, song.title, song.origin) == ("tune", "Tune", "nowhere")
    assert (song.tonic, song.mode, song.beats_per_bar, song.bpm, song.form) == (0, "major", 4, 100.0, (0,))
    assert [(note.onset, note.duration, note.pitch) for note in section.melody] == [
        (0.0, 1.0, 60),
        (1.0, 1.0, 62),
        (2.0, 1.0, 64),
        (4.0, 1.5, 67),
        (5.5, 0.5, 66),
        (6.0, 2.0, 70),
    ]
    assert section.chords == (Chord(0.0, 4.0, 0, "maj"), Chord(4.0, 2.0, 7, "7"), Chord(6.0, 2.0, 9, "min"))
    assert section.n_beats == 8.0


def test_there_are_many_songs_and_each_is_there_once() -> None:
    assert len(SONGS) >= 45
    for names in ([song.song_id for song in SONGS], [song.title.casefold() for song in SONGS]):
        assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", song.song_id) for song in SONGS)
    assert all(song.title and song.origin for song in SONGS)


def test_songs_are_read_once_and_in_the_order_of_their_ids() -> None:
    assert traditional_songs() is SONGS
    assert [song.song_id for song in SONGS] == sorted(song.song_id for song in SONGS)


def test_no_two_songs_share_their_tune() -> None:
    for one, other in combinations(SONGS, 2):
        steps = sorted((_intervals(one), _intervals(other)), key=len)
        distance = _edit_distance(*steps)
        assert distance > 0.3 * len(steps[1]), f"{one.song_id} and {other.song_id}"


def test_frere_jacques_is_frere_jacques() -> None:
    song = next(song for song in SONGS if song.song_id == "frere-jacques")
    pitches = [note.pitch for i in song.form for note in song.sections[i].melody]
    bells = [72, 74, 72, 70, 69, 65]
    assert pitches == [65, 67, 69, 65] * 2 + [69, 70, 72] * 2 + bells * 2 + [65, 60, 65] * 2
    assert song.tonic == 5


@each_song
def test_one_voice_could_sing_it(song: Song) -> None:
    pitches = [note.pitch for section in song.sections for note in section.melody]
    assert max(pitches) - min(pitches) <= 24
    assert set(song.form) == set(range(len(song.sections)))
    for section in song.sections:
        starts = np.array([note.onset for note in section.melody])
        ends = np.array([note.onset + note.duration for note in section.melody])
        assert np.all(ends[:-1] <= starts[1:] + 1e-9)
        assert ends[-1] <= section.n_beats + 1e-9


@each_song
def test_chords_cover_every_section_without_gaps(song: Song) -> None:
    for section in song.sections:
        ends = [0.0] + [chord.onset + chord.duration for chord in section.chords]
        assert [chord.onset for chord in section.chords] == pytest.approx(ends[:-1])
        assert ends[-1] == pytest.approx(section.n_beats)


@each_song
def test_melody_key_and_chords_go_together(song: Song) -> None:
    scale = {(song.tonic + step) % 12 for step in SCALES[song.mode]}
    belongs, agrees, resolves = [], [], []
    for section in song.sections:
        for note, following in zip(section.melody, (*section.melody[1:], None), strict=True):
            tones = _chord_at(section, note.onset).pitch_classes
            belongs.append(note.pitch % 12 in scale or note.pitch % 12 in tones)
            if note.onset % song.beats_per_bar == 0:
                step = 0 if following is None else abs(following.pitch - note.pitch)
                agrees.append(note.pitch % 12 in tones)
                resolves.append(agrees[-1] or (step in (1, 2) and following.pitch % 12 in tones))
    assert np.mean(belongs) >= 0.75
    assert np.mean(resolves) >= 0.7
    assert song.song_id in LEANING or np.mean(agrees) >= 0.6


@each_song
def test_it_can_be_arranged_and_rendered(song: Song) -> None:
    waveform = render(arrange(song, 0), max_duration_s=10)
    assert np.all(np.isfinite(waveform))
    assert np.abs(waveform).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"melody": '"C4 D4 E4 F4 | G4:3 A4 B4"'},
            "tune, section A, melody, bar 2: 5 beats, a bar has 4: 'G4:3 A4 B4'",
        ),
        ({"melody": '"C4 D4 E4 | G4:4"'}, "tune, section A, melody, bar 1: 3 beats, a bar has 4: 'C4 D4 E4'"),
        ({"melody": '"C4 D4 H4 F4 | G4:4"'}, "tune, section A, melody, bar 1: H4 cannot be read"),
        ({"melody": '"C4 D4 E4:x F4 | G4:4"'}, "tune, section A, melody, bar 1: E4:x cannot be read"),
        ({"melody": '"C4 D4 E4:1/0 F4 | G4:4"'}, "tune, section A, melody, bar 1: E4:1/0 cannot be read"),
        ({"chords": '"C | Gmin"'}, "tune, section A, chords, bar 2: Gmin cannot be read"),
        ({"chords": '"C | G7:3"'}, "tune, section A, chords, bar 2: 3 beats, a bar has 4: 'G7:3'"),
        ({"chords": '"C"'}, "tune, section A: 2 bars of melody, 1 of chords; they must be as many"),
        ({"form": '"AB"'}, "tune: form 'AB' names sections that are not there: ['B']"),
        ({"key": '"H major"'}, "tune: key 'H major'; a tonic and one of major, minor"),
        ({"key": '"C locrian"'}, "tune: key 'C locrian'; a tonic and one of major, minor"),
    ],
)
def test_mistakes_are_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SongError, match=re.escape(message)):
        read_melodies(_toml(**changes))
