"""``/v1/models``: what is here."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lolama_core.protocols.errors import LolamaError
from lolama_core.protocols.serving import ServedName
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, get
from lolama_serve.server import Server


def routes(server: Server) -> list[Endpoint]:
    """The list of the models, and each by its name."""

    async def list_models(request: Request) -> Response:
        found = await served_names(server)
        return JSONResponse({"object": "list", "data": [_facts(one) for one in found]})

    async def show_model(request: Request) -> Response:
        name = request.path_params["name"]
        for found in await served_names(server):
            if name == found.name or name in found.aliases:
                return JSONResponse(_facts(found))
        raise APIError(404, f"there is no model {name!r:.200} here", code="model_not_found")

    return [
        get("/v1/models", list_models, "The models that are here."),
        get("/models", list_models, "The models that are here."),
        get("/v1/models/{name:path}", show_model, "One of them."),
    ]


async def served_names(server: Server) -> list[ServedName]:
    """The models that the server was started with, or else all that are here."""
    if server.options.models:
        return await server.in_thread(_found, server)
    return [*await server.in_thread(server.host.names)]


def _found(server: Server) -> list[ServedName]:
    """Those of the start. One that has vanished since then does not take the others with it."""
    found = []
    for name in server.options.models:
        with suppress(LolamaError):
            found.append(server.host.find(name))
    return found


def _facts(one: ServedName) -> dict[str, Any]:
    return {
        "id": one.name,
        "object": "model",
        "created": one.created,
        "owned_by": "lolama",
        "aliases": [one.name, *one.aliases],
        "tags": [*one.tags],
        "meta": dict(one.facts),
    }
