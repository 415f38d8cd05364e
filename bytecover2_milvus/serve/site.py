"""The page at /, its style and its scripts, under a policy that lets it reach this service alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from string import Template

from fastapi import APIRouter, Response

from ..pages.alignment import players
from ..pages.document import template

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
KINDS = {".css": "text/css", ".mjs": "text/javascript"}
SHARED = ("page.css", "alignment.css", "duet.mjs", "alignment.mjs")  # with the pages of one file
OWN = ("serve.css", "serve.mjs")


def page_routes() -> APIRouter:
    """The routes of the page. They need no token, as they tell nothing of the catalogue; the page asks for it."""
    router = APIRouter(include_in_schema=False)
    index = Template(_own("index.html")).substitute(players=players())
    router.add_api_route("/", _giving(index, "text/html"), methods=["GET", "HEAD"])
    for names, read in ((SHARED, template), (OWN, _own)):
        for name in names:
            router.add_api_route(f"/{name}", _giving(read(name), KINDS[name[-4:]]), methods=["GET", "HEAD"])
    return router


def _own(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


def _giving(text: str, kind: str) -> Callable[[], Response]:
    def give() -> Response:
        return Response(text, media_type=kind, headers=HEADERS)

    return give
