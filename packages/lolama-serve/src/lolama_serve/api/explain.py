"""What a model computes for a text, part by part, and what it says without some of its parts."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lolama_core.protocols.explaining import ExplainedModel, PartsOff
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, get, post
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

MOST_CHARACTERS = 4_000
"""Characters of a text that is explained."""

MOST_TOKENS = 256
"""Tokens of a continuation."""


class Off(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parts that are switched off; a head and a neuron have the number of their layer first."""

    layers: list[int] = []
    heads: list[tuple[int, int]] = []
    neurons: list[tuple[int, int]] = []


class ExplainRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A text, and the parts that the model does without."""

    text: str
    model: str | None = None
    off: Off = msgspec.field(default_factory=Off)


class ContinueRequest(ExplainRequest, kw_only=True, forbid_unknown_fields=True):
    """The same, and the number of tokens that follow it at most."""

    tokens: int = 32


def routes(server: Server) -> list[Endpoint]:
    """The endpoints."""

    async def explain(body: ExplainRequest) -> Response:
        _check(body)
        async with server.pool.use(body.model) as loaded:
            model = _explained(loaded)
            return JSONResponse(await server.in_thread(model.explain, body.text, _parts(body)))

    async def go_on(body: ContinueRequest) -> Response:
        _check(body)
        if not 1 <= body.tokens <= MOST_TOKENS:
            raise APIError(400, f"tokens: give 1 to {MOST_TOKENS}", param="tokens")
        async with server.pool.use(body.model) as loaded:
            model, off = _explained(loaded), _parts(body)
            text = await server.in_thread(model.continued, body.text, off, body.tokens)
        return JSONResponse({"text": text})

    async def reference(request: Request) -> Response:
        async with server.pool.use(request.query_params.get("model")) as loaded:
            return JSONResponse(_explained(loaded).reference)

    return [
        get("/lolama/reference", reference, "The code, on a page, of what is explained."),
        post("/lolama/explain", ExplainRequest, explain, "What a model computes for a text."),
        post("/lolama/continue", ContinueRequest, go_on, "How a text goes on without some parts."),
    ]


def _check(body: ExplainRequest) -> None:
    if len(body.text) > MOST_CHARACTERS:
        raise APIError(400, f"text: give {MOST_CHARACTERS:,} characters at most", param="text")


def _explained(loaded: LoadedModel) -> ExplainedModel:
    if not isinstance(loaded.model, ExplainedModel):
        raise APIError(400, f"model: {loaded.served.name} cannot be watched", param="model")
    return loaded.model


def _parts(body: ExplainRequest) -> PartsOff:
    off = body.off
    return PartsOff(layers=off.layers, heads=off.heads, neurons=off.neurons)
