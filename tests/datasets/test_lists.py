"""Lists of data sets as they are published: their counts, their leaks, and the line that is not of their form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bytecover2_milvus.datasets.dataset import DataSet, find_tracks
from bytecover2_milvus.datasets.readers import read_data_set
from bytecover2_milvus.errors import ManifestError


def written(folder: Path, **files: str) -> Path:
    """`folder` with text files; two underscores of a name are a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def refused(name: str, folder: Path, *words: str, protocol: str = "") -> None:
    with pytest.raises(ManifestError) as error:
        read_data_set(name, folder, protocol=protocol)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def works(data_set: DataSet) -> list[tuple[str, str, str]]:
    return [(track.work_id, track.track_id, track.role) for track in data_set.tracks]


def test_covers80_pairs_the_lines_of_two_lists(tmp_path):
    folder = written(tmp_path, list1__list="A/one\nB/one\n", list2__list="A/two.mp3\nB/two\n")
    expected = [("A", "A/one", ""), ("A", "A/two", ""), ("B", "B/one", ""), ("B", "B/two", "")]
    all_against_all = read_data_set("covers80", folder)
    assert works(all_against_all) == expected
    assert any("4 tracks of 2 works; the published ones 160 of 80" in fact for fact in all_against_all.facts)
    halves = read_data_set("covers80", folder, protocol="80x80")
    assert works(halves) == [(*row[:2], role) for row, role in zip(expected, ["query", "gallery"] * 2, strict=True)]


def test_covers80_of_the_published_size_has_nothing_to_say(tmp_path):
    halves = ["".join(f"Work{i}/{half}\n" for i in range(80)) for half in ("a", "b")]
    data_set = read_data_set("covers80", written(tmp_path, list1__list=halves[0], list2__list=halves[1]))
    assert data_set.title == "Covers80, 160 x 160" and data_set.facts == ()


def test_covers80_in_the_forms_of_other_programs(tmp_path):
    by_csv = written(tmp_path / "csv", covers80__csv="work_id,track_id\nClaudette,everly+01-Claudette\n")
    assert read_data_set("covers80", by_csv).tracks[0].names == ("Claudette/everly+01-Claudette", "everly+01-Claudette")
    row = {"utt": "u1", "wav": "wavs/Claudette/a.wav", "dur_s": 3.0, "song": "Claudette", "version": "a"}
    rows = json.dumps(row) + "\n" + json.dumps({"perf": "u2", "wav": "b.wav", "work": "Claudette"}) + "\n"
    by_json = read_data_set("covers80", written(tmp_path / "json", covers80__txt=rows))
    assert works(by_json) == [("Claudette", "u1", ""), ("Claudette", "u2", "")]
    assert by_json.tracks[0].names == ("wavs/Claudette/a", "a")


def test_shs100k_says_which_division_it_is_and_what_leaks(tmp_path):
    test = "".join(f"{9000 + i % 1692}_{i}\n" for i in range(10_547))
    folder = written(
        tmp_path,
        **{
            "list": "1536\t2\tYesterday\tRay Charles\thttps://example.org\t1\n",
            "SHS100K-TRAIN": "1536\t2\n5982\t0\n",
            "SHS100K-VAL": "5982\t1\n8110\t0\n",
            "SHS100K-TEST": test,
        },
    )
    data_set = read_data_set("shs100k", folder)
    assert data_set.tracks[0].title == "Yesterday" and data_set.tracks[0].artist == "Ray Charles"
    told = "\n".join(data_set.facts)
    assert "test has 10547 tracks of 1692 works: the usual division" in told
    assert "train has 2 tracks of 2 works: no published division" in told
    assert "leak: 1 works stand in several splits: 5982 (train and val)" in told
    assert "10550 tracks of the splits are not in list" in told


def test_the_other_test_set_of_shs100k_is_called_so(tmp_path):
    lines = "".join(f"{i % 116}\t{i}\n" for i in range(2_983))
    (fact,) = read_data_set("shs100k", written(tmp_path, **{"SHS100K-TEST": lines})).facts
    assert "not to be compared" in fact


def test_singletons_of_datacos_are_gallery_only(tmp_path):
    benchmark = {"W_1": {"P_1": {"perf_title": "Hello", "perf_artist": "Adele"}, "P_2": {}}, "W_2": {"P_3": {}}}
    name = "da-tacos_benchmark_subset_metadata__json"
    data_set = read_data_set("datacos", written(tmp_path / "json", **{name: json.dumps(benchmark)}))
    assert works(data_set) == [("W_1", "P_1", ""), ("W_1", "P_2", ""), ("W_2", "P_3", "gallery")]
    assert (data_set.tracks[0].title, data_set.tracks[0].artist) == ("Hello", "Adele")
    assert "1 works with covers, 1 tracks without; the published benchmark has 15000" in data_set.facts[0]
    rows = "work_id,track_id\nW_1,P_1\nW_1,P_2\nW_2,P_3\n"
    assert works(
        read_data_set("datacos", written(tmp_path / "csv", da_tacos__csv=rows), [tmp_path / "csv/da_tacos.csv"])
    )


