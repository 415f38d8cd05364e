"""Composed songs are written as songs are: in a mode, in bars, for a voice, and each one different."""

from __future__ import annotations

import numpy as np
import pytest

from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.score import CHORD_QUALITIES, SCALES, Song


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    return [compose(seed) for seed in range(120)]


def _length_s(song: Song) -> float:
    return sum(song.sections[i].n_beats for i in song.form) * 60 / song.bpm


def test_a_seed_is_a_song(songs: list[Song]) -> None:
    assert compose(7) == songs[7]
    assert songs[7].song_id == "composed-7"
    assert songs[7].origin == "composed"


def test_no_two_songs_share_their_melody(songs: list[Song]) -> None:
    melodies = {tuple((note.onset, note.pitch) for note in song.sections[0].melody) for song in songs}
    assert len(melodies) == len(songs)


def test_songs_last_as_long_as_songs_do(songs: list[Song]) -> None:
    lengths_s = [_length_s(song) for song in songs]
    assert min(lengths_s) > 60
    assert max(lengths_s) < 300
    assert 90 < np.median(lengths_s) < 240
    assert all(60 <= song.bpm <= 160 for song in songs)


def test_modes_metres_and_forms_vary(songs: list[Song]) -> None:
    assert {song.mode for song in songs} == set(SCALES)
    assert {song.beats_per_bar for song in songs} == {2, 3, 4, 6}
    assert {song.tonic for song in songs} == set(range(12))
    assert {len(song.sections) for song in songs} >= {2, 3}
    assert len({song.form for song in songs}) >= 10
    qualities = {chord.quality for song in songs for section in song.sections for chord in section.chords}
    assert len(qualities) >= 8
    assert qualities <= set(CHORD_QUALITIES)


def test_chords_cover_every_section_without_gaps(songs: list[Song]) -> None:
    for song in songs:
        for section in song.sections:
            ends = [0.0] + [chord.onset + chord.duration for chord in section.chords]
            assert [chord.onset for chord in section.chords] == pytest.approx(ends[:-1])
            assert ends[-1] == pytest.approx(section.n_beats)


def test_one_voice_could_sing_the_melody(songs: list[Song]) -> None:
    for song in songs:
        pitches = [note.pitch for section in song.sections for note in section.melody]
        assert max(pitches) - min(pitches) <= 24
        for section in song.sections:
            starts = np.array([note.onset for note in section.melody])
            ends = np.array([note.onset + note.duration for note in section.melody])
            assert np.all(ends[:-1] <= starts[1:] + 1e-6)
            assert ends[-1] <= section.n_beats + 1e-6


def test_melodies_move_mostly_by_step(songs: list[Song]) -> None:
    intervals = np.abs(
        np.concatenate([np.diff([n.pitch for n in section.melody]) for song in songs for section in song.sections])
    )
    assert np.mean(intervals <= 2) > 0.5  # repeated notes and seconds, as in collections of folk song
    assert np.mean(intervals > 7) < 0.05


def test_strong_beats_carry_chord_tones(songs: list[Song]) -> None:
    agrees = []
    for song in songs:
        for section in song.sections:
            for note in section.melody:
                if note.onset % song.beats_per_bar == 0:
                    chord = next(c for c in reversed(section.chords) if c.onset <= note.onset)
                    agrees.append(note.pitch % 12 in chord.pitch_classes)
    assert np.mean(agrees) > 0.95


def test_melodies_stay_mostly_in_their_mode(songs: list[Song]) -> None:
    shares = []
    for song in songs:
        scale = {(song.tonic + step) % 12 for step in SCALES[song.mode]}
        shares.append(np.mean([note.pitch % 12 in scale for section in song.sections for note in section.melody]))
    assert np.median(shares) > 0.9
    assert min(shares) > 0.6  # chords from outside take the melody with them


def test_motifs_come_back(songs: list[Song]) -> None:
    """The rhythm of the two-bar group heard most often returns at least once in most sections."""
    returns = []
    for song in songs:
        for section in song.sections:
            span = 2 * song.beats_per_bar
            groups: dict[int, list[float]] = {}
            for note in section.melody:
                groups.setdefault(int(note.onset // span), []).append(round(note.onset % span, 3))
            rhythms = [tuple(group) for group in groups.values()]
            returns.append(max(rhythms.count(rhythm) for rhythm in rhythms) >= 2)
    assert np.mean(returns) > 0.75
