"""The routes of the service. Whoever reads the OpenAPI document at ``/openapi.json`` knows what follows."""

from __future__ import annotations

import asyncio
import hmac
import logging
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from .. import __version__
from ..errors import BytecoverError
from ..labels import Label
from ..milvus.alias import list_collections
from ..milvus.collection import TrackCollection
from . import forms, pairs
from .files import audio_of, below
from .observed import Observed
from .refusal import Refused, refusal_of
from .site import page_routes
from .upload import FIELD, Recording, read_form

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.types import ASGIApp

    from .service import Service

LONGEST_PROBLEM = 1_000  # characters: what is wrong with a request is as long as its sender likes
READY_S = 5.0  # in which Milvus has to answer who asks whether the service is ready
_FORM: dict[str, Any] = {  # of requests with an upload; FastAPI would keep the file in memory or copy it
    "requestBody": {
        "description": f"The recording as the field `{FIELD}`, unless `path` names one.",
        "required": False,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": forms.Problem, "description": "What is wrong with the request."},
    "5XX": {"model": forms.Problem, "description": "What is wrong here."},
}

_BEARER = HTTPBearer(auto_error=False, description="The token that the operator has set.")

log = logging.getLogger(__name__)


def make_app(service: Service) -> ASGIApp:
    """The service as an ASGI application."""
    settings = service.settings
    app = FastAPI(
        title="bytecover2-milvus",
        version=__version__,
        description="Covers of a recording in a catalogue, with probability and evidence.",
        openapi_url=None,  # it needs the token, as all but the probes do
        docs_url=None,  # their pages load programs from elsewhere
        redoc_url=None,
    )
    app.include_router(_probes(service))
    app.include_router(_routes(service, app))
    app.include_router(page_routes())
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(BytecoverError, _not_served)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return Observed(app, service.metrics, settings.is_local and not settings.token)


def _probes(service: Service) -> APIRouter:
    """The routes that need no token, as they say nothing of the catalogue."""
    router = APIRouter(tags=["probes"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", responses={503: {"model": forms.Readiness}})
    async def readyz(response: Response) -> forms.Readiness:
        """Milvus answers, and the collection is there."""
        try:
            await asyncio.wait_for(asyncio.to_thread(service.look), READY_S)
        except (TimeoutError, BytecoverError):
            service.metrics.ready.set(0)
            response.status_code = 503
            return forms.Readiness(False, "Milvus does not answer, or has no such collection; the log has the reason")
        service.metrics.ready.set(1)
        return forms.Readiness(True, "")

    return router


def _routes(service: Service, app: FastAPI) -> APIRouter:
    """The routes that need the token, if there is one."""
    settings = service.settings

    async def authorized(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        told = given.credentials if given else ""
        if settings.token and not hmac.compare_digest(told.encode("utf-8", "replace"), settings.token.encode()):
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    router = APIRouter(dependencies=[Depends(authorized)], responses=_PROBLEMS)
    for part in (_recordings(service), _catalogue(service), _operation(service, app)):
        router.include_router(part)
    return router


def _recordings(service: Service) -> APIRouter:
    """The routes for recordings that are sent or named, and for pairs of them."""
    settings, embedder = service.settings, service.embedder
    router = APIRouter(tags=["recordings"])

    def recording_of(request: Request, path: str | None) -> Callable[[float], Awaitable[Recording]]:
        if path is None:
            return partial(service.uploads.receive, request)
        if "content-type" in request.headers:
            raise Refused(400, "a path or an upload, not both")
        return partial(_named, settings.folder, path)

    @router.post("/v1/query", openapi_extra=_FORM)
    async def query(request: Request, options: Annotated[forms.QueryOptions, Query()]) -> forms.QueryAnswer:
        """The covers of a recording, the most probable first, with where the tune runs in both.

        Where the catalogue has no second stage, the closest by similarity, without a verdict.
        """
        question = options.question()
        if question.filter or question.distinct or question.rerank:
            await asyncio.to_thread(service.check, question)
        receive, stages = recording_of(request, options.path), request.state.stages
        told = await service.work(receive, partial(service.query, question, options.features), stages)
        name, answer = told.name, told.answer
        return forms.QueryAnswer(
            query=name,
            duration_s=told.duration_s,
            warning=told.warning,
            content_hash=told.content_hash,
            chroma=pairs.chroma_of(told.heard) if options.features else None,
            matches=[forms.found(name, match) for match in answer.matches],
            judged=answer.judged,
            nearest=forms.found(name, answer.nearest) if answer.nearest else None,
            note=told.note,
            collection=told.collection,
            model_id=embedder.model_id,
        )

    @router.post("/v1/embed", openapi_extra=_FORM)
    async def embed(request: Request, options: Annotated[forms.Options, Query()]) -> forms.EmbedAnswer:
        """The embedding of a recording."""
        receive, stages = recording_of(request, options.path), request.state.stages
        told = await service.work(receive, service.embed, stages)
        return forms.EmbedAnswer(
            query=told.name,
            duration_s=told.duration_s,
            warning=told.warning,
            embedding=told.embedding.tolist(),
            model_id=embedder.model_id,
        )

    @router.post("/v1/alignment", openapi_extra=_object(forms.Pair))
    async def alignment(request: Request) -> forms.AlignmentAnswer:
        """The alignment of a recording with a track, drawn."""
        pair = await read_form(request, forms.Pair)
        return await service.compute(partial(pairs.align, service, pair))

    @router.post("/v1/labels", status_code=201, openapi_extra=_object(forms.Judgement))
    async def label(request: Request) -> Label:
        """A judgement, written to the labels file, if the operator takes them."""
        if service.labels is None:
            raise Refused(403, "this service takes no labels: it was started without --labels")
        judgement = await read_form(request, forms.Judgement)
        return await asyncio.to_thread(pairs.keep, service, judgement)

    return router


def _catalogue(service: Service) -> APIRouter:
    """The routes to what is stored."""
    settings = service.settings
    router = APIRouter(tags=["catalogue"])

    # Before the other, as an id may hold a /, too.
    @router.head("/v1/tracks/{track_id:path}/audio", include_in_schema=False)
    @router.get("/v1/tracks/{track_id:path}/audio", response_class=FileResponse)
    def audio(request: Request, track_id: str) -> Response:
        """The file of a stored track, or parts of it (Range), if the operator gives them out."""
        if not request.scope.get("raw_path", b"/audio").endswith(b"/audio"):  # but %2Faudio, the end of an id
            return JSONResponse(asdict(_track(service, f"{track_id}/audio")))
        if not settings.allow_audio:
            raise Refused(403, "this service gives out no audio: it was started without --allow-audio")
        file = audio_of(pairs.rows_of(service, track_id)[0].path)
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return FileResponse(file, media_type=kind, content_disposition_type="inline")

    @router.get("/v1/tracks/{track_id:path}")
    def track(track_id: str) -> forms.Track:
        """A stored track. In its id, / is best written %2F."""
        return _track(service, track_id)

    @router.get("/v1/collections")
    def collections() -> forms.Collections:
        """The collections of embeddings in this Milvus."""
        names = list_collections(service.client)
        described = [TrackCollection.open(service.client, name, load=False).describe() for name in names]
        return forms.Collections(described, service.catalogue.name)

    return router


def _operation(service: Service, app: FastAPI) -> APIRouter:
    """The routes for who runs the service or builds upon it."""
    settings = service.settings
    router = APIRouter(tags=["operation"])

    @router.get("/v1/service")
    def facts() -> forms.ServiceFacts:
        """The collection, the model and the bounds of this service, and whether it gives audio and takes labels."""
        limits = settings.limits
        return forms.ServiceFacts(
            collection=service.catalogue.name,
            model_id=service.embedder.model_id,
            audio=settings.allow_audio,
            labels=service.labels is not None,
            maximum_bytes=limits.maximum_bytes,
            maximum_s=limits.maximum_s,
        )

    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Numbers of this process for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    return router


def _object(form: type[BaseModel]) -> dict[str, Any]:
    """The words of the OpenAPI document on a request that `read_form` reads."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": form.model_json_schema()}}}}


async def _named(folder: Path | None, name: str, _deadline: float) -> Recording:
    return await asyncio.to_thread(below, folder, name)


def _track(service: Service, track_id: str) -> forms.Track:
    rows = pairs.rows_of(service, track_id)
    row = rows[0]
    return forms.Track(
        track_id=row.track_id,
        work_id=row.work_id,
        title=row.title,
        artist=row.artist,
        path=row.path,
        duration_s=row.duration_s,
        content_hash=row.content_hash,
        segments=sum(not other.is_whole for other in rows),
        metadata=dict(row.metadata),
        warning=row.warning,
        audio=f"/v1/tracks/{quote(row.track_id, safe='')}/audio" if service.settings.allow_audio else None,
    )


def _problem(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": " ".join(reason.split())}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if error.status >= 500:
        log.warning("refused", extra={"facts": {"status": error.status, "reason": error.reason}})
    return _problem(error.status, error.reason, error.headers)


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, BytecoverError)
    return await _refused(request, refusal_of(error))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "no such route", 405: f"{request.method} is not for this route"}.get(error.status_code)
    reason = f"{told}; / is the page, and /openapi.json lists the routes" if told else str(error.detail)
    return _problem(error.status_code, reason, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = (f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors())
    return _problem(422, "; ".join(told)[:LONGEST_PROBLEM])


async def _failed(_request: Request, _error: Exception) -> Response:
    return _problem(500, "a fault of this service; its log has more under the X-Request-ID of this answer")
