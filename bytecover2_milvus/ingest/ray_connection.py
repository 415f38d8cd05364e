"""The connection to a Ray cluster, or to one of this machine alone that is started for it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from ..cpu import usable_cores
from ..errors import ClusterError
from ..extras import why_not_imported

LOCAL = "local"  # the address of a cluster of this machine alone, which ends with the run
KNOCK_S = 10.0  # longest wait until an address takes a connection
LOOPBACK = "127.0.0.1"
OBJECT_STORE = 80 << 20  # bytes, of a local cluster: about the least that Ray takes


def connect(address: str, workers: int | None) -> ModuleType:
    """The module `ray`, connected to the cluster at an address; `workers` are the cores of one that is started here.

    Raises
    ------
    ClusterError
        If Ray is not installed, nothing answers, or the cluster has another version of Ray or Python.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # it tells of deaths on stdout, where the records go
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(why_not_imported(error, "ray")) from error

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": workers or usable_cores(), "object_store_memory": OBJECT_STORE}
        options |= {"include_dashboard": False}
    try:
        _probe(address)
        with _sigterm_kept(), _private() if address == LOCAL else nullcontext():
            ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:  # nobody, other versions, no token
        raise ClusterError(f"no Ray cluster to be used at {address} ({' '.join(str(error).split())})") from error
    return ray


@contextmanager
def _private() -> Iterator[None]:
    """Let only this user of this machine reach a cluster that is started in the block.

    Ray listens everywhere unless its address is 127.0.0.1, which it takes only where it supports no clusters, and
    writes its token to ``~/.ray/auth_token`` for whoever may read that.
    """
    import ray
    from ray._private import ray_constants

    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        token.chmod(0o600)
    supported, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    mask = os.umask(0o077)
    try:
        yield
        own = ray.util.get_node_ip_address()
        if own != LOOPBACK:
            ray.shutdown()
            raise RuntimeError(f"it would listen at {own}, where others reach it; start a cluster with ray start")
    finally:
        os.umask(mask)
        ray_constants.ENABLE_RAY_CLUSTER = supported


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, which Ray replaces by one that ends this process in its own way."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _probe(address: str) -> None:
    """Raise an OSError at once where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
