"""Lead sheets bring their chords and repeats, and a manifest of scores says which of them are one work."""

from __future__ import annotations

import csv
import subprocess
import sys
import zipfile
from pathlib import Path

import mido
import pytest
from written_scores import TICKS, TUNE, melody, musicxml_note, write_midi

from bytecover2_milvus.errors import ManifestError, SongError, TrainingError
from bytecover2_milvus.songs.read.midi import name_chord
from bytecover2_milvus.songs.read.repeats import Bar, playing_order
from bytecover2_milvus.songs.readers import read_song
from bytecover2_milvus.songs.score import Song
from bytecover2_milvus.songs.select import select_songs
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.start import check_disjoint


def harmony(root: str, kind: str, alter: int = 0, bass: str = "") -> str:
    below = f"<bass><bass-step>{bass}</bass-step></bass>" if bass else ""
    sharp = f"<root-alter>{alter}</root-alter>" if alter else ""
    return f"<harmony><root><root-step>{root}</root-step>{sharp}</root><kind text='?'>{kind}</kind>{below}</harmony>"


def write_lead_sheet(path: Path, *bars: str) -> Path:
    """Bars of four quarters as a compressed score."""
    head = "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    music = "".join(f'<measure number="{n}">{"" if n > 1 else head}{bar}</measure>' for n, bar in enumerate(bars, 1))
    parts = '<part-list><score-part id="P1"><part-name>Lead</part-name></score-part></part-list>'
    score = f'<score-partwise version="3.1">{parts}<part id="P1">{music}</part></score-partwise>'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="song.xml"/></container>')
        archive.writestr("song.xml", score)
    return path


def bar(*pitches: int) -> str:
    return "".join(map(musicxml_note, pitches))


def played_chords(song: Song) -> list[tuple[int, str, int | None]]:
    return [(c.root, c.quality, c.bass) for i in song.form for c in song.sections[i].chords]


def test_chord_symbols_are_the_chords(tmp_path: Path) -> None:
    sheet = write_lead_sheet(
        tmp_path / "song.mxl",
        harmony("C", "major") + bar(60, 64, 67, 64),
        harmony("F", "minor-sixth", alter=1) + bar(60, 65, 69, 65),
        harmony("G", "dominant-ninth", bass="B") + bar(67, 65, 62, 59),
        harmony("N", "none") + harmony("A", "half-diminished") + bar(60, 60, 60, 60),
    )
    assert played_chords(read_song(sheet)) == [(0, "maj", None), (6, "min6", None), (7, "7", 11), (9, "min7b5", None)]


def test_few_chord_symbols_are_no_harmony(tmp_path: Path) -> None:
    bars = [bar(60, 64, 67, 64), bar(67, 65, 62, 59)] * 5
    sheet = write_lead_sheet(tmp_path / "song.mxl", harmony("A", "augmented") + bars[0], *bars[1:])
    assert (9, "aug", None) not in played_chords(read_song(sheet))


def test_repeats_and_endings_are_played(tmp_path: Path) -> None:
    first = '<barline location="left"><ending number="1" type="start"/></barline>'
    again = '<barline><ending number="1" type="stop"/><repeat direction="backward"/></barline>'
    second = '<barline location="left"><ending number="2" type="start"/></barline>'
    song = read_song(
        write_lead_sheet(
            tmp_path / "song.mxl",
            '<barline location="left"><repeat direction="forward"/></barline>' + bar(60, 60, 62, 62),
            first + bar(64, 64, 65, 65) + again,
            second + bar(67, 67, 69, 69) + '<barline><ending number="2" type="stop"/></barline>',
            bar(72, 72, 71, 71),
        )
    )
    bars = [[60, 60, 62, 62], [64, 64, 65, 65], [60, 60, 62, 62], [67, 67, 69, 69], [72, 72, 71, 71]]
    assert melody(song) == [pitch for pitches in bars for pitch in pitches]


def test_a_repeat_back_over_a_change_of_metre_keeps_each_bar_as_long_as_it_was(tmp_path: Path) -> None:
    three = "<attributes><time><beats>3</beats><beat-type>4</beat-type></time></attributes>"
    song = read_song(
        write_lead_sheet(
            tmp_path / "song.mxl",
            *[bar(60, 62, 64, 65)] * 3,
            three + bar(67, 65, 64) + '<barline><repeat direction="backward"/></barline>',
            "<attributes><time><beats>4</beats><beat-type>4</beat-type></time></attributes>" + bar(60, 60, 60, 60),
        )
    )
    assert len(melody(song)) == 2 * (3 * 4 + 3) + 4


@pytest.mark.parametrize(
    ("bars", "order"),
    [
        ([Bar(), Bar()], [0, 1]),
        ([Bar(), Bar(turns=2), Bar()], [0, 1, 0, 1, 2]),
        ([Bar(), Bar(opens=True), Bar(turns=3), Bar()], [0, 1, 2, 1, 2, 1, 2, 3]),
        ([Bar(turns=2), Bar(turns=2)], [0, 0, 1, 1]),
        (  # a verse with three endings, of which the first serves twice
            [Bar(), Bar(turns=2, endings=frozenset({1, 2})), Bar(endings=frozenset({3})), Bar()],
            [0, 1, 0, 1, 0, 2, 3],
        ),
        (  # both endings of a second repeat, which no sign opens
            [
                *[Bar(), Bar(turns=2, endings=frozenset({1})), Bar(endings=frozenset({2}))],
                *[Bar(), Bar(turns=2, endings=frozenset({1})), Bar(turns=2, endings=frozenset({2}))],
            ],
            [0, 1, 0, 2, 3, 4, 3, 5],
        ),
    ],
)
def test_the_order_of_bars(bars: list[Bar], order: list[int]) -> None:
    assert playing_order(bars) == order


