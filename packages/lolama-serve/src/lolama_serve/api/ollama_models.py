"""What models are here, as ollama tells it: ``/api/tags``, ``/api/show``, ``/api/ps``, ``/api/version``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lolama_core.protocols.serving import ServedName
from lolama_core.protocols.types import JSON
from lolama_serve.__about__ import __version__
from lolama_serve.api.models import served_names
from lolama_serve.api.ollama import plain_name
from lolama_serve.api.thinking import thinks
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, error_response, get, post
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

_MANAGED = {
    "/api/pull": "POST",
    "/api/push": "POST",
    "/api/create": "POST",
    "/api/copy": "POST",
    "/api/delete": "DELETE",
}
_SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


class ShowRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for what is known of a model. ``verbose`` adds nothing."""

    model: str
    verbose: bool | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoints, and those that would change which models are here."""

    async def tags(request: Request) -> Response:
        return JSONResponse({"models": [_listed(one) for one in await served_names(server)]})

    async def show(body: ShowRequest) -> Response:
        name = await server.in_thread(server.pool.name_of, plain_name(body.model))
        served = await server.in_thread(server.host.find, name)
        return JSONResponse(_shown(served, server.pool.loaded.get(name)))

    async def ps(request: Request) -> Response:
        limit = server.options.sleep_idle
        return JSONResponse(
            {"models": [_running(one, limit) for one in server.pool.loaded.values()]}
        )

    async def version(request: Request) -> Response:
        return JSONResponse({"version": __version__})

    return [
        get("/api/tags", tags, "The models that are here, as ollama lists them."),
        post("/api/show", ShowRequest, show, "What is known of a model, as ollama tells it."),
        get("/api/ps", ps, "The models in memory, as ollama lists them."),
        get("/api/version", version, "The version of this server."),
        *(_refused(path, method) for path, method in _MANAGED.items()),
    ]


def _refused(path: str, method: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        reason = "no request changes which models are here; run `lolama pull` or `lolama rm` there"
        return error_response(path, APIError(403, reason))

    made = Endpoint(path, answer, methods=[method])
    made.about = "Refused: no request changes which models are here."
    return made


def _listed(one: ServedName) -> dict[str, Any]:
    when = datetime.fromtimestamp(one.created, UTC).isoformat()
    size = one.facts.get("bytes", one.bytes)
    return {**_named(one), "modified_at": when, "size": size, "details": _details(one.facts)}


def _named(one: ServedName) -> dict[str, Any]:
    return {"name": one.name, "model": one.name, "digest": ""}


def _details(facts: Mapping[str, JSON]) -> dict[str, Any]:
    files, family = facts.get("files"), facts.get("family", "")
    parameters = facts.get("parameters")
    gguf = isinstance(files, list) and any(str(name).endswith(".gguf") for name in files)
    return {
        "parent_model": "",
        "format": "gguf" if gguf else "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": _size(parameters) if isinstance(parameters, int) else "",
        "quantization_level": facts.get("scheme") or facts.get("dtype", ""),
    }


def _size(parameters: int) -> str:
    """A number of parameters in short, such as 1.1B."""
    for unit, letter in _SIZES:
        if parameters >= unit:
            return f"{parameters / unit:.1f}{letter}"
    return str(parameters)


def _shown(served: ServedName, loaded: LoadedModel | None) -> dict[str, Any]:
    """What is known of a model; of one in memory, its chat template and what it can do, too."""
    facts = served.facts if loaded is None else {**served.facts, **loaded.model.facts}
    template, family = str(facts.get("chat_template") or ""), facts.get("family", "")
    tokenizer = None if loaded is None else loaded.model.tokenizer
    can = {
        "completion": True,
        "vision": bool(facts.get("vision")),
        "tools": bool(template),  # one that knows of none is told of them in messages
        "thinking": tokenizer is not None and thinks(tokenizer),
    }
    return {
        "modified_at": datetime.fromtimestamp(served.created, UTC).isoformat(),
        "template": template,
        "details": _details(facts),
        "model_info": {
            "general.architecture": family,
            "general.parameter_count": facts.get("parameters"),
            f"{family}.context_length": facts.get("context_length"),
        },
        "capabilities": [name for name, able in can.items() if able],
    }


def _running(one: LoadedModel, limit: float | None) -> dict[str, Any]:
    served, facts = one.served, one.model.facts
    shown = {
        **_named(served),
        "size": served.bytes,
        "size_vram": 0 if facts.get("device") == "cpu" else served.bytes,
        "details": _details({**served.facts, **facts}),
        "context_length": one.context,
    }
    if limit is not None:
        left = limit if one.users else limit - (time.monotonic() - one.used)
        leaves = datetime.now(UTC) + timedelta(seconds=left)
        shown["expires_at"] = leaves.isoformat()
    return shown
