"""``/v1/embeddings``: a vector for each text, the mean of the model's last hidden states, of length 1."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Literal

import msgspec
from starlette.responses import Response

from lolama_serve.api.openai_completions import Texts, one_by_one, prompt_of
from lolama_serve.errors import APIError, ContextExceeded
from lolama_serve.http import Endpoint, JSONResponse, post
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

MOST_TEXTS = 2_048
"""Texts of one request: OpenAI's limit."""


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body. ``user`` is not looked at; ``dimensions`` may only be those that the model has."""

    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoint."""

    async def answer(body: EmbeddingRequest) -> Response:
        async with server.generator.model(body.model) as loaded:
            found, tokens = await embed_texts(server, loaded, one_by_one(body.input, "input"))
            name = loaded.served.name
        check_dimensions(body.dimensions, found)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body)}
            for index, vector in enumerate(found)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": name, "data": data, "usage": usage})

    paths = ("/v1/embeddings", "/embeddings")
    return [post(path, EmbeddingRequest, answer, "A vector for each text.") for path in paths]


async def embed_texts(
    server: Server, loaded: LoadedModel, texts: Sequence[str | list[int]]
) -> tuple[list[list[float]], int]:
    """A vector for each text, and how many tokens all of them have.

    Raises:
        APIError: for too many texts, an empty one, or one that is longer than the context.
    """
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise APIError(400, f"input: give 1 to {MOST_TEXTS} texts", param="input")
    found, tokens = [], 0
    for text in texts:
        prompt = await server.in_thread(prompt_of, loaded.model, text)
        if not prompt.ids:
            raise APIError(400, "input: holds an empty text", param="input")
        if prompt.positions > loaded.context:
            raise ContextExceeded(prompt.positions, loaded.context)
        found.append(await server.in_thread(loaded.model.embedding, prompt.ids))
        tokens += prompt.positions
    return found, tokens


def check_dimensions(asked: int | None, found: Sequence[Sequence[float]]) -> None:
    """Refuse another number of dimensions than the model has."""
    if asked not in (None, len(found[0])):
        raise APIError(400, f"dimensions: this model has {len(found[0])}", param="dimensions")


def _encoded(vector: list[float], body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
