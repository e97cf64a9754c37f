"""The pages for people: ``/`` says how to use the server, ``/inside`` shows a model at work."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, get
from lolama_serve.server import Server

_POLICY = "; ".join(
    (
        "default-src 'none'",
        *("style-src 'self'", "script-src 'self'", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)

_EXAMPLE = "http://127.0.0.1:8080"
"""The address in the page's file. Whoever reads the page is told the one by which they came."""

FILES = {
    "/": ("page.html", "text/html", "How to use the server."),
    "/page.css": ("page.css", "text/css", "The style of all pages."),
    "/inside": ("inside.html", "text/html", "A model at work, part by part."),
    "/inside.css": ("inside.css", "text/css", "The style of that page."),
    "/inside.js": ("inside.js", "text/javascript", "The script of that page."),
    "/parts.js": ("parts.js", "text/javascript", "The parts that it draws."),
    "/draw.js": ("draw.js", "text/javascript", "What they are drawn with."),
    "/sampling.js": ("sampling.js", "text/javascript", "What sampling makes of a distribution."),
}
"""Address → a file of ``pages/``, its type, and what it is."""


def routes(server: Server) -> list[Endpoint]:
    """The pages and what they are made of, unless the server shows none."""
    folder = files("lolama_serve").joinpath("pages")

    def endpoint(path: str) -> Endpoint:
        name, media_type, about = FILES[path]

        async def show(request: Request) -> Response:
            if not server.options.page:
                raise APIError(404, "the server was started without a page")
            text = folder.joinpath(name).read_text(encoding="utf-8")
            if path == "/":
                text = text.replace(_EXAMPLE, escape(str(request.base_url).rstrip("/")))
            headers = {"Content-Security-Policy": _POLICY}
            return Response(text, media_type=media_type, headers=headers)

        return get(path, show, about)

    return [endpoint(path) for path in FILES]
