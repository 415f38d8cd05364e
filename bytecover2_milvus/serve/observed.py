"""Every request, from outside of the application: its id, its line in the log, its numbers, and the end of its body."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from .telemetry import Metrics, Stages

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 5.0  # for which the rest of a body that nobody wants is read: who is still sending hears no answer
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger(__name__)


class Observed:
    """An application that is watched.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    names_of_this_machine : bool
        True refuses requests that call this machine by another name than those it has for itself. Without a token, a
        web page could else have its own name stand for this machine, and read what is here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, names_of_this_machine: bool) -> None:
        self._app, self._metrics, self._own_names_only = app, metrics, names_of_this_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        app = self._app
        if self._own_names_only and not _is_own_name(request.headers.get("host", "")):
            app = JSONResponse({"error": "this service answers to localhost only, unless it has a token"}, 421)
        try:
            await app(scope, request.receive, request.send)
        except Exception:
            log.exception("failed", extra={"facts": {"id": request.id}})
            if request.status is None:
                raise
        finally:
            self._note(scope, request)

    def _note(self, scope: Scope, request: _Request) -> None:
        route = getattr(scope.get("route"), "path", "other")  # as it was declared: it holds no names
        seconds, status = time.perf_counter() - request.start, request.status or 500
        self._metrics.count(route, scope["method"], status, seconds, request.stages.seconds)
        facts = {
            "id": request.id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1e3 * seconds, 1),
            "bytes_in": request.bytes_in,
            "bytes_out": request.bytes_out,
        }
        if request.stages.seconds:
            facts["stages_ms"] = {stage: round(1e3 * spent, 1) for stage, spent in request.stages.seconds.items()}
        log.info("request", extra={"facts": facts})


class _Request:
    """The messages of one request, counted on their way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.start = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        self.stages = Stages()
        scope.setdefault("state", {})["stages"] = self.stages
        self.status: int | None = None
        self.bytes_in = self.bytes_out = 0
        sends = "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"
        self._body_ended = not sends

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
        else:
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
            if not self._body_ended:
                await self._linger()
            if not self._body_ended:
                headers["Connection"] = "close"
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)

    async def _linger(self) -> None:
        """Read and forget what is sent yet, unless its sender waits for a word before."""
        if "expect" in self.headers:
            return
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._body_ended:
                    await self.receive()
        except TimeoutError:
            return


def _is_own_name(host: str) -> bool:
    """True if a Host header names this machine as itself."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
