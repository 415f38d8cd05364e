"""What a user does first, with the console script of the environment that runs this: read, store, find, verify.

Needs nothing but pytest and what ``pip install ".[cpu,lite]"`` brings, so that ``.ci/installed`` can run it in fresh
environments of other Pythons and other versions, where it is copied away from the sources.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

av = pytest.importorskip("av")
RATE = 44_100
PROGRAM = Path(sys.executable).parent / "bytecover2-milvus"


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = [str(PROGRAM)] if PROGRAM.exists() else [sys.executable, "-m", "bytecover2_milvus"]
    environment = os.environ | {"COLUMNS": "300"}
    command = [*program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def done(*arguments: object, cwd: Path | None = None) -> list[dict]:
    """The JSON lines of a command that must succeed without a warning."""
    process = run(*arguments, cwd=cwd)
    assert process.returncode == 0 and "arning" not in process.stderr, process.stderr + process.stdout
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def encode(waveform: np.ndarray, path: Path, codec: str) -> None:
    """A file as PyAV's ffmpeg writes it, from mono in [-1, 1]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        for start in range(0, len(waveform), 1024):
            block = waveform[None, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four songs of twelve chords, each in another format."""
    folder = tmp_path_factory.mktemp("music")
    time_s = np.arange(RATE) / RATE
    for seed, suffix in enumerate((".wav", ".flac", ".mp3", ".m4a")):
        notes = np.random.default_rng(seed).integers(48, 84, (12, 3))
        tones = 0.2 * np.sin(2 * np.pi * 440 * 2 ** ((notes[..., None] - 69) / 12) * time_s)  # (12, 3, n_samples)
        waveform = (tones.sum(axis=1) * np.exp(-time_s)).ravel()
        path = folder / f"song {seed}{suffix}"
        if suffix == ".m4a":
            encode(waveform, path, "aac")
        else:
            soundfile.write(path, waveform, RATE)
    return folder


@pytest.fixture(scope="module")
def catalogue(music: Path) -> Path:
    uri = music.parent / f"{music.name}.db"
    records = done("ingest", music, "--uri", uri, "--json")
    assert [record["status"] for record in records] == ["added"] * 4
    return uri


def test_every_format_is_read_and_nothing_is_stored_twice(music: Path, catalogue: Path) -> None:
    assert {record["status"] for record in done("ingest", music, "--uri", catalogue, "--json")} == {"skipped"}
    (described,) = done("collections", "list", "--uri", catalogue, "--json")
    assert described["rows"] == 4


def test_every_file_finds_itself_first(music: Path, catalogue: Path) -> None:
    files = sorted(music.iterdir())
    matches = done("query", *files, "--uri", catalogue, "--limit", 1, "--json")
    assert [Path(match["path"]).name for match in matches] == [file.name for file in files]
    assert min(match["similarity"] for match in matches) > 0.999
    assert min(match["probability"] for match in matches) > 0.99  # of the same recording, though it has only 12 s


def test_an_excerpt_and_another_codec_find_their_recording(music: Path, catalogue: Path, tmp_path: Path) -> None:
    waveform, rate = soundfile.read(music / "song 0.wav")
    encode(waveform[2 * rate : 10 * rate], tmp_path / "part.m4a", "aac")
    (match,) = done("query", tmp_path / "part.m4a", "--uri", catalogue, "--limit", 1, "--nearest", "--json")
    assert Path(match["path"]).name == "song 0.wav"


def test_embeddings_leave_and_come_back(music: Path, catalogue: Path, tmp_path: Path) -> None:
    done("embed", music, "--out", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        embeddings = next(array for array in file.values() if array.dtype == np.float32)
    assert embeddings.shape == (4, 128) and np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    done("collections", "export", "tracks", "--out", tmp_path / "x.parquet", "--uri", catalogue)
    restored = done("ingest", "--vectors", tmp_path / "x.parquet", "--uri", tmp_path / "x.db", "--json")
    assert [record["status"] for record in restored] == ["added"] * 4


def test_the_installation_verifies_itself() -> None:
    found = done("verify", "--device", "cpu", "--json")
    assert found and not [finding for finding in found if finding["status"] == "failed"]


def test_doctor_finds_nothing_that_fails(catalogue: Path) -> None:
    checks = {check["check"]: check["status"] for check in done("doctor", "--uri", catalogue, "--json")}
    assert checks["bundle"] == checks["cpu"] == checks["milvus"] == checks["collection"] == "ok"


def test_a_small_demo(tmp_path: Path) -> None:
    process = run("demo", "--out", tmp_path / "demo", "--songs", 3, "--arrangements", 3)
    assert process.returncode == 0, process.stderr
    assert "of 3 held-out arrangements found their song first, among 6 tracks." in process.stdout
    audio = sum(file.stat().st_size for file in (tmp_path / "demo" / "audio").rglob("*.*"))
    assert audio < 9 * 500_000  # bytes
    shutil.rmtree(tmp_path / "demo")


def test_the_service_answers_and_ends(catalogue: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "bytecover2_milvus", "serve", "--uri", str(catalogue), "--port", "0"]
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            ports: list[int] = []
            while not ports and process.poll() is None:
                time.sleep(0.1)
                lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
                ports = [line["port"] for line in lines if line["event"] == "listening"]
            assert ports, log.read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/readyz", timeout=60) as answer:
                assert json.loads(answer.read())["ready"] is True
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=60) as answer:
                assert b"<title>" in answer.read()
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


def test_scores_are_read(tmp_path: Path) -> None:
    """MIDI by mido and MusicXML by partitura, where they are installed: eight bars of a scale up and down."""
    mido = pytest.importorskip("mido")
    pytest.importorskip("partitura")
    from bytecover2_milvus.songs.readers import read_song

    pitches = [60, 62, 64, 65, 67, 69, 71, 72] * 2 + [72, 71, 69, 67, 65, 64, 62, 60] * 2
    file = mido.MidiFile(ticks_per_beat=480)
    file.tracks.append(track := mido.MidiTrack([mido.MetaMessage("time_signature", numerator=4, denominator=4)]))
    names = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}
    bars = []
    for start in range(0, len(pitches), 4):
        notes = ""
        for pitch in pitches[start : start + 4]:
            track.append(mido.Message("note_on", note=pitch, velocity=80, time=0))
            track.append(mido.Message("note_off", note=pitch, velocity=0, time=480))
            step, octave = names[pitch % 12], pitch // 12 - 1
            notes += f"<note><pitch><step>{step}</step><octave>{octave}</octave></pitch><duration>1</duration></note>"
        attributes = (
            "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
        )
        bars.append(f'<measure number="{start // 4 + 1}">{attributes * (not start)}{notes}</measure>')
    file.save(tmp_path / "scale.mid")
    (tmp_path / "scale.musicxml").write_text(
        '<?xml version="1.0"?><score-partwise version="4.0"><part-list><score-part id="P1"><part-name>Voice</part-name>'
        f'</score-part></part-list><part id="P1">{"".join(bars)}</part></score-partwise>'
    )
    for name in ("scale.mid", "scale.musicxml"):
        song = read_song(tmp_path / name)
        assert [note.pitch for index in song.form for note in song.sections[index].melody] == pitches
