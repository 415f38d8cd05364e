"""The compose files as docker compose reads them; that takes its client, but no engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from bytecover2_milvus.cli import main

REPOSITORY = Path(__file__).parents[2]
FILES = [REPOSITORY / "docker-compose.yml", REPOSITORY / "docker-compose.gpu.yml"]
AUTH = REPOSITORY / "docker-compose.auth.yml"
UNPACKED = REPOSITORY / ".cache" / "trixie" / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose"


@pytest.fixture(scope="module")
def client() -> list[str]:
    """The command of a compose client, version 2 or later: the first one did not know `name`."""
    for command in (["docker", "compose"], ["docker-compose"], [str(UNPACKED)]):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True).stdout
            if re.match(r"v?([2-9]|\d\d)\.", version):
                return command
    pytest.skip("needs docker compose 2 or later: apt-get install docker-compose, of Debian 13 or later")


def compose(
    client: list[str], *options: str, files: list[Path] = FILES[:1], **environment: str
) -> subprocess.CompletedProcess[str]:
    ours = ("BYTECOVER2", "MILVUS", "MINIO", "COMPOSE")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    named = [word for file in files for word in ("--file", str(file))]
    command = [*client, *named, *options, "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, env=others | environment, check=False)


def config(client: list[str], *options: str, files: list[Path] = FILES[:1], **environment: str) -> dict[str, dict]:
    """The services as they would be started."""
    done = compose(client, *options, files=files, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["services"]


def test_images_are_pinned_and_ports_are_of_this_machine_only() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    images = re.findall(r"image: (\S+)", text)
    assert len(images) == 5
    for image in images:
        assert re.search(r":(\$\{\w+:-)?(v|RELEASE\.)\d[\w.-]*\}?(-gpu)?$", image), f"{image} is not pinned"
    ports = re.findall(r"- (\S+:\d+:\d+)", text)
    assert "127.0.0.1:19530:19530" in ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_milvus_starts_when_what_it_needs_is_healthy(client: list[str]) -> None:
    services = config(client)
    assert set(services) == {"etcd", "minio", "milvus"}
    needed = services["milvus"]["depends_on"]
    assert {name: gate["condition"] for name, gate in needed.items()} == dict.fromkeys(
        ("etcd", "minio"), "service_healthy"
    )
    for service in services.values():
        assert service["healthcheck"]["test"] and service["restart"] == "unless-stopped"
        assert [volume["type"] for volume in service["volumes"]] == ["volume"]
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published["etcd"] == published["minio"] == []
    assert {(port["host_ip"], port["published"]) for port in published["milvus"]} == {
        ("127.0.0.1", "19530"),
        ("127.0.0.1", "9091"),
    }


def test_attu_comes_by_its_profile(client: list[str]) -> None:
    attu = config(client, "--profile", "attu")["attu"]
    assert [port["host_ip"] for port in attu["ports"]] == ["127.0.0.1"]
    assert attu["depends_on"]["milvus"]["condition"] == "service_healthy"
    assert attu["environment"]["MILVUS_URL"] == "milvus:19530"


def test_the_service_comes_by_its_profile_and_is_given_its_tokens(client: list[str]) -> None:
    tokens = {"BYTECOVER2_SERVE_TOKEN": "of the service", "BYTECOVER2_TOKEN": "root:of Milvus"}
    serve = config(client, "--profile", "serve", **tokens)["serve"]
    assert [(port["host_ip"], port["published"]) for port in serve["ports"]] == [("127.0.0.1", "8765")]
    assert serve["depends_on"]["milvus"]["condition"] == "service_healthy"
    assert serve["environment"] == {"BYTECOVER2_URI": "http://milvus:19530", **tokens}
    assert Path(serve["build"]["context"]) == REPOSITORY


def test_the_image_of_the_service_is_pinned_whole_and_runs_without_rights() -> None:
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line[:1].isalpha()]
    (base,) = (value for word, value in lines if word == "FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)
    copied = {source for word, value in lines if word == "COPY" for source in value.split()[:-1]}
    package = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {package["project"]["readme"], *package["project"]["license-files"], "bytecover2_milvus"}
    assert copied == {"pyproject.toml", *needed, *package["tool"]["setuptools"]["package-dir"].values()}
    sent = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert sent[0] == "*" and {line[1:] for line in sent if line.startswith("!")} == copied
    assert [value for word, value in lines if word == "USER"] == ["10001"]
    ((name, *options),) = (json.loads(value) for word, value in lines if word == "CMD")
    serve = main.commands[name]
    assert serve.make_context(name, options).params["host"] == "0.0.0.0"
    (port,) = (value for word, value in lines if word == "EXPOSE")
    assert int(port) == next(option.default for option in serve.params if option.name == "port")


def test_variables_choose_version_and_keys(client: list[str]) -> None:
    services = config(client, MILVUS_TAG="v3.0.1", MINIO_ACCESS_KEY="who", MINIO_SECRET_KEY="what")
    assert services["milvus"]["image"] == "milvusdb/milvus:v3.0.1"
    environment = services["milvus"]["environment"]
    assert (environment["MINIO_ACCESS_KEY_ID"], environment["MINIO_SECRET_ACCESS_KEY"]) == ("who", "what")
    assert services["minio"]["environment"] == {"MINIO_ROOT_USER": "who", "MINIO_ROOT_PASSWORD": "what"}


@pytest.mark.parametrize("missing", ["MILVUS_ROOT_PASSWORD", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"])
def test_with_authentication_no_password_is_a_default(client: list[str], missing: str) -> None:
    secrets = {"MILVUS_ROOT_PASSWORD": "of the root", "MINIO_ACCESS_KEY": "who", "MINIO_SECRET_KEY": "what"}
    services = config(client, files=[FILES[0], AUTH], **secrets)
    environment = services["milvus"]["environment"]
    assert environment["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    assert environment["COMMON_SECURITY_DEFAULTROOTPASSWORD"] == "of the root"
    assert (environment["MINIO_ACCESS_KEY_ID"], environment["MINIO_SECRET_ACCESS_KEY"]) == ("who", "what")
    assert services["minio"]["environment"] == {"MINIO_ROOT_USER": "who", "MINIO_ROOT_PASSWORD": "what"}
    del secrets[missing]
    refused = compose(client, files=[FILES[0], AUTH], **secrets)
    assert refused.returncode != 0 and missing in refused.stderr and "set it to" in refused.stderr


def test_no_container_has_more_rights_than_docker_gives() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in [*FILES, AUTH])
    assert not re.search(r"security_opt|privileged|cap_add|network_mode|pid:|docker\.sock", text)


def test_the_gpu_override_changes_image_and_card_and_nothing_else(client: list[str]) -> None:
    plain, services = config(client), config(client, files=FILES, MILVUS_GPU="1")
    milvus = services["milvus"]
    assert milvus.pop("image") == plain["milvus"].pop("image") + "-gpu"
    (device,) = milvus.pop("deploy")["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    assert services == plain
