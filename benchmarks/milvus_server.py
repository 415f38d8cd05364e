"""A real Milvus server of one's own for as long as a ``with`` block lasts, for tests and benchmarks.

It is the one of the wheel ``milvus==2.3.5`` (Linux, x86-64), the last that PyPI has: every part in one process, data in
one folder, reached on 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

STARTED_WITHIN_S = 90.0


@dataclass(frozen=True)
class Server:
    """A server that has answered."""

    uri: str
    pid: int


@contextmanager
def milvus_server(folder: Path) -> Iterator[Server]:
    """A fresh server whose data and unpacked binaries, half a gigabyte, are in `folder`, which goes with it.

    Raises
    ------
    ImportError
        If the wheel is not installed.
    RuntimeError, TimeoutError
        If the server ends at once, or does not answer in time.
    """
    import milvus

    etcd, peer = _free_port(), _free_port()
    server = milvus.MilvusServer(
        milvus.MilvusServerConfig(data_dir=str(folder), etcd_port=etcd), wait_for_started=False
    )
    server.config.set("log.level", "warn")
    for part in ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"):
        server.config.set(f"{part}.ip", "127.0.0.1")
    (folder / "etcd.yaml").write_text(
        f"listen-client-urls: http://127.0.0.1:{etcd}\nadvertise-client-urls: http://127.0.0.1:{etcd}\n"
        f"listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n"
        f"initial-cluster: default=http://127.0.0.1:{peer}\n"
    )
    # Its etcd takes fixed ports otherwise, which another Milvus may hold.
    with patch.dict(os.environ, ETCD_CONFIG_PATH=str(folder / "etcd.yaml")):
        server.start()
    process, server.server_proc = server.server_proc, None  # ours to stop: the wrapper kills it after a second
    try:
        _await_health(process, f"http://127.0.0.1:{server.webservice_port}/healthz", folder / "logs")
        yield Server(f"http://127.0.0.1:{server.listen_port}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def _await_health(process: subprocess.Popen[bytes], url: str, logs: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the Milvus server ended with {process.returncode}; see {logs}")
        try:
            if b"OK" in urllib.request.urlopen(url, timeout=2).read():
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"the Milvus server is not healthy after {STARTED_WITHIN_S:g} s; see {logs}")
