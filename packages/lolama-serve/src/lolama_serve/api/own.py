"""What lolama's own commands ask: prompts as a command line has them, and answers as it tells them.

An answer is a stream of JSON, an object a line. A blank line says that the server still works on it. The
stream begins before the model is loaded, which may take minutes, so an error is a line of it, too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lolama_core.protocols.errors import (
    EXIT_AUTHORISATION,
    EXIT_RESOURCES,
    EXIT_USAGE,
    LolamaError,
    UsageError,
)
from lolama_core.protocols.logprobs import logprob_facts
from lolama_core.protocols.serving_commands import (
    COMMAND_PROTOCOL,
    CommandGrammar,
    CommandHost,
    CommandModel,
    NamedPicture,
    Turn,
)
from lolama_core.protocols.types import JSON
from lolama_serve.api.pictures import decoded_picture
from lolama_serve.errors import APIError, api_error
from lolama_serve.http import Endpoint, JSONResponse, Stream, get, post, to_json
from lolama_serve.job import Answer, Job, Piece, Running
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

MOST_PICTURES = 64
"""Pictures of a prompt: as many as the command takes without a server."""

_EXIT_CODES = {
    401: EXIT_AUTHORISATION,
    403: EXIT_AUTHORISATION,
    429: EXIT_RESOURCES,
    503: EXIT_RESOURCES,
}


class OwnTurn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A message of a prompt; ``pictures`` of its pictures stand before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: int = 0


class OwnPicture(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A picture: what errors call it, and its file in base64."""

    name: str
    data: str


