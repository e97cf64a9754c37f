"""Texts and token ids: ``/tokenize``, ``/detokenize``, ``/apply-template``."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from lolama_core.protocols import Tokenizer
from lolama_core.protocols.serving import ServedModel
from lolama_serve.api.messages import ChatMessage, Tool, conversation
from lolama_serve.api.token_texts import token_bytes, token_text
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, post
from lolama_serve.server import Server


class TokenizeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``/tokenize``."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class DetokenizeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``/detokenize``."""

    tokens: list[int]
    model: str | None = None


class TemplateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``/apply-template``."""

    messages: list[ChatMessage]
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    model: str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoints."""

    async def tokenize(body: TokenizeRequest) -> Response:
        async with server.pool.use(body.model) as loaded:
            tokenizer = loaded.model.tokenizer
            ids = await server.in_thread(
                tokenizer.encode_ids,
                body.content,
                add_special_tokens=body.add_special,
                split_special_tokens=not body.parse_special,
            )
            tokens = await server.in_thread(_pieces, loaded.model, ids) if body.with_pieces else ids
        return JSONResponse({"tokens": tokens})

    async def detokenize(body: DetokenizeRequest) -> Response:
        async with server.pool.use(body.model) as loaded:
            tokenizer = loaded.model.tokenizer
            text = await server.in_thread(_text, tokenizer, body.tokens)
        return JSONResponse({"content": text})

    async def apply_template(body: TemplateRequest) -> Response:
        async with server.pool.use(body.model) as loaded:
            model = loaded.model
            turns, _ = conversation(body.messages, sees_pictures=model.sees_pictures)
            tools = [msgspec.to_builtins(tool) for tool in body.tools or ()]
            reply = body.add_generation_prompt
            text = await server.in_thread(model.render, turns, tools=tools, reply=reply)
        return JSONResponse({"prompt": text})

    return [
        post("/tokenize", TokenizeRequest, tokenize, "A text as token ids."),
        post("/detokenize", DetokenizeRequest, detokenize, "Token ids as a text."),
        post("/apply-template", TemplateRequest, apply_template, "A chat as its prompt."),
    ]


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    wrong = next((one for one in ids if not 0 <= one < tokenizer.vocab_size), None)
    if wrong is not None:
        limit = tokenizer.vocab_size
        raise APIError(400, f"tokens: {wrong} is no id below {limit}", param="tokens")
    return tokenizer.decode(ids, skip_special_tokens=False)


def _pieces(model: ServedModel, ids: list[int]) -> list[dict[str, Any]]:
    return [_piece(model, one) for one in ids]


def _piece(model: ServedModel, token_id: int) -> dict[str, Any]:
    text = token_text(model, token_id)
    # A token that is a part of a character has bytes, and no text.
    whole = "\N{REPLACEMENT CHARACTER}" not in text
    return {"id": token_id, "piece": text if whole else token_bytes(model, token_id, text)}
