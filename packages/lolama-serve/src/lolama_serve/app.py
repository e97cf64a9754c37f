"""The server as an ASGI application: the routes of all its APIs, behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from lolama_core.protocols.serving import ModelHost
from lolama_serve.api import (
    anthropic,
    embeddings,
    explain,
    llama_cpp,
    models,
    ollama,
    ollama_models,
    openai_chat,
    openai_completions,
    own,
    page,
    status,
    tokens,
)
from lolama_serve.errors import APIError
from lolama_serve.guard import Guard
from lolama_serve.http import error_response
from lolama_serve.openapi import description
from lolama_serve.options import ServeOptions
from lolama_serve.server import Server


def make_app(host: ModelHost, options: ServeOptions) -> Starlette:
    """The server as an ASGI application.

    Args:
        host: Where models come from.
        options: What it is started with.
    """
    server = Server(host, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with server.running():
            yield

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reasons = {
            404: "there is nothing at this address; GET /openapi.json lists all that there are",
            405: f"this address does not take {request.method:.20}; GET /openapi.json says what it takes",
        }
        reason = reasons.get(error.status_code, str(error.detail))
        answer = error_response(request.scope["path"], APIError(error.status_code, reason))
        answer.headers.update(error.headers or {})  # such as Allow
        return answer

    parts = (
        openai_chat,
        openai_completions,
        anthropic,
        ollama,
        llama_cpp,
        embeddings,
        models,
        ollama_models,
        tokens,
        status,
        own,
        explain,
        page,
    )
    endpoints = [endpoint for part in parts for endpoint in part.routes(server)]
    app = Starlette(
        routes=[*endpoints, description(endpoints)],
        middleware=[Middleware(Guard, options=options)],
        exception_handlers={HTTPException: refused},
        lifespan=lifespan,
    )
    # A redirect would repeat to the client what its own header Host says.
    app.router.redirect_slashes = False
    app.state.server = server
    return app