def test_discogs_vi_in_both_forms(tmp_path):
    video = {"url": "https://www.youtube.com/watch?v=abcdefghi-_", "source": "x"}
    played = {"title": "Hello", "artists": [{"name": "Adele"}]}
    clique = {"clique_id": "C-1", "versions": [{"version_id": "V-1", "tracks": [played], "youtube_video": [video]}]}
    full = read_data_set("discogs-vi", written(tmp_path / "full", **{"Discogs-VI-2024__jsonl": json.dumps(clique)}))
    (track,) = full.tracks
    assert (track.names, track.title, track.artist) == (("abcdefghi-_", "V-1"), "Hello", "Adele")
    one, two = ({"C-1": [{"version_id": f"V-{n}", "youtube_id": f"y{n}"} for n in names]} for names in ("ab", "c"))
    light = written(
        tmp_path / "light",
        **{"Discogs-VI-YT-light__json__train": json.dumps(one), "Discogs-VI-YT-light__json__test": json.dumps(two)},
    )
    data_set = read_data_set("discogs-vi", light)
    assert [track.split for track in data_set.tracks] == ["train", "train", "test"]
    assert data_set.facts[1] == "leak: 1 works stand in several splits: C-1 (train and test)"


def test_a_folder_of_another_data_set_is_named(tmp_path):
    written(tmp_path, **{"SHS100K-TEST": "1\t2\n"})
    refused("covers80", tmp_path, "no lists of covers80", "it looks like shs100k")
    refused("covers80", tmp_path / "gone", "no folder")
    refused("covers81", tmp_path, "covers80, shs100k, datacos, discogs-vi and mirdata:NAME")
    refused("shs100k", tmp_path, "no protocol '80x80'", protocol="80x80")


def test_two_versions_of_a_list_are_counted(tmp_path):
    written(tmp_path, **{"a/SHS100K-TEST": "1\t2\n", "b/SHS100K-TEST": "1\t2\n1\t3\n"})
    refused("shs100k", tmp_path, "2 versions of SHS100K-TEST", "(1 lines)", "(2 lines)", "--list")
    assert len(read_data_set("shs100k", tmp_path, [tmp_path / "b" / "SHS100K-TEST"]).tracks) == 2


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("covers80", {"list1__list": "A/one\n", "list2__list": "A/two\nB/two\n"}, ("1 lines", "2", "two versions")),
        ("covers80", {"list1__list": "A/one\n", "list2__list": "B/two\n"}, ("line 1", "B beside A")),
        ("covers80", {"list1__list": "A/one\n"}, ("one is missing",)),
        ("covers80", {"list1__list": "one\n", "list2__list": "two\n"}, ("line 1", "Work/track")),
        ("covers80", {"covers80__json": "[1]\n"}, ("line 1", "not of the form")),
        ("shs100k", {"SHS100K-VAL": "1\t2\nx\n"}, ("line 2", "set_id<TAB>ver_id")),
        ("shs100k", {"list": "1\t2\n"}, ("line 1", "performer")),
        ("shs100k", {"SHS100K-VAL": "1\t2\n", "SHS100K-TEST": "1_2\n"}, ("1_2", "val and test")),
        ("shs100k", {"SHS100K-VAL": ""}, ("no tracks",)),
        ("datacos", {"da-tacos__json": "{"}, ("not of the form",)),
        ("datacos", {"da-tacos__csv": "W_1,P_1\nW_1\n"}, ("line 2", "W_163930")),
        ("discogs-vi", {"discogs-vi__json": '{"C-1": [{"youtube_id": "x"}]}'}, ("C-1", "version_id")),
        ("discogs-vi", {"discogs-vi__json": "[]"}, ("not of the form",)),
    ],
)
def test_a_list_that_is_not_of_its_form_is_refused_in_one_line(tmp_path, name, files, words):
    refused(name, written(tmp_path, **files), *words)


def test_files_are_found_in_folders_of_any_depth_and_the_missing_are_counted(tmp_path):
    folder = written(tmp_path, **{"SHS100K-TEST": "1_0\n1_1\n2_0\n2_1\n", "SHS100K-VAL": "3_0\n"})
    written(folder, **{"audio/1/1_0__mp3": "", "audio/1/1_1__flac": "", "2_0__wav": "", "copy/2_0__wav": ""})
    found = find_tracks(read_data_set("shs100k", folder), folder)
    assert [track.track_id for track in found.tracks] == ["1_0", "1_1", "2_0"]
    assert "val: 0 of 1 tracks, 0 of 1 works, 0 queries" in found.facts
    assert "test: 3 of 4 tracks, 2 of 2 works, 2 queries" in found.facts
    assert "missing: 2 of 5 tracks, such as 3_0" in found.facts
    assert "1 tracks have several files of their name; the first of each is taken" in found.facts


def test_a_video_of_two_versions_is_one_track(tmp_path):
    versions = [{"version_id": f"V-{n}", "youtube_id": "same"} for n in "ab"]
    folder = written(tmp_path, **{"discogs-vi__json": json.dumps({"C": versions}), "same__mp3": ""})
    found = find_tracks(read_data_set("discogs-vi", folder), folder)
    assert len(found.tracks) == 1 and "left out: 1 tracks" in found.facts[-1]


def test_no_audio_at_all_is_an_error(tmp_path):
    folder = written(tmp_path, **{"SHS100K-TEST": "1_0\n1_1\n"})
    with pytest.raises(ManifestError, match=r"no audio file of any of the 2 tracks of SHS100K.* such as 1_0"):
        find_tracks(read_data_set("shs100k", folder), folder)
