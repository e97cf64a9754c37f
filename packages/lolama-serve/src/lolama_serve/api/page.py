"""The page at ``/``, which says how to use the server, and the description of its addresses."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, get
from lolama_serve.server import Server

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def routes(server: Server) -> list[Endpoint]:
    """The page and its style, unless the server shows none."""
    folder = files("lolama_serve")

    def shown(name: str, media_type: str) -> Response:
        if not server.options.page:
            raise APIError(404, "the server was started without a page")
        text = folder.joinpath(name).read_text(encoding="utf-8")
        return Response(text, media_type=media_type, headers={"Content-Security-Policy": _POLICY})

    async def page(request: Request) -> Response:
        return shown("page.html", "text/html")

    async def style(request: Request) -> Response:
        return shown("page.css", "text/css")

    return [get("/", page, "How to use the server."), get("/page.css", style, "Its style.")]
