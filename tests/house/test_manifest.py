"""What a manifest may say, and the line that is named when it says it wrongly."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from bytecover2_milvus.errors import ManifestError
from bytecover2_milvus.manifest import Track, read_manifest, tracks_in, write_manifest


def manifest(folder: Path, content: str | bytes, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def row_schema() -> dict[str, object]:
    return json.loads(resources.files("bytecover2_milvus.schemas").joinpath("manifest.schema.json").read_text("utf-8"))


def test_csv_with_the_required_columns(tmp_path: Path) -> None:
    tracks = read_manifest(manifest(tmp_path, "path,work_id\nlive/hello.mp3,w1\n/abs/hello.flac,\n"))
    assert tracks == [
        Track(tmp_path / "live" / "hello.mp3", track_id="live/hello", work_id="w1"),
        Track(Path("/abs/hello.flac"), track_id="/abs/hello", work_id=""),
    ]


def test_blanks_around_the_values_of_a_csv_are_not_part_of_them(tmp_path: Path) -> None:
    tracks = read_manifest(manifest(tmp_path, "path, work_id\na.wav, w1\nb.wav ,w1\n"))
    assert [(track.path.name, track.work_id) for track in tracks] == [("a.wav", "w1"), ("b.wav", "w1")]


def test_csv_with_every_column_in_any_order(tmp_path: Path) -> None:
    content = 'year,work_id,path,track_id,artist,title,split\n1967,w1,a.ogg,t1,"Ann, Bob","She said ""no""",test\n'
    (track,) = read_manifest(manifest(tmp_path, content))
    assert track == Track(
        tmp_path / "a.ogg",
        "t1",
        "w1",
        title='She said "no"',
        artist="Ann, Bob",
        split="test",
        metadata={"year": 1967},
    )


def test_json_lines_say_the_same_as_csv(tmp_path: Path) -> None:
    lines = [
        '{"path": "a.wav", "work_id": 1536, "title": "Föhn\\u2028", "plays": 3}',
        "",
        '{"work_id": null, "path": "b.wav"}',
    ]
    first, second = read_manifest(manifest(tmp_path, "\n".join(lines), "manifest.jsonl"))
    assert first == Track(tmp_path / "a.wav", "a", "1536", title="Föhn\u2028", metadata={"plays": 3})
    assert second == Track(tmp_path / "b.wav", "b", "")


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_accepted(tmp_path: Path) -> None:
    tracks = read_manifest(manifest(tmp_path, "\ufeffpath,work_id\r\na.wav,w1\r\n\r\nb.wav,w1\r\n"))
    assert [track.track_id for track in tracks] == ["a", "b"]


def test_tracks_that_differ_only_in_suffix_keep_it_in_their_id(tmp_path: Path) -> None:
    tracks = read_manifest(manifest(tmp_path, "path,work_id\na.wav,w\na.mp3,w\nb.c.mp3,w\n"))
    assert [track.track_id for track in tracks] == ["a.wav", "a.mp3", "b.c"]


