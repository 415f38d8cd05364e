"""A stranger shares everything with its song but the tune, and meets it in a batch."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.score import Song
from bytecover2_milvus.songs.strangers import stranger
from bytecover2_milvus.training.data.batches import WorkSampler
from bytecover2_milvus.training.data.corpus import Corpus

SONGS = [*map(compose, range(6)), *traditional_songs()[::11]]


def tune(song: Song) -> set[tuple[int, ...]]:
    """Groups of five intervals of the song's sections, repeated tones taken as one."""
    groups = set()
    for section in song.sections:
        pitches = [note.pitch for note in section.melody]
        intervals = [after - before for before, after in pairwise(pitches) if after != before]
        groups |= {tuple(intervals[i : i + 5]) for i in range(len(intervals) - 4)}
    return groups


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song.song_id)
def test_a_stranger_is_another_tune_over_the_same_chords(song: Song) -> None:
    one, other = stranger(song, 0), stranger(song, 1)
    assert one == stranger(song, 0)
    assert len({song.work_id, one.work_id, other.work_id}) == 3
    for section, strange in zip(song.sections, one.sections, strict=True):
        assert (strange.chords, strange.n_beats) == (section.chords, section.n_beats)
        assert strange.melody and all(0 <= note.onset < section.n_beats for note in strange.melody)
    assert (one.form, one.mode, one.bpm, one.tonic) == (song.form, song.mode, song.bpm, song.tonic)
    for two in ((song, one), (song, other), (one, other)):
        shared, smaller = tune(two[0]) & tune(two[1]), min(map(len, map(tune, two)))
        assert len(shared) <= 0.2 * smaller + 2


def test_its_arrangements_are_those_of_the_song_but_for_the_tune() -> None:
    for song in SONGS:
        for seed in range(3):
            own, strange = arrange(song, seed), arrange(stranger(song, 0), seed)
            assert (strange.style, strange.bpm, strange.transpose) == (own.style, own.bpm, own.transpose)
            assert strange.form == own.form and strange.harmony == own.harmony
            assert strange.song_id != own.song_id  # whose recording it is: another room, other players


def test_strangers_meet_their_song_in_a_batch_and_no_stranger_changes_no_batch() -> None:
    songs = list(map(compose, range(12)))
    corpus = Corpus.of_songs([*songs, *(stranger(song, n) for song in songs for n in range(2))], 2)
    sampler = WorkSampler(corpus, works_per_batch=9, tracks_per_work=2, seed=5)
    names = list(corpus.works)
    for step in range(2 * sampler.batches_per_epoch):
        works = [names[work] for work, _ in sampler.tracks(step)][::2]
        assert len(works) == 9
        assert all(works[3 * i + n].startswith(f"{works[3 * i]}-stranger-") for i in range(3) for n in (1, 2))
    seen = [work for step in range(sampler.batches_per_epoch) for work, _ in sampler.tracks(step)]
    assert sorted(set(seen)) == list(range(36))
    alone = WorkSampler(Corpus.of_songs(songs, 2), works_per_batch=4, tracks_per_work=2, seed=5)
    assert sorted(alone.families) == [[i] for i in range(12)]
