"""The OpenAPI document of the server, made from the structs that its requests are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lolama_serve.http import Endpoint, JSONResponse, get
from lolama_serve.version import FINGERPRINT

_REF = "#/components/schemas/{name}"
_ERRORS = {
    "400": "The request makes no sense; the message says what to change.",
    "401": "A key is needed.",
    "404": "There is no such model.",
    "413": "The body is too large.",
    "429": "Too many requests wait already.",
    "503": "A model is being loaded, or there is too little memory.",
}


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document.

    Args:
        endpoints: All that the server answers.
    """
    bodies = [one.body for one in endpoints if one.body is not None]
    _, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    paths: dict[str, Any] = {}
    for one in endpoints:
        [method] = {name.lower() for name in one.methods or ()} - {"head"}
        path = one.path.replace(":path}", "}")
        paths.setdefault(path, {})[method] = _operation(one, path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lolama serve", "version": FINGERPRINT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def description(endpoints: Sequence[Endpoint]) -> Endpoint:
    """The route that tells the document of all others."""

    async def answer(request: Request) -> Response:
        return JSONResponse(openapi(endpoints))

    return get("/openapi.json", answer, "This document.")


def _operation(one: Endpoint, path: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": one.about,
        "responses": {
            "200": {"description": "The answer."},
            **{code: {"description": text} for code, text in _ERRORS.items()},
        },
    }
    if one.body is not None:
        schema = {"$ref": _REF.format(name=one.body.__name__)}
        content = {"application/json": {"schema": schema}}
        told["requestBody"] = {"required": True, "content": content}
    if "{name}" in path:
        place = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        told["parameters"] = [place]
    return told
