"""A band's chords and melody are the song's, changed in ways that can be named."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bytecover2_milvus.songs.arrange.form import ENDINGS, LONGEST_S, Passage, draw_form
from bytecover2_milvus.songs.arrange.lead import Manner, deliver, echo, second_voice
from bytecover2_milvus.songs.arrange.medley import with_guest, with_vamp
from bytecover2_milvus.songs.arrange.patterns import Event, Metre
from bytecover2_milvus.songs.arrange.reharmonise import AS_WRITTEN, HARMONIES, Harmony
from bytecover2_milvus.songs.arrange.voicings import VOICINGS, voicing
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.score import Chord, Note

PLAIN = Manner(freedom=0, ornaments=0, glides=0, legato=1, back_phrasing=0)
MAJOR = [0, 2, 4, 5, 7, 9, 11]


def _scale_up_and_down() -> list[Note]:
    """Two phrases of four notes, each followed by a rest of four beats."""
    pitches = (60, 64, 67, 72, 71, 67, 65, 60)
    return [Note(float(i + 4 * (i // 4)), 1.0, pitch) for i, pitch in enumerate(pitches)]


@pytest.mark.parametrize("manner", [AS_WRITTEN, *HARMONIES])
def test_chords_fill_their_segment_in_every_manner(manner: str) -> None:
    for seed in range(20):
        song = compose(seed)
        harmony = Harmony(song, manner, 3, np.random.default_rng(seed))
        segment = Passage(0, 0.0, song.sections[0].n_beats, at=5.0)
        chords = harmony.chords(segment)
        assert chords[0].onset == 5.0
        assert chords[-1].onset + chords[-1].duration == pytest.approx(segment.end)
        for chord, following in pairwise(chords):
            assert chord.onset + chord.duration == pytest.approx(following.onset)
        match manner:
            case "power chords":
                assert {chord.quality for chord in chords} == {"5"}
            case "pedal":
                assert len({chord.bass for chord in chords}) == 1
            case "slowed":
                assert len(chords) <= np.ceil(segment.n_beats / (2 * song.beats_per_bar))
            case "as written":
                written = [(chord.root + 3) % 12 for chord in song.sections[0].chords]
                assert [chord.root for chord in chords] == written


def test_dominants_lead_to_the_chords_that_stay() -> None:
    song = compose(1)
    harmony = Harmony(song, "dominants", 0, np.random.default_rng(1))
    chords = harmony.chords(Passage(0, 0.0, song.sections[0].n_beats))
    written = song.sections[0].chords
    assert len(chords) > len(written)
    onsets = {chord.onset: chord.root for chord in chords}
    assert all(onsets[chord.onset] == chord.root for chord in written)


@pytest.mark.parametrize("kind", sorted(set(VOICINGS)))
@pytest.mark.parametrize("quality", ["maj", "min7", "dim7", "5"])
def test_a_voicing_holds_tones_of_its_chord_only(kind: str, quality: str) -> None:
    chord = Chord(0.0, 4.0, 7, quality)
    tones = voicing(chord, 57.0, kind)
    assert len(tones) >= 2
    assert tones == sorted(tones)
    assert {tone % 12 for tone in tones} <= set(chord.pitch_classes)


def test_a_guest_joins_the_form_and_the_song_stays() -> None:
    song = compose(4)
    medley = with_guest(song, np.random.default_rng(2))
    n_sections = len(song.sections)
    assert medley.sections[:n_sections] == song.sections
    assert [i for i in medley.form if i < n_sections] == list(song.form)
    assert any(i >= n_sections for i in medley.form)
    assert all(section.n_beats % song.beats_per_bar == 0 for section in medley.sections)
    assert medley == with_guest(song, np.random.default_rng(2))


def test_a_vamp_is_no_part_of_the_form() -> None:
    song = compose(4)
    vamped = with_vamp(song, Metre.of(song), np.random.default_rng(0))
    vamp = vamped.sections[-1]
    assert vamped.form == song.form
    assert sum(chord.duration for chord in vamp.chords) == vamp.n_beats
    assert all(note.onset + note.duration <= vamp.n_beats for note in vamp.melody)


def test_every_form_holds_the_song_and_ends_in_time() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        song = compose(seed % 20)
        metre = Metre.of(song)
        song = with_vamp(song, metre, rng)
        vamp = len(song.sections) - 1
        segments = draw_form(song, vamp, metre, song.bpm, ENDINGS[seed % len(ENDINGS)], True, seed / 99, rng)
        assert any(segment.kind == "sung" for segment in segments)
        assert all(segment.kind != "sung" for segment in segments if segment.section == vamp)
        assert all(0 <= segment.fullness <= 1 for segment in segments)
        assert all(a.end == pytest.approx(b.at) for a, b in pairwise(segments))
        ending_s = metre.beats * 60 / song.bpm  # a held last bar comes on top
        assert segments[-1].end * 60 / song.bpm <= LONGEST_S + ending_s + 1e-6


def test_a_band_without_liberty_plays_the_form_as_it_is() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        song = compose(seed)
        metre = Metre.of(song)
        song = with_vamp(song, metre, rng)
        segments = draw_form(song, len(song.sections) - 1, metre, song.bpm, "cold", True, 0.0, rng)
        played = [segment.section for segment in segments if segment.kind != "intro"]
        assert [*song.form * len(played)][: len(played)] == played, seed
        assert all(segment.key == 0 and segment.kind in ("intro", "sung") for segment in segments)


def test_a_plain_delivery_is_what_is_written() -> None:
    notes = _scale_up_and_down()
    events = deliver(notes, PLAIN, MAJOR, np.random.default_rng(0))
    assert [(event.onset, event.pitch) for event in events] == [(note.onset, note.pitch) for note in notes]


@pytest.mark.parametrize(
    ("habit", "value"),
    [("rephrasing", 1.0), ("omissions", 1.0), ("displacement", 1.0), ("blue", 1.0), ("speech", 0.0)],
)
def test_every_habit_is_heard(habit: str, value: float) -> None:
    notes = _scale_up_and_down()
    events = deliver(notes, Manner(**{**vars(PLAIN), habit: value}), MAJOR, np.random.default_rng(3))
    pitches = [event.pitch for event in events]
    assert all(before.onset < after.onset for before, after in pairwise(events))
    match habit:
        case "rephrasing":
            assert pitches == [note.pitch for note in notes]
            assert [event.onset for event in events] != [note.onset for note in notes]
        case "omissions":
            assert pitches == [60, 64, 67, 72]
        case "displacement":
            assert {abs(pitch - note.pitch) for pitch, note in zip(pitches, notes, strict=True)} == {12}
        case "blue":
            assert pitches == [60, 63, 67, 72, 70, 67, 65, 60]
        case "speech":
            assert len(set(pitches[:4])) == len(set(pitches[4:])) == 1


def test_an_echo_answers_in_the_rest() -> None:
    melody = deliver(_scale_up_and_down(), PLAIN, MAJOR, np.random.default_rng(0))
    answers = [answer for seed in range(5) for answer in echo(melody, np.random.default_rng(seed))]
    assert answers
    assert all(4 <= answer.onset < 8 for answer in answers)
    assert {answer.pitch for answer in answers} <= {event.pitch for event in melody[:4]}


def test_a_second_voice_keeps_the_rhythm() -> None:
    melody = [Event(0.0, 1.0, 60, 1.0), Event(1.0, 1.0, 64, 1.0)]
    heard = {kind: second_voice(melody, kind, MAJOR) for kind in ("unison", "octave below", "third above", "thirds")}
    assert all([event.onset for event in events] == [0.0, 1.0] for events in heard.values())
    assert {kind: [event.pitch for event in events] for kind, events in heard.items()} == {
        "unison": [60, 64],
        "octave below": [48, 52],
        "third above": [64, 67],
        "thirds": [57, 60],
    }