class OwnGrammar(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an answer may be: the language of its source, and the source."""

    kind: Literal["schema", "regex", "lark", "gbnf"]
    source: str


class OwnRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The prompt of a command, all settings of its answer, and what it waits for."""

    model: str
    place: str | None = None
    until: Literal["model", "prompt", "end"] = "end"
    turns: list[OwnTurn] = []
    pictures: list[OwnPicture] = []
    raw: bool = False
    alone: bool = False
    limited: bool = True
    thinking: bool | None = None
    image_mode: Literal["crop", "pad"] | None = None
    grammar: OwnGrammar | None = None
    settings: dict[str, Any] = {}


def routes(server: Server) -> list[Endpoint]:
    """The endpoints; none for models that do not answer commands."""
    host = server.host
    if not isinstance(host, CommandHost):
        return []

    async def about(request: Request) -> Response:
        facts: dict[str, Any] = {
            "lolama": host.version,
            "protocol": COMMAND_PROTOCOL,
            "store": await server.in_thread(lambda: host.store),
            "rows": server.options.parallel + server.options.max_queue,
            "max_tokens": server.options.max_tokens,
        }
        name = request.query_params.get("model")
        if name is not None:
            try:
                place = request.query_params.get("place")
                called = await server.in_thread(host.called, name, place)
            except LolamaError as error:
                return JSONResponse({**facts, "error": own_error(error)})
            facts["model"] = {
                "identity": called.identity,
                "sees_pictures": called.sees_pictures,
                "recommended": called.recommended,
                "notice": called.notice,
            }
        return JSONResponse(facts)

    async def generate(body: OwnRequest) -> Response:
        return Stream(
            _lines(server, host, body),
            held=AsyncExitStack(),
            failed=lambda error: _line({"error": own_error(error)}),
            media_type="application/x-ndjson",
            keep_alive=b"\n",
        )

    return [
        get("/lolama/server", about, "What lolama's own commands ask of the server first."),
        post("/lolama/generate", OwnRequest, generate, "Answer a prompt of lolama's own commands."),
    ]


def own_error(error: Exception) -> dict[str, Any]:
    """An error as the command tells it: its three parts, and the exit code."""
    if isinstance(error, LolamaError):
        parts = {"subject": error.subject, "reason": error.reason, "remedy": error.remedy}
        return {"kind": type(error).__name__, **parts, "exit_code": error.exit_code}
    answer = api_error(error)
    code = EXIT_USAGE if answer.status < 500 else 1
    return {
        "kind": answer.code or answer.type,
        "subject": "",
        "reason": answer.message,
        "remedy": "",
        "exit_code": _EXIT_CODES.get(answer.status, code),
        "retry_after": answer.retry_after,
    }


async def _lines(server: Server, host: CommandHost, body: OwnRequest) -> AsyncIterator[bytes]:
    try:
        async for event in _events(server, host, body):
            yield _line(event)
    except LolamaError as error:
        yield _line({"error": own_error(error)})


async def _events(
    server: Server, host: CommandHost, body: OwnRequest
) -> AsyncIterator[Mapping[str, Any]]:
    """What happens to a request, as far as it wants to go."""
    called = await server.in_thread(host.called, body.model, body.place)
    async with AsyncExitStack() as stack:
        begun = time.monotonic()
        loaded = await stack.enter_async_context(server.generator.model(called.name))
        model = loaded.model
        assert isinstance(model, CommandModel)
        run_on = {name: model.facts[name] for name in ("device", "dtype")}
        waited = time.monotonic() - begun
        facts = {**model.command_facts, **run_on, "context": loaded.context, "waited": waited}
        yield {"model": facts}
        if body.until == "model":
            return
        prompt = await server.in_thread(_prompt, loaded, model, body)
        yield {"prompt": prompt.positions}
        if body.until == "prompt":
            return
        if prompt.positions == loaded.context and body.limited:
            yield {"end": _no_room(body, prompt.positions)}
            return
        job = Job(prompts=[prompt], settings=_settings(body))
        running = await stack.enter_async_context(server.generator.run(loaded, job))
        async for step in running:
            if isinstance(step, Piece):
                count = len(step.ids)
                for part in step.parts:
                    yield {part.kind: part.text, "tokens": count}
                    count = 0
                if count:  # whose text is not certain yet
                    yield {"text": "", "tokens": count}
            elif isinstance(step, Answer):
                yield {"end": _end(step, running, body)}


def _prompt(loaded: LoadedModel, model: CommandModel, body: OwnRequest) -> Any:
    if not body.turns:
        raise APIError(400, "turns: is empty; give at least one", param="turns")
    if len(body.pictures) > MOST_PICTURES:
        raise APIError(400, f"pictures: give {MOST_PICTURES} at most", param="pictures")
    pictures = [
        NamedPicture(one.name, decoded_picture(one.data, f"pictures[{number}]"))
        for number, one in enumerate(body.pictures)
    ]
    grammar = body.grammar
    return model.command_prompt(
        [Turn(turn.role, turn.text, turn.pictures) for turn in body.turns],
        pictures,
        raw=body.raw,
        alone=body.alone,
        thinking=body.thinking,
        image_mode=body.image_mode,
        most=loaded.context if body.limited else None,
        grammar=None if grammar is None else CommandGrammar(grammar.kind, grammar.source),
    )


def _settings(body: OwnRequest) -> dict[str, Any]:
    """The settings by lolama's names; keys of JSON are texts, and token ids are numbers."""
    settings = dict(body.settings)
    biases = settings.get("logit_bias")
    if isinstance(biases, dict):
        try:
            settings["logit_bias"] = {int(key): bias for key, bias in biases.items()}
        except ValueError:
            raise UsageError("logit_bias", "has a key that is no token id", "give ids") from None
    return settings


def _end(answer: Answer, running: Running, body: OwnRequest) -> dict[str, Any]:
    result, positions = answer.result, running.positions[answer.index]
    # The engine was asked for no more tokens than the context has room for.
    room, wanted = running.loaded.context - positions, body.settings.get("max_new_tokens")
    short = isinstance(wanted, int) and wanted > room == running.settings["max_new_tokens"]
    tokenizer = running.loaded.model.tokenizer
    return {
        "text": answer.text(),
        "thinking": answer.text("thought") or None,
        "ids": [*map(int, result.ids)],
        "finish_reason": result.finish_reason,
        "context_full": result.finish_reason == "length" and short,
        "prompt_tokens": positions,
        "cached_tokens": result.cached_tokens,
        "drafted_tokens": result.drafted_tokens,
        "accepted_tokens": result.accepted_tokens,
        "seed": running.settings["seed"],
        "logprobs": logprob_facts(result.logprobs, tokenizer),
    }


def _no_room(body: OwnRequest, positions: int) -> dict[str, Any]:
    """The answer to a prompt that fills the context, which has no token."""
    logprobs: list[JSON] | None = None if body.settings.get("logprobs") is None else []
    return {
        "text": "",
        "thinking": None,
        "ids": [],
        "finish_reason": "length",
        "context_full": body.settings.get("max_new_tokens") != 0,
        "prompt_tokens": positions,
        "cached_tokens": 0,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
        "seed": body.settings.get("seed"),
        "logprobs": logprobs,
    }


def _line(event: Mapping[str, Any]) -> bytes:
    return to_json(event) + b"\n"