def test_missing_audio_files_are_not_the_manifest_s_business(tmp_path: Path) -> None:
    assert len(read_manifest(manifest(tmp_path, "path,work_id\nnowhere.wav,w\n"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no tracks; write a row for each"),
        ("path,work_id\n", "no tracks"),
        ("path,title\na.wav,x\n", "line 1: no column work_id, only path, title;"),
        ("\npath,title\na.wav,x\n", "line 2: no column work_id, only path, title;"),
        (
            "path;work_id\na.wav;w\n",
            "line 1: no column path and no column work_id, only path;work_id; separate columns by",
        ),
        ("path,work_id,path\na,w,b\n", "line 1: column 'path' stands there 2 times; keep one"),
        ("path,work_id\na.wav,w\n,w\n", "line 3: column path is ''; name the audio file"),
        (
            "path,work_id\na.wav,w,x\n",
            "line 2: 3 fields under a header of 2; put values that hold a comma in double quotes",
        ),
        ("path,work_id\na.wav\n", "line 2: 1 fields under a header of 2"),
        ('path,work_id\n"a.wav,w\n', r"line 2: not CSV \(unexpected end of data\); check the quotes"),
        (
            "path,work_id,track_id\na,w,t\nb,w,u\nc,w,t\n",
            r"line 4: track_id 't' is taken \(.*, line 2\); give each track",
        ),
        ("path,work_id\na.wav,w\na.wav,v\n", r"line 3: a.wav is listed already \(.*, line 2\); delete one"),
        (b"path,work_id\nf\xfchn.wav,w\n", "not UTF-8 at byte 14; save it as UTF-8"),
        ('{"path": "a.wav"}\n', "line 1: no column work_id, only path"),
        ('{"path": "a.wav", "work_id": "w"}\n{"path": \n', "line 2, character 10: not JSON"),
        ('{"path": "a.wav", "work_id": "w"}\n"b.wav"\n', "line 2: str where an object is needed"),
        ('[{"path": "a.wav", "work_id": "w"}]', "line 1: list where an object is needed; write one object per line"),
        ('{"path": "a.wav", "work_id": ["w"]}', r"line 1: column work_id is \['w'\]; give text or a whole number"),
        ('{"path": "", "work_id": "w"}', "line 1: column path is ''"),
        (
            f'{{"path": "a", "x": {"[" * 9000}{"]" * 9000}}}',
            r"line 1, character 119: not JSON \(lists or objects more than",
        ),
        (f'\n{{"path": "a", "x": {"9" * 5000}}}', r"line 2, character 20: not JSON \(a number of 5000 digits\)"),
        ('{"path": "a", "work_id": "w", "path": "b"}', r"line 1, character 31: not JSON \(column 'path' twice\)"),
        ('{"path": "a", "work_id": "w", "title": [[[]]]}', r"line 1: column title is \[\[\[\]\]\]; give text"),
    ],
)
def test_a_wrong_manifest_is_refused_by_line_and_reason(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(manifest(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / "manifest.csv"))
    assert "\n" not in str(caught.value)


TYPED = """path,work_id,title,year,isrc,tempo,side,empty
a.wav,w,1999,1850,007,120,A,
b.wav,w,,,123,119.5,2,
c.wav,w,x,-3,0,1.5e-3,B,
"""


def test_columns_of_numbers_are_numbers(tmp_path: Path) -> None:
    first, second, third = read_manifest(manifest(tmp_path, TYPED))
    assert first.title == "1999"
    assert first.metadata == {"year": 1850, "isrc": "007", "tempo": 120, "side": "A", "empty": ""}
    assert second.metadata == {"isrc": "123", "tempo": 119.5, "side": "2", "empty": ""}
    assert third.metadata == {"year": -3, "isrc": "0", "tempo": 0.0015, "side": "B", "empty": ""}
    assert isinstance(first.metadata["year"], int)


def test_a_column_is_of_the_type_that_is_asked_for(tmp_path: Path) -> None:
    path = manifest(tmp_path, TYPED)
    first, second, _ = read_manifest(path, {"year": "text", "tempo": "number"})
    assert (first.metadata["year"], second.metadata["year"], first.metadata["tempo"]) == ("1850", "", 120)
    with pytest.raises(ManifestError, match=r"line 2: column isrc is '007', not a number"):
        read_manifest(path, {"isrc": "number"})
    with pytest.raises(ManifestError, match="no column 'key' of your own to give a type; there are: year, isrc, tempo"):
        read_manifest(path, {"key": "number"})


def test_what_only_looks_large_in_json_is_read(tmp_path: Path) -> None:
    digits, brackets = "9" * 5000, "[" * 5000
    content = f'{{"path": "a", "work_id": "w", "x": "{digits} \\"{brackets}", "y": {2**70}}}'
    (track,) = read_manifest(manifest(tmp_path, content))
    assert track.metadata == {"x": f'{digits} "{brackets}', "y": 2**70}


def test_an_endless_manifest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bytecover2_milvus.manifest.MAX_BYTES", 1000)
    with pytest.raises(ManifestError, match="/dev/zero: more than 1,000 bytes; split it"):
        read_manifest("/dev/zero")


def test_a_missing_manifest_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file or directory; check the path"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="Is a directory"):
        read_manifest(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tracks = [
        Track(tmp_path / "a b" / "ü,\"'.flac", "t1", "w1", "title,", "artist", "test", {"year": 1967}),
        Track(Path("/elsewhere/b.wav"), "t2", "", metadata={"key": "C"}),
    ]
    write_manifest(tracks, tmp_path / "manifest.csv")
    first, second = read_manifest(tmp_path / "manifest.csv")
    assert first == Track(**{**vars(tracks[0]), "metadata": {"year": 1967, "key": ""}})
    assert second == tracks[1]
    assert "a b/" in (tmp_path / "manifest.csv").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "manifest.csv").read_text(encoding="utf-8")  # the folder can be moved


def test_a_relative_path_still_names_the_same_file_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    write_manifest([Track(Path("audio/a.wav"), "a")], Path("lists/manifest.csv"))
    assert read_manifest("lists/manifest.csv")[0].path == tmp_path / "audio" / "a.wav"


def test_an_unwritable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone.manifest\.csv: No such file"):
        write_manifest([], tmp_path / "gone" / "manifest.csv")


def test_a_folder_as_tracks_of_unknown_works(tmp_path: Path) -> None:
    for name in ("pop/Hello.mp3", "pop/live/Hello.mp3", "jazz.v2.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert tracks_in([tmp_path]) == [
        Track(tmp_path / "jazz.v2.wav", "jazz.v2", title="jazz.v2"),
        Track(tmp_path / "pop" / "Hello.mp3", "pop/Hello", title="Hello"),
        Track(tmp_path / "pop" / "live" / "Hello.mp3", "pop/live/Hello", title="Hello"),
    ]
    assert not any(track.named for track in tracks_in([tmp_path]))
    for name in ("pop/Hello.mp3", "rock.mp3"):  # what is not there too, so that it fails alone
        path = tmp_path / name
        assert tracks_in([path]) == [Track(path, path.stem, title=path.stem)]


def test_files_of_one_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    for name in ("a/1.mp3", "a/2.wav", "b/1.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ids = [track.track_id for track in tracks_in([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "1.mp3"])]
    assert ids == [f"{tmp_path.as_posix()}/a/1.mp3", "2", f"{tmp_path.as_posix()}/b/1.mp3"]


@pytest.mark.parametrize(
    ("row", "valid"),
    [
        ({"path": "a.wav", "work_id": "w"}, True),
        ({"path": "a.wav", "work_id": 7, "title": None, "mood": {"calm": True}}, True),
        ({"path": "a.wav", "work_id": None}, True),
        ({"path": "a.wav"}, False),
        ({"work_id": "w"}, False),
        ({"path": "", "work_id": "w"}, False),
        ({"path": "a.wav", "work_id": 1.5}, False),
        ({"path": "a.wav", "work_id": "w", "title": True}, False),
        ({"path": "a.wav", "work_id": "w", "track_id": []}, False),
    ],
)
def test_schema_and_reader_agree_on_a_row(tmp_path: Path, row: dict[str, object], valid: bool) -> None:
    assert jsonschema.Draft202012Validator(row_schema()).is_valid(row) == valid
    path = manifest(tmp_path, json.dumps(row))
    if valid:
        assert len(read_manifest(path)) == 1
    else:
        with pytest.raises(ManifestError):
            read_manifest(path)


def test_a_written_manifest_is_valid_against_the_schema(tmp_path: Path) -> None:
    write_manifest([Track(tmp_path / "a.wav", "a", "w")], tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    jsonschema.Draft202012Validator.check_schema(row_schema())
    jsonschema.validate(rows[0], row_schema())


@pytest.mark.parametrize("path", ["a\\u0000.wav", "\\ud800.wav"])
def test_what_no_file_can_be_called_is_refused(tmp_path, path):
    content = f'{{"path": "{path}", "work_id": "w"}}\n'
    with pytest.raises(ManifestError, match=r"manifest.jsonl, line 1: column path is .* which no file can be called"):
        read_manifest(manifest(tmp_path, content, "manifest.jsonl"))


class TestSplit:
    ROWS = "path,work_id,split\na.wav,w1,train\nb.wav,w1,test\nc.wav,w2,train\nd.wav,w2,\n"

    def test_is_named_behind_the_manifest(self, tmp_path):
        path = manifest(tmp_path, self.ROWS)
        assert [track.path.name for track in read_manifest(f"{path}@train")] == ["a.wav", "c.wav"]
        assert [track.path.name for track in read_manifest(f"{path}@test")] == ["b.wav"]
        assert len(read_manifest(path)) == 4

    def test_that_is_not_there_is_refused_with_those_that_are(self, tmp_path):
        with pytest.raises(ManifestError, match=r"manifest.csv: no track of the split dev; .*: test, train$"):
            read_manifest(f"{manifest(tmp_path, self.ROWS)}@dev")
        without = manifest(tmp_path, "path,work_id\na.wav,w1\n", "without.csv")
        with pytest.raises(ManifestError, match=r"split dev; .*: none$"):
            read_manifest(f"{without}@dev")

    def test_a_file_of_that_name_is_a_file(self, tmp_path):
        assert len(read_manifest(manifest(tmp_path, self.ROWS, "covers@train"))) == 4


def test_roles_are_read_written_and_checked(tmp_path: Path) -> None:
    tracks = read_manifest(manifest(tmp_path, "path,work_id,role\na.wav,w,query\nb.wav,w,gallery\nc.wav,w,\n"))
    assert [track.role for track in tracks] == ["query", "gallery", ""]
    write_manifest(tracks, tmp_path / "again.csv")
    assert read_manifest(tmp_path / "again.csv") == tracks
    with pytest.raises(ManifestError, match="line 2: column role is 'noise'; it is query, gallery or empty"):
        read_manifest(manifest(tmp_path, "path,work_id,role\na.wav,w,noise\n"))
