"""The state of the server: ``/health``, ``/metrics``, ``/props``, ``/slots``."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lolama_serve.api.llama_cpp import named_settings
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, get
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server
from lolama_serve.version import FINGERPRINT

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def routes(server: Server) -> list[Endpoint]:
    """The endpoints."""

    async def health(request: Request) -> Response:
        if server.pool.state == "loading":
            raise APIError(503, "a model is being loaded", type="unavailable_error", retry_after=1)
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        if not server.options.metrics:
            raise APIError(501, "this server does not tell its metrics")
        loaded = [*server.pool.loaded.values()]
        running = sum(len(one.running) for one in loaded)
        processing = sum(min(len(one.running), server.options.parallel) for one in loaded)
        text = server.metrics.text(
            processing,
            running - processing,
            sum(one.engine.used_cache_bytes for one in loaded),
            sum(one.engine.kept_cache_bytes for one in loaded),
        )
        response = Response(text, headers={"Content-Type": _PROMETHEUS})
        started = str(int(server.metrics.started)).encode()
        response.raw_headers.append((b"Process-Start-Time-Unix", started))
        return response

    async def props(request: Request) -> Response:
        return JSONResponse(await _props(server, request.query_params.get("model")))

    async def slots(request: Request) -> Response:
        if not server.options.slots:
            raise APIError(501, "this server does not tell what runs")
        loaded = await _looked_at(server, request.query_params.get("model"))
        return JSONResponse(_slots(server, loaded))

    return [
        get("/health", health, "Whether the server is ready."),
        get("/v1/health", health, "Whether the server is ready."),
        get("/metrics", metrics, "Counters, as Prometheus reads them."),
        get("/props", props, "The model and its settings."),
        get("/slots", slots, "The requests that run."),
    ]


async def _props(server: Server, name: str | None) -> dict[str, Any]:
    if server.pool.state == "sleeping":
        return {"is_sleeping": True, "total_slots": server.options.parallel}
    loaded = await _looked_at(server, name)
    model = loaded.model
    settings = named_settings(model.settings(server.options.settings), model.tokenizer)
    if server.options.max_tokens is None:  # an answer may be as long as the context has room for
        settings["n_predict"] = -1
    else:
        settings["n_predict"] = server.options.max_tokens
    return {
        "is_sleeping": False,
        "total_slots": server.options.parallel,
        "model_alias": loaded.served.name,
        "model_path": str(model.facts.get("path", "")),
        "chat_template": model.facts.get("chat_template") or "",
        "modalities": {"vision": model.sees_pictures, "audio": False},
        "default_generation_settings": {"n_ctx": loaded.context, "params": settings},
        "build_info": FINGERPRINT,
        "model": dict(model.facts),
    }


async def _looked_at(server: Server, name: str | None) -> LoadedModel:
    """A model to tell something of. Whoever asks again and again keeps none from leaving the memory."""
    loaded = await server.pool.peek(name)
    if loaded is None:
        async with server.pool.use(name) as loaded:
            pass
    return loaded


def _slots(server: Server, loaded: LoadedModel) -> list[dict[str, Any]]:
    """A slot for each request that may run; those that wait have none."""
    now, found = time.monotonic(), []
    for number in range(server.options.parallel):
        slot: dict[str, Any] = {"id": number, "n_ctx": loaded.context, "is_processing": False}
        if number < len(loaded.running):
            timings = loaded.running[number].timings
            slot |= {
                "is_processing": True,
                "n_prompt_tokens": timings.prompt,
                "n_decoded": timings.tokens,
                "seconds": round(now - timings.submitted, 3),
            }
        found.append(slot)
    return found
