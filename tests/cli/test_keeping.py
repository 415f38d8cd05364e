"""A catalogue that is kept current from the command line: real files, a real bundle, Milvus Lite."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from audio_files import write_melody
from click.testing import CliRunner, Result

from bytecover2_milvus.cli import main
from bytecover2_milvus.errors import CollectionLocked
from bytecover2_milvus.ingest.watch import Watch
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.milvus.read_only import stand_in


@pytest.fixture
def music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three files, one of them cut off, beside which commands run; temporary files go beside it, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    folder = tmp_path / "music"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_melody(folder / f"{name}.wav", seed, 6.0)
    whole = (folder / "c.wav").read_bytes()
    (folder / "c.wav").write_bytes(whole[:150_000])
    return folder


@pytest.fixture
def call(tmp_path: Path, tiny_bundle: Path):
    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        options = ["--uri", str(tmp_path / "c.db")]
        options += [] if arguments[0] == "collections" else ["--bundle", str(tiny_bundle)]
        options += ["--workers", "0"] if arguments[0] == "ingest" else []
        result = CliRunner().invoke(main, [*map(str, arguments), *options], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_tracks_are_pruned_when_their_file_is_gone_and_their_folder_is_not(call, music: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_melody(other / "d.wav", 7, 6.0)
    assert call("ingest", music, other).exit_code == 0
    (music / "a.wav").unlink()
    (other / "d.wav").rename(tmp_path / "d.wav")

    asked = call("ingest", music, "--prune", stdin=b"n\n")
    assert asked.exit_code == 1 and f"gone: {music / 'a.wav'}\nDelete 1 tracks" in asked.stderr  # not d: another folder
    assert "nobody there to ask" in call("ingest", music, "--prune").stderr
    assert "1 tracks pruned, 1 rows" in call("ingest", music, "--prune", "--yes").stderr
    assert "no stored track has lost its file" in call("ingest", music, "--prune", "--yes").stderr

    # A folder that holds nothing, or is not there, looks like a share that is not mounted.
    empty = call("ingest", music, other, "--prune", "--yes")
    assert f"nothing is pruned there: no audio files in {other}" in empty.stderr and "3 rows" in empty.stderr
    other.rmdir()
    missing = call("ingest", music, other, "--prune", "--yes")
    assert missing.exit_code == 1 and "3 rows" in missing.stderr
    assert missing.stderr.count("nothing is pruned") == 1 and f"{other} is not there" in missing.stderr


def test_a_manifest_prunes_what_it_names_unless_all_of_it_is_gone(call, music: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,work_id\nmusic/a.wav,\nmusic/b.wav,\n")
    assert call("ingest", music).exit_code == 0
    for name in "ac":  # c is not in the manifest
        (music / f"{name}.wav").unlink()
    assert "1 tracks pruned" in call("ingest", "--manifest", "m.csv", "--prune", "--yes").stderr
    (music / "b.wav").unlink()
    gone = call("ingest", "--manifest", "m.csv", "--prune", "--yes")
    assert "none of the files that are named is there" in gone.stderr and "2 rows" in gone.stderr


def test_damage_is_counted_and_listed_until_it_is_mended(call, music: Path) -> None:
    call("ingest", music)
    (line,) = call("collections", "problems", "tracks", "--json").stdout.splitlines()
    form = json.loads(files("bytecover2_milvus.schemas").joinpath("problem.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(line), form)
    assert json.loads(line)["path"] == str(music / "c.wav")
    _, row = call("collections", "problems", "tracks").stdout.splitlines()
    assert row.split()[0] == "c" and "  cut off or damaged, decoded 3.4 s of 6.0 s" in row
    (table,) = csv.DictReader(call("collections", "problems", "tracks", "--format", "csv").stdout.splitlines())
    assert table["track_id"] == "c"
    assert json.loads(call("collections", "describe", "tracks", "--json").stdout)["warnings"] == 1
    write_melody(music / "c.wav", 2, 6.0)
    call("ingest", music)
    nothing = call("collections", "problems", "tracks")
    assert nothing.stdout == "" and nothing.stderr == "0 tracks of tracks with a warning\n"
    assert json.loads(call("collections", "describe", "tracks", "--json").stdout)["warnings"] == 0


def test_lists_and_manifests_come_from_standard_input(call, music: Path) -> None:
    listed = call("ingest", "-", stdin=b"music/a.wav\r\nmusic/b.wav\n\n")
    assert "2 added; 2 rows" in listed.stderr
    manifest = call("ingest", "--manifest", "-", stdin=b"path,work_id,title\nmusic/b.wav,w,A title\n")
    assert "1 updated" in manifest.stderr
    assert (
        "1 skipped" in call("ingest", "--manifest", "-@x", stdin=b"path,work_id,split\nmusic/b.wav,w,x\nq,,y\n").stderr
    )
    assert call("ingest", "-", stdin=b"").stderr == "Error: standard input: no paths; give one in a line\n"
    assert "it holds zeros" in call("ingest", "-", stdin=(music / "a.wav").read_bytes()).stderr
    assert "one of the two" in call("ingest", "-", "--manifest", "-", stdin=b"a").stderr
    assert "-, line 1: no column work_id" in call("ingest", "--manifest", "-", stdin=b"path\na.wav\n").stderr


def test_a_recording_on_standard_input_is_asked_for_and_leaves_nothing(call, music: Path, tmp_path: Path) -> None:
    call("ingest", music)
    answers = call("query", "-", music / "b.wav", "--json", "--limit", 1, stdin=(music / "a.wav").read_bytes())
    found = [json.loads(line) for line in answers.stdout.splitlines()]
    assert [(match["query"], match["track_id"]) for match in found] == [("-", "a"), (str(music / "b.wav"), "b")]
    for stdin, reason in ((b"noise" * 999, "not audio"), (b"", "a file of 0 bytes")):
        bad = call("query", "-", stdin=stdin)
        assert bad.exit_code == 1 and f"standard input: {reason}" in bad.stderr and str(tmp_path) not in bad.stderr
    assert "more than 0.0001 GiB" in call("query", "-", "--maximum-gib", 0.0001, stdin=bytes(200_000)).stderr
    assert "standard input is gone" in call("query", "-", "--html", "page.html", stdin=b"").stderr
    assert not list((tmp_path / "temporary").iterdir())


def test_what_was_found_goes_back_as_manifest_and_playlist(call, music: Path, tmp_path: Path) -> None:
    call("ingest", "--manifest", "-", stdin=b"path,work_id,title\nmusic/a.wav,w,A\nmusic/b.wav,w,B\nmusic/c.wav,,\n")
    for out in ("found.csv", "found.m3u8"):
        assert call("query", music / "a.wav", music / "b.wav", "--out", out).exit_code == 0
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert {row["path"]: (row["work_id"], row["title"]) for row in rows} == {
        "music/a.wav": ("w", "A"),
        "music/b.wav": ("w", "B"),
        "music/c.wav": ("", ""),
    }
    playlist = (tmp_path / "found.m3u8").read_bytes()
    assert playlist.startswith(b"#EXTM3U\n#PLAYLIST:found\n") and playlist.count(b"#EXTINF:") == 3
    assert "3 skipped" in call("ingest", "--manifest", "found.csv").stderr
    assert "3 skipped" in call("ingest", "-", stdin=playlist).stderr
    evaluated = call("evaluate", "--manifest", "found.csv", "--json")
    assert json.loads(evaluated.stdout)["queries"] == 2
    assert ".csv or .m3u8" in call("query", music / "a.wav", "--out", "found.txt").stderr


def test_what_arrives_changes_and_goes_is_followed_until_ctrl_c(
    call, music: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    options = ["--uri", "c.db", "--bundle", str(tiny_bundle), "--workers", "0"]
    command = ["ingest", "music", "--watch", "--interval", "0.3", "--prune", "--yes", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "bytecover2_milvus", *command], stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stderr is not None

        def told(words: str) -> None:
            """Wait for a line with these words."""
            assert process.stderr is not None
            assert any(words in line for line in process.stderr), words

        try:
            told("3 added; 3 rows")
            told("watching")
            write_melody(tmp_path / "d.wav", 9, 6.0).rename(music / "d.wav")
            told("1 added; 4 rows")
            (music / "b.wav").rename(music / "e.wav")
            told("1 updated; 4 rows")  # and not pruned before its new name is known
            (music / "e.wav").unlink()
            told("1 tracks pruned")
            told("3 rows")
            process.send_signal(signal.SIGINT)
            told("no longer watching")
            assert process.wait(30) == 0
        finally:
            process.kill()
    with connected(tmp_path / "c.db") as client:
        rows = TrackCollection.open(client, "tracks").rows_of(["a", "c", "d", "e"])
    assert {row.track_id: round(row.duration_s, 1) for row in rows} == {"a": 6.0, "c": 3.4, "d": 6.0}


def test_a_catalogue_on_a_read_only_mount_is_read_and_stays_as_it_is(call, music: Path, tmp_path: Path) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace in which to mount may be made here")
    call("ingest", music)
    (tmp_path / "share").mkdir()
    (tmp_path / "c.db").rename(tmp_path / "share" / "c.db")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "share").rglob("*")}
    mounted = "mount --bind share share && mount -o remount,bind,ro share && exec"

    def on_mount(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = shlex.join([sys.executable, "-m", "bytecover2_milvus", *map(str, arguments), "--uri", "share/c.db"])
        environment = {"TMPDIR": str(tmp_path / "temporary")}
        return subprocess.run(
            [*namespace, "sh", "-c", f"{mounted} {command}"],
            capture_output=True,
            text=True,
            env=os.environ | environment,
        )

    listed = on_mount("collections", "problems", "tracks", "--json")
    assert listed.returncode == 0 and json.loads(listed.stdout)["track_id"] == "c"
    assert "share/c.db is read-only, and Milvus Lite writes wherever it opens" in listed.stderr
    refused = on_mount("collections", "drop", "tracks", "--yes")
    assert refused.returncode == 1 and refused.stderr.startswith("Error: share/c.db: read-only; copy it")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "share").rglob("*")} == before
    assert not list((tmp_path / "temporary").iterdir())


def test_a_stand_in_answers_and_nothing_of_it_reaches_the_folder(call, music: Path, tmp_path: Path) -> None:
    call("ingest", music)
    folder = tmp_path / "c.db"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with stand_in(folder) as there, connected(there) as client:
        collection = TrackCollection.open(client, "tracks")
        assert collection.delete_tracks(["a"]) == 1 and collection.count() == 2
        with stand_in(folder) as second, connected(second) as other:  # several may read
            assert TrackCollection.open(other, "tracks").count() == 3
        assert "open in another process" in call("ingest", music).stderr  # and nobody writes meanwhile
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with (folder / "LOCK").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as one who writes holds it
        with pytest.raises(CollectionLocked, match="open in another process"), stand_in(folder):
            pass


def test_a_file_is_taken_when_it_is_the_same_in_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    track = Track(path, "a")
    watch = Watch([track])
    for size in (1, 2, 3):  # it is being written
        path.write_bytes(bytes(size))
        assert watch.look([track]) == ([], False)
    assert watch.look([track]) == ([track], False)
    assert watch.look([track]) == ([], False)  # once
    watch.again([track])  # it could not be stored
    assert watch.look([track]) == ([track], False)
    renamed = replace(track, title="A title")  # in a manifest
    assert watch.look([renamed]) == ([], False) and watch.look([renamed]) == ([renamed], False)
    path.unlink()
    assert watch.look([renamed]) == ([], True) and watch.look([]) == ([], False)
    path.write_bytes(b"1")
    watch = Watch([track])
    path.rename(tmp_path / "b.wav")
    moved = Track(tmp_path / "b.wav", "b")
    assert watch.look([moved]) == ([], False)  # nothing is pruned before the new name is known
    assert watch.look([moved]) == ([moved], True)
