"""The service as its users meet it: a process over a real collection, real recordings, hostile requests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest
import soundfile
from audio_files import write_tone
from click.testing import CliRunner
from patience import PATIENCE_S, wait_for
from serving import Running

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.serve.files import audio_of, below
from bytecover2_milvus.serve.refusal import Refused
from bytecover2_milvus.serve.settings import Settings
from bytecover2_milvus.serve.upload import shown

SECRET = "not-for-anybody-else"
MATCH = json.loads(files("bytecover2_milvus.schemas").joinpath("match.schema.json").read_text(encoding="utf-8"))
COLLECTION = json.loads(
    files("bytecover2_milvus.schemas").joinpath("collection.schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def service(filled: Path, bundle: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bounds = ("--maximum-mib", 4, "--maximum-minutes", 1)
    with Running(
        filled, bundle, tmp_path_factory.mktemp("service"), "--folder", music, "--allow-audio", *bounds
    ) as running:
        yield running


def refused(response: httpx.Response, status: int, *words: str) -> None:
    """One line of JSON that says what is wrong."""
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert "\n" not in response.text and list(response.json()) == ["error"]
    for word in words:
        assert word in error


def test_a_query_answers_what_the_command_prints(
    service: Running, filled: Path, bundle: Path, music: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled, tmp_path / "own.db")
    command = ["query", str(music / "inside.wav"), "--json", "--uri", str(tmp_path / "own.db"), "--bundle", str(bundle)]
    printed = [json.loads(line) for line in CliRunner().invoke(main, command).stdout.splitlines()]
    response = service.ask(music / "inside.wav")
    assert response.status_code == 200
    answer = response.json()
    for match in [*answer["matches"], answer["nearest"]]:
        assert match.pop("verdict").startswith("Probably one work (")
        assert match.pop("evidence").endswith("; there the track is in the same key and at the same tempo.")
        jsonschema.validate(match, MATCH)
        assert match.pop("query") == "inside.wav"
    assert {match["title"] for match in answer["matches"]} == {"song-3", "again"}
    assert [dict(sorted(match.items())) for match in answer["matches"]] == [
        pytest.approx({name: value for name, value in sorted(match.items()) if name != "query"}) for match in printed
    ]
    assert answer["nearest"] == answer["matches"][0] and answer["judged"] and answer["note"] == answer["warning"] == ""
    assert answer["duration_s"] == pytest.approx(soundfile.info(music / "inside.wav").duration, abs=0.01)
    by_path = service.http.post("/v1/query", params={"path": "inside.wav"}).json()
    assert [match["track_id"] for match in by_path["matches"]] == [match["track_id"] for match in answer["matches"]]


def test_options_are_those_of_the_command(service: Running, music: Path) -> None:
    def titles(name: str, **options: object) -> list[str]:
        return [match["title"] for match in service.ask(music / name, **options).json()["matches"]]

    assert titles("stranger.ogg") == []
    assert len(titles("stranger.ogg", min_probability=0)) == 6
    assert len(titles("stranger.ogg", min_probability=0, top_k=2)) == 2
    assert len(titles("inside.wav", distinct=True)) == 1
    assert titles("inside.wav", filter='title == "again"') == ["again"]
    unjudged = service.ask(music / "inside.wav", rerank=0).json()
    assert len(unjudged["matches"]) == 6 and unjudged["nearest"] is None and not unjudged["judged"]
    assert unjudged["note"].startswith("rerank=0")
    for options, words in (
        ({"top_k": 0}, ("top_k",)),
        ({"min_probability": "much"}, ("min_probability",)),
        ({"limit": 3}, ("limit",)),
        ({"filter": 'title == "a'}, ("filter",)),
        ({"filter": "nonsense nonsense"}, ("search",)),
        ({"group_by": "artist"}, ("group_by",)),
    ):
        refused(service.ask(music / "inside.wav", **options), 422, *words)


def test_an_embedding_is_that_of_the_library(service: Running, bundle: Path, music: Path) -> None:
    expected = Embedder(bundle).embed(load_audio(music / "again.flac"))
    with (music / "again.flac").open("rb") as file:
        answer = service.http.post("/v1/embed", files={"file": file}).json()
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)
    assert answer["query"] == "again.flac" and answer["model_id"] == Embedder(bundle).model_id


def test_tracks_are_told_by_their_ids_whatever_is_in_them(service: Running, music: Path) -> None:
    track = service.http.get("/v1/tracks/song-1").json()
    assert track["path"] == str(music / "catalogue" / "song-1.wav") and track["segments"] == 0
    odd = service.http.get("/v1/tracks/odd%2Faudio").json()
    assert odd["track_id"] == "odd/audio" and odd["audio"] == "/v1/tracks/odd%2Faudio/audio"
    heard = service.http.get(odd["audio"])
    assert heard.content == (music / "catalogue" / "odd" / "audio.wav").read_bytes()
    refused(service.http.get("/v1/tracks/odd/audio"), 404, "odd: no track")
    refused(service.http.get('/v1/tracks/" or id != "'), 404)
    refused(service.http.get("/v1/nothing"), 404, "no such route; / is the page, and /openapi.json lists the routes")
    refused(service.http.get("/v1/query"), 405, "GET is not for this route; / is the page")


def test_collections_are_described_as_the_command_does(service: Running) -> None:
    answer = service.http.get("/v1/collections").json()
    (collection,) = answer["collections"]
    jsonschema.validate(collection, COLLECTION)
    assert collection["rows"] == 6 and collection["aliases"] == [answer["asked"]] == ["tracks"]


def test_audio_comes_whole_or_in_parts(service: Running, music: Path) -> None:
    audio = (music / "catalogue" / "song-2.wav").read_bytes()
    whole = service.http.get("/v1/tracks/song-2/audio")
    assert whole.content == audio and whole.headers["content-type"].startswith("audio/")
    assert service.http.head("/v1/tracks/song-2/audio").headers["content-length"] == str(len(audio))
    part = service.http.get("/v1/tracks/song-2/audio", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == audio[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(audio)}"
    tail = service.http.get("/v1/tracks/song-2/audio", headers={"Range": "bytes=-10"})
    assert tail.content == audio[-10:]
    beyond = service.http.get("/v1/tracks/song-2/audio", headers={"Range": f"bytes={len(audio)}-"})
    assert beyond.status_code == 416
    refused(service.http.get("/v1/tracks/none/audio"), 404)


def test_only_audio_is_given_out_as_audio(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("secret")
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "passwords", tmp_path / "pipe.wav", tmp_path / "missing.wav", tmp_path, "", "a" * 5000):
        with pytest.raises(Refused, match="not on this machine") as caught:
            audio_of(str(path))
        assert caught.value.status == 404


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, bytes]:
    """Files that are no recordings, or not ones that the service takes."""
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    write_tone(tmp_path / "short.wav", 0, 0.4)
    write_tone(tmp_path / "long.flac", 0, 61)
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    noise = np.random.default_rng(0).bytes(100_000)
    return contents | {"empty.mp3": b"", "noise.mp3": noise, "text.wav": b"no audio " * 1000, "cut.flac": b"fLaC\0\0"}


def test_files_that_are_no_recordings_are_refused(service: Running, hostile: dict[str, bytes]) -> None:
    for name, (status, words) in {
        "empty.mp3": (422, "0 bytes"),
        "noise.mp3": (422, "noise.mp3"),
        "text.wav": (422, "text.wav"),
        "cut.flac": (422, "cut.flac"),
        "silent.wav": (422, "silent"),
        "short.wav": (422, "shorter than 1 s"),
        "long.flac": (413, "longer than"),
    }.items():
        for route in ("/v1/query", "/v1/embed"):
            response = service.http.post(route, files={"file": (name, hostile[name])})
            refused(response, status, name, words)
            assert str(service.temporary) not in response.text
    assert service.temporary_files() == []


def test_forms_that_are_none_are_refused(service: Running) -> None:
    post = service.http.post
    refused(post("/v1/query"), 415, "multipart/form-data")
    refused(post("/v1/query", json={"file": "a"}), 415)
    refused(post("/v1/query", content=b"RIFF", headers={"Content-Type": "audio/wav"}), 415)
    refused(post("/v1/query", files={"audio": b"RIFF"}), 400, '"audio"')
    refused(post("/v1/query", files={"file": b"RIFF"}, data={"top_k": "3"}), 400, '"top_k"')
    refused(post("/v1/query", files=[("file", b"RIFF"), ("file", b"RIFF")]), 400, "one file")
    refused(post("/v1/query", params={"path": "inside.wav"}, files={"file": b"RIFF"}), 400, "not both")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF'
    refused(post("/v1/query", content=part, headers=form), 400, "ends before its end")
    refused(post("/v1/query", content=b"nonsense", headers=form), 400, "cannot be read")
    refused(post("/v1/query", content=b"--x--\r\n", headers=form), 400)
    refused(post("/v1/query", content=b"", headers=form), 400)
    many = b"--x\r\n" + b"X-Header: y\r\n" * 100_000
    refused(post("/v1/query", content=many, headers=form), 400)
    assert service.temporary_files() == []


def test_a_file_that_is_too_large_is_refused_before_it_is_whole(service: Running) -> None:
    refused(service.http.post("/v1/query", files={"file": bytes(5 << 20)}), 413, "at most 4 MiB")
    start = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    pieces = iter([start, *[bytes(1 << 20)] * 5, b"\r\n--x--\r\n"])  # of which no header tells the length
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(service.http.post("/v1/query", content=pieces, headers=form), 413, "at most 4 MiB")
    assert service.temporary_files() == []


@pytest.mark.parametrize(
    "name",
    ["../../../../etc/passwd.wav", "a\r\nSet-Cookie: x.wav", "\x1b[31m.wav", "C:\\a.wav", "é" * 300 + ".wav", ""],
)
def test_names_of_uploads_are_labels_and_never_paths(service: Running, music: Path, name: str) -> None:
    response = service.http.post("/v1/embed", files={"file": (name, (music / "again.flac").read_bytes())})
    assert response.status_code == 200
    told = response.json()["query"]
    assert told.isprintable() and "/" not in told and "\\" not in told and len(told) <= 123
    assert service.temporary_files() == []


def test_paths_lead_nowhere_but_below_the_folder(service: Running, music: Path, tmp_path: Path) -> None:
    write_tone(tmp_path / "outside.wav", 0)
    for link, target in (("out.wav", tmp_path / "outside.wav"), ("outer", tmp_path), ("circle.wav", "circle.wav")):
        (music / link).symlink_to(target)
    (music / "in.wav").symlink_to("inside.wav")
    os.mkfifo(music / "pipe.wav")
    with contextlib.ExitStack() as stack:
        for name in ("out.wav", "outer", "circle.wav", "in.wav", "pipe.wav"):
            stack.callback((music / name).unlink)
        for path in ("../inside.wav", str(music / "inside.wav"), "", "a\0b.wav", "catalogue/../inside.wav"):
            refused(service.http.post("/v1/query", params={"path": path}), 400, "below the folder")
        outside = [
            f"{name}" for name in ("out.wav", "outer/outside.wav", "circle.wav", "pipe.wav", "catalogue", "x.wav")
        ]
        for path in [*outside, "a" * 5000, "inside.wav/b"]:
            refused(service.http.post("/v1/query", params={"path": path}), 404, "no such file")
        assert service.http.post("/v1/embed", params={"path": "in.wav"}).status_code == 200
    with pytest.raises(Refused, match="uploads only"):
        below(None, "inside.wav")


def test_what_it_says_of_itself_holds(service: Running, music: Path) -> None:
    document = service.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    routes = {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        *("post /v1/query", "post /v1/embed", "post /v1/alignment", "post /v1/labels", "get /v1/service"),
        *("get /v1/tracks/{track_id}", "get /v1/tracks/{track_id}/audio"),
        *("get /v1/collections", "get /healthz", "get /readyz", "get /metrics"),
    }
    answers = {
        "QueryAnswer": service.ask(music / "inside.wav").json(),
        "EmbedAnswer": service.http.post("/v1/embed", params={"path": "again.flac"}).json(),
        "Track": service.http.get("/v1/tracks/song-1").json(),
        "Collections": service.http.get("/v1/collections").json(),
        "Readiness": service.http.get("/readyz").json(),
        "Problem": service.http.get("/v1/tracks/none").json(),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)


def test_web_pages_elsewhere_can_neither_ask_nor_pretend_to_be_here(service: Running) -> None:
    foreign = service.http.get("/v1/tracks/song-1", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in foreign.headers if name.startswith("access-control")]
    for host in ("elsewhere.example", "elsewhere.example:80", "127.0.0.1.elsewhere.example", ""):
        refused(service.http.get("/healthz", headers={"Host": host}), 421, "localhost only")
    for host in ("localhost", f"localhost:{service.port}", "127.0.0.1", "[::1]:80"):
        assert service.http.get("/healthz", headers={"Host": host}).status_code == 200


def test_ids_of_requests_come_back(service: Running) -> None:
    assert service.http.get("/healthz", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    made = service.http.get("/healthz", headers={"X-Request-ID": "a b"}).headers["x-request-id"]
    assert made and " " not in made


def test_an_upload_that_is_broken_off_leaves_nothing(service: Running) -> None:
    head = "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
    form = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall((head + form + part).encode() + bytes(100_000))
        wait_for(service.temporary_files)
    wait_for(lambda: not service.temporary_files())
    wait_for(lambda: service.admitted() == 0)


def test_requests_are_counted(service: Running, music: Path) -> None:
    before = service.metrics()
    service.ask(music / "inside.wav")
    service.http.get("/v1/tracks/none")
    after = service.metrics()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("bytecover2_serve_requests_total|POST|/v1/query|200") == 1
    assert more("bytecover2_serve_requests_total|GET|/v1/tracks/{track_id:path}|404") == 1
    assert more("bytecover2_serve_request_seconds_count|/v1/query") == 1
    for stage in ("upload", "wait", "decode", "embed", "search"):
        assert more(f"bytecover2_serve_stage_seconds_count|{stage}") == 1
    duration_s = soundfile.info(music / "inside.wav").duration
    assert more("bytecover2_serve_audio_seconds_total") == pytest.approx(duration_s, abs=0.01)
    assert after["bytecover2_serve_admitted"] == 0
    assert after.get("process_resident_memory_bytes", 1) > 0  # which is told on Linux only


def test_many_ask_at_once_and_all_are_answered_alike(service: Running, music: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.ask(music / "inside.wav").json()["matches"], range(16)))
    assert all(answer == answers[0] for answer in answers)


def test_with_a_token_only_probes_are_free_and_the_log_keeps_secrets(
    filled: Path, bundle: Path, music: Path, tmp_path: Path
) -> None:
    origin = "https://music.example"
    with Running(
        filled, bundle, tmp_path, "--host", "127.0.0.1", "--allow-origin", origin, BYTECOVER2_SERVE_TOKEN=SECRET
    ) as service:
        for path in ("/v1/tracks/song-1", "/v1/collections", "/metrics", "/openapi.json", "/v1/tracks/song-1/audio"):
            for headers in ({}, {"Authorization": f"Bearer {SECRET}x"}, {"Authorization": f"Basic {SECRET}"}):
                response = service.http.get(path, headers=headers)
                refused(response, 401, "Authorization: Bearer")
                assert response.headers["www-authenticate"] == "Bearer"
        refused(service.ask(music / "inside.wav"), 401)
        for path in ("/healthz", "/readyz"):
            assert service.http.get(path).status_code == 200
        service.http.headers["Authorization"] = f"Bearer {SECRET}"
        assert service.ask(music / "inside.wav").status_code == 200
        refused(service.http.get("/v1/tracks/song-1/audio"), 403, "--allow-audio")
        refused(service.http.post("/v1/query", params={"path": "inside.wav"}), 403, "--folder")
        assert service.http.get("/v1/tracks/song-1").json()["audio"] is None
        allowed = service.http.get("/healthz", headers={"Origin": origin, "Host": "music.example"})
        assert allowed.headers["access-control-allow-origin"] == origin
        other = service.http.get("/healthz", headers={"Origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers
        service.process.terminate()
        assert service.process.wait(PATIENCE_S) == 0
        log = service.log()
    text = json.dumps(log)
    assert not [word for word in (SECRET, "inside", "song-1", "song-3") if word in text]
    queried = [line for line in log if line.get("route") == "/v1/query" and line["status"] == 200]
    assert queried[0]["bytes_in"] > 1000 and set(queried[0]["stages_ms"]) == {
        "upload",
        "wait",
        "decode",
        "embed",
        "search",
    }
    assert {line["event"] for line in log} == {"listening", "request", "stopping", "stopped"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, to find the decoders")
class TestDecodersThatHang:
    """A decoder is stopped, as if a codec hung."""

    def test_the_request_ends_others_are_told_to_wait_and_the_decoder_is_replaced(
        self, filled: Path, bundle: Path, music: Path, tmp_path: Path
    ) -> None:
        with (
            Running(filled, bundle, tmp_path, "--at-once", 1, "--waiting", 0, "--timeout", 5) as service,
            ThreadPoolExecutor(1) as pool,
        ):
            (decoder,) = service.decoders()
            os.kill(decoder, signal.SIGSTOP)
            hanging = pool.submit(service.ask, music / "inside.wav")
            wait_for(lambda: service.admitted() == 1)
            busy = service.ask(music / "inside.wav")
            refused(busy, 429, "try again in")
            assert int(busy.headers["retry-after"]) >= 1
            assert service.http.get("/readyz").status_code == 200
            refused(hanging.result(), 504, "within 5 s")
            wait_for(lambda: service.admitted() == 0)
            (other,) = service.decoders()
            assert other != decoder and service.temporary_files() == []
            assert service.ask(music / "inside.wav").status_code == 200

    def test_a_recording_whose_decoder_dies_is_decoded_once_more(
        self, filled: Path, bundle: Path, music: Path, tmp_path: Path
    ) -> None:
        with Running(filled, bundle, tmp_path, "--at-once", 2) as service, ThreadPoolExecutor(1) as pool:
            for signals, status in (((signal.SIGKILL, signal.SIGCONT), 200), ((signal.SIGKILL, signal.SIGKILL), 422)):
                decoders = service.decoders()
                for decoder in decoders:
                    os.kill(decoder, signal.SIGSTOP)
                asked = pool.submit(service.ask, music / "inside.wav")
                wait_for(lambda: service.admitted() == 1)
                for decoder, number in zip(decoders, signals, strict=True):
                    os.kill(decoder, number)  # the first as the kernel does where memory is short
                assert asked.result().status_code == status
            refused(asked.result(), 422, "inside.wav: its decoder died")
            assert service.ask(music / "inside.wav").status_code == 200
            assert service.temporary_files() == []

    def test_sigterm_answers_what_is_under_way_and_refuses_what_comes(
        self, filled: Path, bundle: Path, music: Path, tmp_path: Path
    ) -> None:
        with Running(filled, bundle, tmp_path, "--at-once", 1) as service, ThreadPoolExecutor(1) as pool:
            (decoder,) = service.decoders()
            os.kill(decoder, signal.SIGSTOP)
            waiting = pool.submit(service.ask, music / "inside.wav")
            wait_for(lambda: service.admitted() == 1)
            service.process.terminate()
            wait_for(lambda: any('"stopping"' in line for line in service.lines))

            def is_closed() -> bool:
                try:
                    socket.create_connection(("127.0.0.1", service.port), 1).close()
                except OSError:
                    return True
                return False

            wait_for(is_closed)
            os.kill(decoder, signal.SIGCONT)
            assert waiting.result().status_code == 200 and waiting.result().json()["matches"]
            assert service.process.wait(PATIENCE_S) == 0
            assert list(service.temporary.glob("bytecover2-*")) == []

    def test_a_service_that_is_killed_leaves_no_audio(
        self, filled: Path, bundle: Path, music: Path, tmp_path: Path
    ) -> None:
        with Running(filled, bundle, tmp_path, "--at-once", 1) as service, ThreadPoolExecutor(1) as pool:
            (decoder,) = service.decoders()
            os.kill(decoder, signal.SIGSTOP)
            broken = pool.submit(service.ask, music / "inside.wav")
            wait_for(service.temporary_files)
            service.process.kill()
            os.kill(decoder, signal.SIGCONT)
            wait_for(lambda: not list(service.temporary.glob("bytecover2-*")))
            assert isinstance(broken.exception(), httpx.TransportError)


def test_others_are_let_in_with_a_token_or_on_purpose() -> None:
    for host in ("0.0.0.0", "192.168.0.1", "::", "music.example"):
        with pytest.raises(ConfigError, match="BYTECOVER2_SERVE_TOKEN, or say --without-token"):
            Settings(host=host)
        assert Settings(host=host, token=SECRET).token and Settings(host=host, without_token=True).host
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert Settings(host=host).is_local
    for token in ("short", "with a space in the middle", "ümläutümläutümläut", SECRET + "\n"):
        with pytest.raises(ConfigError, match="at least 16 characters"):
            Settings(token=token)
    assert SECRET not in repr(Settings(token=SECRET))
    result = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0"], env={"BYTECOVER2_SERVE_TOKEN": ""})
    assert result.exit_code == 2 and "--without-token" in result.stderr


def test_a_port_that_is_taken_is_said_in_one_line(filled: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(filled, tmp_path / "own.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ["--uri", str(tmp_path / "own.db"), "--bundle", str(bundle), "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-m", "bytecover2_milvus", "serve", *options], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr == f"Error: 127.0.0.1:{port}: Address already in use\n"


def test_names_that_are_shown_are_short_and_harmless() -> None:
    assert shown("a/b\\c.wav") == "c.wav"
    assert shown("a\nb.wav") == "a\N{REPLACEMENT CHARACTER}b.wav"
    assert len(shown("a" * 1000)) == 123 and shown("a" * 1000 + ".wav").endswith("a.wav")
