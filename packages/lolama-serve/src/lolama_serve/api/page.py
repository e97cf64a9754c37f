"""The page at ``/``, which says how to use the server, and the description of its addresses."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, get
from lolama_serve.server import Server

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_EXAMPLE = "http://127.0.0.1:8080"
"""The address in the page's file. Whoever reads the page is told the one by which they came."""


def routes(server: Server) -> list[Endpoint]:
    """The page and its style, unless the server shows none."""
    folder = files("lolama_serve")

    def shown(name: str, media_type: str, address: str = "") -> Response:
        if not server.options.page:
            raise APIError(404, "the server was started without a page")
        text = folder.joinpath(name).read_text(encoding="utf-8").replace(_EXAMPLE, escape(address))
        return Response(text, media_type=media_type, headers={"Content-Security-Policy": _POLICY})

    async def page(request: Request) -> Response:
        return shown("page.html", "text/html", str(request.base_url).rstrip("/"))

    async def style(request: Request) -> Response:
        return shown("page.css", "text/css")

    return [get("/", page, "How to use the server."), get("/page.css", style, "Its style.")]
