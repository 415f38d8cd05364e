"""The service as a process: uvicorn, lines of JSON, and an end that answers what is under way."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ..parallel import ENDINGS
from .app import make_app
from .service import Service
from .telemetry import log_as_json

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from ..embedding.embedder import Embedder
    from .settings import Settings

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Uvicorn that says where it listens, and whose end by a signal is no failure."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
                log.info("listening", extra={"facts": {"host": host, "port": port, "url": url}})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the service within the block; its own way of doing it would raise them again afterwards."""
        before = {number: signal.getsignal(number) for number in ENDINGS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        log.info("stopping", extra={"facts": {"signal": signal.Signals(sig).name}})
        super().handle_exit(sig, frame)


def run(settings: Settings, client: MilvusClient, collection: str, embedder: Embedder) -> None:
    """Serve until a signal comes; then refuse connections, answer what is under way, and return.

    Raises
    ------
    CollectionError
        As `Service`.
    OSError
        If the port is taken, or may not be had.
    """
    log_as_json()
    with _listening(settings) as listening, Service(settings, client, collection, embedder) as service:
        service.warm_up()
        config = uvicorn.Config(
            make_app(service),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.timeout_s) + 1,  # by then all is answered or refused
        )
        _Server(config).run(sockets=[listening])
    log.info("stopped")


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A bound socket, to which nobody can connect before the service is ready."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{settings.host}:{settings.port}") from error
        yield listening
