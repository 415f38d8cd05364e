"""A real Milvus server of our own: the binary in the wheel ``milvus==2.3.5``, for benchmarks and tests.

It listens on ports that are free at that moment, and its data stays in its folder, so it can be killed, frozen and
started again at the same address.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
START_TIMEOUT_S = 180.0  # after a kill it reads its log and its etcd first
START_ATTEMPTS = 3  # right after a kill its parts sometimes do not find each other, and it ends
THAW_S = 10.0  # in which it ends if it does not go on
POLLS_MS = {"proxy.timeTickInterval": 200, "queryCoord.checkInterval": 1000, "queryCoord.distPullInterval": 500}
QUICKER = 4  # times as often in a quick server
PORTS = range(20_000, 32_000)  # not those that Linux gives to clients, one of which could take a port before it starts


class MilvusServer:
    """A Milvus standalone that runs for as long as a ``with`` block lasts.

    Half a gigabyte of its folder are its unpacked binaries, unless `binaries` has them.

    Parameters
    ----------
    folder : Path
        Of its data; gone at the end.
    authorization : bool
        Ask for a user and a password.
    quick : bool
        Let its parts look for news four times as often: for tests, which mostly wait for that, and not to measure with.

    Raises
    ------
    ImportError
        If the wheel is not installed; there is one for Linux on x86-64 only.
    """

    binaries: ClassVar[Path | None] = None  # the folder that keeps the unpacked binaries of all servers

    def __init__(self, folder: Path, authorization: bool = False, *, quick: bool = False) -> None:
        settings = {"log.level": "warn", "authorization_enabled": authorization}
        settings |= {key: interval_ms // QUICKER for key, interval_ms in POLLS_MS.items()} if quick else {}
        port, etcd, etcd_peer, self._health_port = _configure(folder, settings)
        unpack(self.binaries or folder)
        # Its etcd takes fixed ports otherwise, which another Milvus may hold.
        (folder / "etcd.yaml").write_text(
            f"listen-client-urls: http://127.0.0.1:{etcd}\nadvertise-client-urls: http://127.0.0.1:{etcd}\n"
            f"listen-peer-urls: http://127.0.0.1:{etcd_peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{etcd_peer}\n"
            f"initial-cluster: default=http://127.0.0.1:{etcd_peer}\n"
        )
        self.folder = folder
        self._bin = (self.binaries or folder) / "bin"
        self.uri = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MilvusServer:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start it, on the data that is there; it is healthy then.

        Raises
        ------
        RuntimeError
            If it ends at once, three times, or is not healthy in three minutes.
        """
        for _attempt in range(START_ATTEMPTS):
            with (self.folder / "logs" / "output.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._bin / "milvus", "run", "standalone"],
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    env=os.environ
                    | {
                        "DEPLOY_MODE": "STANDALONE",
                        "METRICS_PORT": str(self._health_port),
                        "MILVUS_RUN_DIR": str(self.folder / "run"),
                        "LD_LIBRARY_PATH": str(self._bin),
                        "ETCD_CONFIG_PATH": str(self.folder / "etcd.yaml"),
                    },
                )
            if self._becomes_healthy(self._process):
                return
            self.kill()
        said = (self.folder / "logs" / "output.log").read_text(errors="replace").splitlines()
        why = next((line for line in said if "panic" in line), "it does not say why")
        raise RuntimeError(f"the Milvus server does not start in {self.folder}: {why}")

    def answers(self) -> bool:
        """True if it is there, healthy, and listens: on a machine that is busy for long, its parts lose each other."""
        try:
            with socket.create_connection(("127.0.0.1", int(self.uri.rpartition(":")[2])), timeout=2):
                return self.process.poll() is None and self._is_healthy()
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a crash or the kernel would."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """It stays there and does nothing, as on a host that swaps or in a paused container."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on; or it ends, as it may after half a minute, and is started again as Docker would."""
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(THAW_S)
        except subprocess.TimeoutExpired:
            return
        self.start()

    def remove(self) -> None:
        """End it and delete its folder: with its data gone, it need not close them, which may take it half a minute."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the Milvus server was never started")
        return self._process

    def _becomes_healthy(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._is_healthy():
                return True
            time.sleep(0.2)
        return False

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=2) as answer:
                return b"OK" in answer.read()
        except OSError:
            return False


def unpack(folder: Path) -> None:
    """Write the server's binaries, half a gigabyte, into a folder, unless they are there."""
    import milvus

    milvus._initialize_data_files(str(folder))


def _configure(folder: Path, settings: Mapping[str, object]) -> tuple[int, int, int, int]:
    """Write a configuration; the ports of the server, of its etcd for clients and for peers, and of its health.

    Another process may take a port before the package looks at it: then there are others.
    """
    import milvus

    for attempt in range(1, START_ATTEMPTS + 1):
        port, etcd, etcd_peer, health, internal, *others = _free_ports(5 + len(PARTS))
        config = milvus.MilvusServerConfig(data_dir=str(folder), proxy_port=port, etcd_port=etcd)
        for key, value in settings.items():
            config.set(key, value)
        for part, own in zip(PARTS, others, strict=True):  # at their usual ports two servers that start at once meet
            config.set(f"{part}.ip", "127.0.0.1")
            config.set(f"{part}.port", port if part == "proxy" else own)
        config.set("proxy.internalPort", internal)
        try:
            config.resolve()
        except RuntimeError:
            if attempt == START_ATTEMPTS:
                raise
        else:
            break
    return port, etcd, etcd_peer, health


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, held until all are found, so that no two are one."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):  # no seed gives two processes the same ones
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")
