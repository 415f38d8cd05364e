"""Arrangements of a song are covers of it: the melody is shared, key, tempo, band and form are not."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from bytecover2_milvus.errors import SongError
from bytecover2_milvus.songs.arrange.adapt import in_other_metre, in_parallel_mode
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, arrange
from bytecover2_milvus.songs.arrange.bands import BANDS
from bytecover2_milvus.songs.arrange.comping import COMPING_STYLES, comping_bar
from bytecover2_milvus.songs.arrange.drums import DRUM_STYLES, drum_bar
from bytecover2_milvus.songs.arrange.form import Passage
from bytecover2_milvus.songs.arrange.patterns import BASS_STYLES, Metre, bass_bar, play_pattern
from bytecover2_milvus.songs.arrange.reharmonise import AS_WRITTEN, HARMONIES, Harmony
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.instruments import INSTRUMENTS
from bytecover2_milvus.songs.score import Chord, Note, Section, Song


@pytest.fixture(scope="module")
def arrangements() -> list[Arrangement]:
    return [arrange(compose(seed), seed % 5) for seed in range(300)]


def _tune(n_bars: int, repeats: int = 1) -> Song:
    """A scale up and down over the tonic chord: 8 notes per 2 bars of 4/4 at 120 bpm."""
    pitches = (60, 62, 64, 65, 67, 65, 64, 62)
    n_beats = 4.0 * n_bars
    melody = tuple(Note(float(i), 0.9, pitches[i % 8]) for i in range(int(n_beats)))
    section = Section("A", n_beats, melody, (Chord(0.0, n_beats, 0),))
    return Song("scale", "Scale", "test", 0, "major", 4, 120.0, (section,), (0,) * repeats)


def _figures(arrangement: Arrangement, n: int = 5) -> set[tuple[int, ...]]:
    """Groups of `n` successive pitch classes of the lead, in the key of the song; a tone struck again is one tone."""
    leads = np.concatenate([part.notes for part in arrangement.parts if part.role == "lead"])
    tones = np.round(np.sort(leads, order="onset_s")["pitch"]).astype(int) - arrangement.transpose
    tones = tones[np.diff(tones, prepend=-1) != 0] % 12
    return {tuple(tones[i : i + n].tolist()) for i in range(len(tones) - n + 1)}


def _shared(one: Arrangement, other: Arrangement) -> float:
    first, second = _figures(one), _figures(other)
    return len(first & second) / min(len(first), len(second))


def test_the_same_seed_plays_the_same_notes() -> None:
    song = compose(3)
    once, again = arrange(song, 8), arrange(song, 8)
    assert once.describe() == again.describe()
    assert np.array_equal(once.drums, again.drums)
    for part, same in zip(once.parts, again.parts, strict=True):
        assert np.array_equal(part.notes, same.notes)


def test_arrangements_last_one_to_three_minutes(arrangements: list[Arrangement]) -> None:
    durations = [arrangement.duration_s for arrangement in arrangements]
    assert min(durations) >= 60
    assert max(durations) <= 200


def test_every_note_can_be_played(arrangements: list[Arrangement]) -> None:
    for arrangement in arrangements:
        for part in arrangement.parts:
            notes, plays = part.notes, INSTRUMENTS[part.instrument]
            assert len(notes) > 0
            assert notes["pitch"].min() >= max(24, plays.lowest - 0.5), arrangement.describe()
            assert notes["pitch"].max() <= min(108, plays.highest + 0.5), arrangement.describe()
            assert notes["onset_s"].min() >= 0
            assert notes["onset_s"].max() < arrangement.duration_s
            assert notes["duration_s"].min() > 0
            assert notes["velocity"].min() > 0
            assert notes["velocity"].max() < 2


def test_covers_vary_as_covers_do(arrangements: list[Arrangement]) -> None:
    assert {arrangement.transpose for arrangement in arrangements} == set(range(-6, 7))
    assert {arrangement.style for arrangement in arrangements} == {band.name for band in BANDS}
    leads = {arrangement.parts[0].instrument for arrangement in arrangements}
    assert len(leads) >= 15
    styles = {part.style for arrangement in arrangements for part in arrangement.parts if part.role == "comping"}
    assert len(styles) >= 15
    without_drums = np.mean([not len(arrangement.drums) for arrangement in arrangements])
    assert 0.2 < without_drums < 0.6
    ratios = [a.bpm / compose(seed).bpm for seed, a in enumerate(arrangements[:50])]
    assert 0.4 < min(ratios) < 0.8 < 1.25 < max(ratios) < 2.6  # another metre counts other beats


def test_siblings_share_the_melody_and_nothing_else() -> None:
    families = [[arrange(compose(song), seed) for seed in range(4)] for song in range(6)]
    siblings = [_shared(a, b) for family in families for a, b in combinations(family, 2)]
    strangers = [_shared(a, b) for one, other in combinations(families, 2) for a, b in zip(one, other, strict=True)]
    assert np.median(siblings) > 0.4
    assert np.percentile(strangers, 90) < 0.1
    tracks = [(work, track) for work, family in enumerate(families) for track in family]
    nearest = [max((_shared(a, b), work) for work, b in tracks if b is not a)[1] for _, a in tracks]
    assert np.mean([work == found for (work, _), found in zip(tracks, nearest, strict=True)]) > 0.9
    for family in families:
        facts = {(a.transpose, round(a.bpm), a.instruments, a.style) for a in family}
        assert len(facts) == len(family)


def test_a_short_tune_comes_round_and_a_long_one_is_cut_at_a_bar() -> None:
    short, long = _tune(n_bars=8), _tune(n_bars=16, repeats=30)
    for seed in range(20):
        assert 60 <= arrange(short, seed).duration_s <= 200
        assert 60 <= arrange(long, seed).duration_s <= 200


def test_a_single_section_longer_than_a_track_is_cut() -> None:
    assert all(60 <= arrange(_tune(n_bars=400), seed).duration_s <= 200 for seed in range(20))


def test_a_tune_without_chords_gets_a_drone() -> None:
    tune = _tune(n_bars=16)
    bare = Song(
        **{**vars(tune), "song_id": "bare", "sections": (Section("A", 64.0, tune.sections[0].melody, ()),)},
    )
    for manner in (AS_WRITTEN, *HARMONIES):
        harmony = Harmony(bare, manner, 2, np.random.default_rng(0))
        chords = harmony.chords(Passage(0, 8.0, 24.0, at=4.0, key=1))
        assert chords == [Chord(4.0, 16.0, 3, "5")], manner


@pytest.mark.parametrize("beats", [2, 3, 5, 7, 12])
def test_a_section_without_melody_and_any_metre_can_be_arranged(beats: int) -> None:
    melody = tuple(Note(float(i), 1.0, 60 + i % 5) for i in range(8 * beats))
    chords = (Chord(0.0, 8.0 * beats, 0),)
    sections = (Section("A", 8.0 * beats, melody, chords), Section("B", 8.0 * beats, (), chords))
    song = Song("s", "s", "test", 0, "major", beats, 100.0, sections, (0, 1, 0))
    for seed in range(6):
        arrangement = arrange(song, seed)
        assert any(part.role == "lead" for part in arrangement.parts)
        assert all(part.notes["onset_s"].max() < arrangement.duration_s for part in arrangement.parts)


def test_a_song_without_beats_is_refused() -> None:
    with pytest.raises(SongError, match="scale: a form without beats"):
        arrange(_tune(n_bars=0), 0)


def test_a_description_names_the_facts() -> None:
    arrangement = arrange(compose(0), 1)
    line = arrangement.describe()
    assert "\n" not in line
    assert f"{arrangement.transpose:+d} semitones" in line
    assert all(instrument in line for instrument in arrangement.instruments)


@pytest.mark.parametrize("beats", [2, 3, 4, 5, 6, 7, 9])
def test_every_style_fits_every_metre(beats: int) -> None:
    song = Song("m", "m", "test", 0, "major", beats, 100.0, (Section("A", float(beats), (), ()),), (0,))
    metre, rng = Metre.of(song), np.random.default_rng(0)
    for style in COMPING_STYLES:
        assert all(0 <= hit.beat < beats for hit in comping_bar(style, metre, rng)), style
    for style in BASS_STYLES:
        assert all(hit.beat >= 0 for hit in bass_bar(style, metre, rng)), style
    for style in DRUM_STYLES:
        assert all(0 <= beat < beats for beat, _, _ in drum_bar(style, metre, rng)), style


def test_triplets_make_a_beat_ternary() -> None:
    melody = tuple(Note(i / 3, 0.3, 60) for i in range(6))
    jig = Song("j", "j", "test", 0, "major", 2, 100.0, (Section("A", 2.0, melody, ()),), (0,))
    assert Metre.of(jig).step == pytest.approx(1 / 3)
    assert Metre.of(_tune(4)).step == 0.5


def test_accompaniment_sounds_the_chord_of_the_moment() -> None:
    chords = [Chord(0.0, 4.0, 0), Chord(4.0, 2.0, 7, "7"), Chord(6.0, 2.0, 9, "min")]
    metre, rng = Metre.of(_tune(4)), np.random.default_rng(1)
    for style in COMPING_STYLES:
        for event in play_pattern(comping_bar(style, metre, rng), chords, (0.0, 8.0), metre, 57.0):
            chord = next(c for c in reversed(chords) if c.onset <= event.onset + 1e-6)
            heard = {round(event.pitch) % 12}
            assert heard <= set(chord.pitch_classes), (style, event)


@pytest.mark.parametrize(("beats", "others"), [(4, {3, 6}), (3, {4}), (6, {4}), (2, {3}), (5, {5})])
def test_another_metre_keeps_the_order_of_notes_and_the_downbeats(beats: int, others: set[int]) -> None:
    melody = tuple(Note(i / 2, 0.5, 60 + i) for i in range(4 * beats))
    section = Section("A", 2.0 * beats, melody, (Chord(0.0, beats, 0), Chord(beats, beats, 7)))
    song = Song("s", "s", "test", 0, "major", beats, 100.0, (section,), (0,))
    remade = [in_other_metre(song, np.random.default_rng(seed)) for seed in range(20)]
    assert {other.beats_per_bar for other in remade} == others
    for other in remade:
        bar = other.beats_per_bar
        notes, chords = other.sections[0].melody, other.sections[0].chords
        assert [note.pitch for note in notes] == [note.pitch for note in melody]
        assert all(before.onset < after.onset for before, after in pairwise(notes))
        assert notes[2 * beats].onset == chords[1].onset == bar
        assert other.sections[0].n_beats == 2 * bar
        assert bar / other.bpm == pytest.approx(beats / song.bpm)


def test_the_parallel_mode_of_major_is_minor_and_back() -> None:
    section = Section(
        "A",
        8.0,
        tuple(Note(i, 1.0, p) for i, p in enumerate((60, 64, 65, 69, 71))),
        (Chord(0.0, 4.0, 9, "min"), Chord(4.0, 4.0, 0, "maj7")),
    )
    song = Song("s", "s", "test", 0, "major", 4, 100.0, (section,), (0,))
    minor = in_parallel_mode(song)
    assert minor.mode == "minor"
    assert [note.pitch for note in minor.sections[0].melody] == [60, 63, 65, 68, 70]
    assert [(chord.root, chord.quality) for chord in minor.sections[0].chords] == [(8, "maj"), (0, "min7")]
    assert in_parallel_mode(minor).sections[0].melody == section.melody