def test_repeats_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 5000 bars"):
        playing_order([Bar(turns=12)] * 500)


@pytest.mark.parametrize(
    ("pitches", "chord"),
    [
        ([48, 64, 67, 72], (0, "maj", None)),
        ([52, 60, 67], (0, "maj", 4)),
        ([55, 59, 62, 65, 69], (7, "7", None)),  # a ninth: the chord without it
        ([57, 60, 64, 67], (9, "min7", None)),  # not C6, which has the same tones
        ([60, 64, 67, 69], (0, "6", None)),
        ([60, 72, 67], None),
    ],
)
def test_the_name_of_a_chord(pitches: list[int], chord: tuple[int, str, int | None] | None) -> None:
    assert name_chord(pitches) == chord


def test_a_track_of_block_chords_gives_the_chords(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "song.mid", names=("Bass", "MELODY"))
    file = mido.MidiFile(path)
    track = mido.MidiTrack([mido.MetaMessage("track_name", name="CHORDS")])
    for chord in [(57, 60, 64), (50, 53, 57, 60)] * 4:
        track += [mido.Message("note_on", note=pitch, velocity=70, time=0) for pitch in chord]
        track += [
            mido.Message("note_off", note=pitch, velocity=0, time=0 if i else 4 * TICKS)
            for i, pitch in enumerate(chord)
        ]
    file.tracks.append(track)
    file.save(path)
    assert played_chords(read_song(path)) == [(9, "min", None), (2, "min7", None)] * 4


@pytest.fixture
def works(tmp_path: Path) -> Path:
    for name in ("one", "other", "alone", "late"):
        (tmp_path / name).mkdir()
        write_midi(tmp_path / name / "tune.mid")
    rows = ["one/tune.mid,the-tune,train", "other/tune.mid,the-tune,train", "alone/tune.mid,,train"]
    path = tmp_path / "works.csv"
    path.write_text("\n".join(["path,work_id,split", *rows, "late/tune.mid,the-tune,validation"]))
    return path


def test_versions_of_a_tune_are_one_work(works: Path) -> None:
    songs = select_songs(f"{works}@train", works.parent / "cache")
    assert [(song.song_id, song.work_id) for song in songs] == [
        ("one-tune", "the-tune"),
        ("other-tune", "the-tune"),
        ("alone-tune", "alone-tune"),
    ]
    corpus = Corpus.of_songs(songs, 2)
    assert [track.track_id for track in corpus.works["the-tune"]] == [
        *["one-tune/0", "one-tune/1", "other-tune/0", "other-tune/1"]
    ]
    assert len(corpus.works["alone-tune"]) == 2
    assert Song.from_json(songs[0].to_json()) == songs[0]


def test_a_work_is_not_trained_and_validated_on_in_two_versions(works: Path) -> None:
    held_out = Corpus.of_songs(select_songs(f"{works}@validation"), 2)
    with pytest.raises(TrainingError, match="the-tune: a work to train on and to validate on"):
        check_disjoint(Corpus.of_songs(select_songs(f"{works}@train"), 2), held_out)
    check_disjoint(Corpus.of_songs(select_songs(f"{works}@train")[2:], 2), held_out)


def test_a_manifest_of_scores_says_what_is_wrong(works: Path) -> None:
    with pytest.raises(ManifestError, match="no track of the split test"):
        select_songs(f"{works}@test")
    works.write_text("path,group\none/tune.mid,a\n")
    with pytest.raises(ManifestError, match="no column work_id"):
        select_songs(str(works))
    works.write_text("path,work_id\nnone.mid,a\n")
    with pytest.raises(SongError, match="no song there"):
        select_songs(str(works))


def test_the_recipe_keeps_what_belongs_together_on_one_side(tmp_path: Path) -> None:
    folders = ("leadsheets", "carols", "variants/v1", "variants/v2", "cre")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    names = ["carols/adeste.mid", "carols/lullaby.mid", "leadsheets/lullaby.mid", "leadsheets/own.mid"]
    names += [f"variants/v{n}/{name}.mid" for n in (1, 2) for name in "ab"] + ["cre/reel.mid", "cre/copy.mid"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(TUNE))  # not opened
    (tmp_path / "variants/index.csv").write_text(
        "group,path,cre_id,related_cre\nv1,v1/a.mid,,reel\nv1,v1/b.mid,,\nv2,v2/a.mid,copy,\nv2,v2/b.mid,,\n"
    )
    (tmp_path / "same_tune.csv").write_text("group,path\nt1,carols/lullaby.mid\nt1,leadsheets/lullaby.mid\n")
    (tmp_path / "same_as_builtin.csv").write_text("builtin_song,path\nadeste-fideles,carols/adeste.mid\n")
    recipe = Path(__file__).parents[2] / "recipes" / "works.py"
    out = tmp_path / "works.csv"
    subprocess.run([sys.executable, recipe, tmp_path, out], check=True, capture_output=True)
    with out.open(newline="") as file:
        rows = {row["track_id"]: (row["work_id"], row["split"]) for row in csv.DictReader(file)}
    assert rows["carols/adeste"] == ("adeste-fideles", "held out")
    assert rows["carols/lullaby"] == rows["leadsheets/lullaby"] == ("t1", "validation")
    assert rows["leadsheets/own"] == ("", "train")
    assert rows["variants/v1/a"] == rows["variants/v1/b"] == ("v1", "validation")
    assert rows["cre/reel"] == ("", "held out")  # more like v1 than by chance
    assert rows["cre/copy"] == ("v2", "held out") and rows["variants/v2/a"] == ("v2", "validation")
