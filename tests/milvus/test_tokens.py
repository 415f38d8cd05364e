"""Tokens, passwords and certificates: they let in who has them, and are never shown."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from audio_files import write_tone
from click.testing import CliRunner
from command_tree import commands
from pymilvus import MilvusClient

from benchmarks.milvus_server import MilvusServer
from bytecover2_milvus.cli import main
from bytecover2_milvus.cli.milvus_target import MilvusTarget
from bytecover2_milvus.errors import MilvusUnavailable
from bytecover2_milvus.milvus.connection import close, connect, without_password

SECRET = "s3cr3t-p4ssw0rd"
TOKEN = f"root:{SECRET}"
CODED = base64.b64encode(TOKEN.encode()).decode()


def hidden(text: str) -> bool:
    return SECRET not in text and CODED not in text


class Gate(grpc.GenericRpcHandler):
    """A gRPC server's handler that lets calls with the token through to a Milvus Lite, and refuses others."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self.seen: list[str | None] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        token = dict(call.invocation_metadata).get("authorization")
        self.seen.append(token)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if token != CODED:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check api key is correct")
            return self.channel.unary_unary(call.method)(request)

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus Lite as a server: host and port."""
    from milvus_lite.server_manager import server_manager_instance

    folder = str(tmp_path_factory.mktemp("lite") / "milvus.db")
    yield server_manager_instance.start_and_get_uri(folder).removeprefix("http://")
    server_manager_instance.release_server(folder)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two self-signed certificates of localhost, with their keys beside them."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command, to make certificates")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    return [folder / "server.pem", folder / "other.pem"]


@pytest.fixture(params=["http", "https"])
def gate(request: pytest.FixtureRequest, lite: str) -> Iterator[tuple[str, Gate, Path | None]]:
    """Its address, the gate, and the certificate to trust, if any."""
    handler = Gate(lite)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    pem = None
    if request.param == "https":
        pem = request.getfixturevalue("certificates")[0]
        pair = (pem.with_suffix(".key").read_bytes(), pem.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"{request.param}://localhost:{port}", handler, pem
    server.stop(None)
    handler.channel.close()


def test_a_token_lets_in_and_a_wrong_one_does_not(gate, caplog: pytest.LogCaptureFixture, capfd) -> None:
    address, handler, pem = gate
    caplog.set_level(logging.DEBUG)
    client = connect(address, TOKEN, server_pem=pem)
    assert client.list_collections() == []
    close(client)
    assert set(handler.seen) == {CODED}
    scheme, _, host = address.partition("://")
    client = connect(f"{scheme}://root:{SECRET}@{host}", server_pem=pem)  # in the address
    close(client)
    assert set(handler.seen) == {CODED}
    with pytest.raises(MilvusUnavailable, match="it refuses the token") as error:
        connect(address, f"{TOKEN}!", server_pem=pem, timeout_s=2)
    with pytest.raises(MilvusUnavailable, match="it refuses the token") as in_address:
        connect(f"{scheme}://root:{SECRET}!@{host}", server_pem=pem, timeout_s=2)
    wrong = base64.b64encode(f"{TOKEN}!".encode()).decode()
    shown = "".join(traceback.format_exception(error.value) + traceback.format_exception(in_address.value))
    shown += caplog.text + "".join(capfd.readouterr())
    assert hidden(shown) and wrong not in shown


def test_an_unknown_certificate_gets_no_token(lite: str, certificates: list[Path]) -> None:
    handler = Gate(lite)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    pair = (certificates[0].with_suffix(".key").read_bytes(), certificates[0].read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        for pem in (None, certificates[1]):
            with pytest.raises(MilvusUnavailable, match="certificate"):
                connect(f"https://localhost:{port}", TOKEN, server_pem=pem, timeout_s=1)
        with pytest.raises(MilvusUnavailable):
            connect(f"http://localhost:{port}", TOKEN, timeout_s=1)
        assert handler.seen == []
        with pytest.raises(MilvusUnavailable, match=r"none.pem: the certificate cannot be read \(No such file"):
            connect(f"https://localhost:{port}", TOKEN, server_pem=certificates[0].with_name("none.pem"))
    finally:
        server.stop(None)
        handler.channel.close()


def test_commands_take_the_token_from_the_environment_or_ask_unseen(gate) -> None:
    address, handler, pem = gate
    environment = {"BYTECOVER2_URI": address, "BYTECOVER2_SERVER_PEM": str(pem) if pem else ""}
    command = ["collections", "list", "--json"]
    by_variable = CliRunner().invoke(main, command, env=environment | {"BYTECOVER2_TOKEN": TOKEN})
    assert (by_variable.exit_code, by_variable.output) == (0, "")
    asked = CliRunner().invoke(main, [*command, "--token"], env=environment, input=f"{TOKEN}\n")
    assert asked.exit_code == 0 and asked.stdout == "" and hidden(asked.output)
    assert set(handler.seen) == {CODED}


WITH_TOKEN = [name for name, command in commands() if any(option.name == "token" for option in command.params)]


@pytest.mark.parametrize("name", WITH_TOKEN)
def test_a_command_line_with_a_secret_is_refused_and_not_repeated(name: str) -> None:
    files = [] if name in ("doctor", "collections list", "evaluate") else ["a.wav"]
    for secret in (["--token", TOKEN], [f"--token={TOKEN}"], ["--uri", f"http://root:{SECRET}@127.0.0.1:1"]):
        result = CliRunner().invoke(main, [*name.split(), *files, *secret])
        assert result.exit_code == 2, result.output
        assert hidden(result.output)
        assert "list of processes" in result.output or "Missing option" in result.output


def test_a_password_in_the_address_is_not_shown(capfd) -> None:
    environment = {"BYTECOVER2_URI": f"http://root:{SECRET}@127.0.0.1:1", "BYTECOVER2_TOKEN": TOKEN}
    for command in (["collections", "list"], ["doctor", "--json"], ["collections", "drop", "tracks"]):
        result = CliRunner().invoke(main, command, env=environment)
        assert result.exit_code == 1 and "http://127.0.0.1:1" in result.output
        assert hidden(result.output)
    assert hidden("".join(capfd.readouterr()))
    assert hidden(repr(MilvusTarget("http://host", TOKEN)))
    assert str(MilvusTarget(f"http://root:{SECRET}@host:1/db")) == "http://host:1/db"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:19530", "http://host:19530"),
        ("https://user:p@ss:w/ord@host", "https://host"),
        ("music@home.db", "music@home.db"),
        ("/music/a@b://c.db", "/music/a@b://c.db"),
        ("music@home.db/", "music@home.db/"),
        ("root:secret@host:19530", "host:19530"),
        ("http:/root:secret@host", "host"),
        ("http://root:a://b@host", "http://host"),
    ],
)
def test_an_address_without_its_password(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_help_does_not_show_the_token() -> None:
    environment = {"BYTECOVER2_TOKEN": TOKEN, "PATH": "/usr/bin"}
    command = [sys.executable, "-m", "bytecover2_milvus", "query", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "BYTECOVER2_TOKEN" in done.stdout and hidden(done.stdout)


@pytest.mark.milvus
def test_a_server_that_asks_for_a_token(tmp_path, tiny_bundle):
    pytest.importorskip("milvus", reason="no Milvus server here; pip install milvus==2.3.5 (Linux, x86-64)")
    with MilvusServer(tmp_path / "milvus", authorization=True, quick=True) as server:
        admin = MilvusClient(server.uri, token="root:Milvus")  # as Milvus is delivered
        admin.update_password("root", old_password="Milvus", new_password=SECRET, timeout=30)
        admin.close()
        write_tone(tmp_path / "a.wav", 0)
        command = [sys.executable, "-m", "bytecover2_milvus", "ingest", tmp_path / "a.wav", "--bundle", tiny_bundle]
        statuses = {}
        for token in (TOKEN, "root:Milvus", ""):
            environment = os.environ | {"BYTECOVER2_URI": server.uri, "BYTECOVER2_TOKEN": token}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            statuses[token] = done.returncode
            assert hidden(done.stdout + done.stderr) and "Traceback" not in done.stderr
            if token != TOKEN:
                (line,) = done.stderr.strip().splitlines()
                assert "token" in line, line
    assert statuses == {TOKEN: 0, "root:Milvus": 1, "": 1}
