"""``/api/chat``, ``/api/generate``, ``/api/embed`` and ``/api/embeddings`` of ollama."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response

from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.protocols.serving import ReplyPart, ServedModel, ServedPrompt
from lolama_serve.api.embeddings import check_dimensions, embed_texts
from lolama_serve.api.ollama_messages import (
    GenerateRequest,
    OllamaChatRequest,
    OllamaOptions,
    OllamaRequest,
    grammar,
    leaves,
    prompt_of_chat,
    prompt_of_question,
)
from lolama_serve.api.sampling import answer_length, logprob_settings
from lolama_serve.api.token_texts import chat_logprobs
from lolama_serve.errors import APIError, ContextExceeded
from lolama_serve.http import Endpoint, JSONResponse, Stream, post, to_json, with_not_kept
from lolama_serve.job import Answer, Job, Piece, Running, joined
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

_MEDIA_TYPE = "application/x-ndjson"

Asked = TypeVar("Asked", bound=OllamaRequest)


class EmbedRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for vectors. A text is never cut, whatever ``truncate`` says."""

    model: str
    input: str | list[str]
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: float | str | None = None


class OldEmbedRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for the vector of one text, as ollama's clients sent it before ``/api/embed``."""

    model: str
    prompt: str
    keep_alive: float | str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoints."""

    async def chat(body: OllamaChatRequest) -> Response:
        writer = _Writer(body, _message)
        prompt = prompt_of_chat if body.messages else None
        return await _answer(server, body, writer, prompt, tools=bool(body.tools))

    async def generate(body: GenerateRequest) -> Response:
        writer = _Writer(body, _response)
        prompt = prompt_of_question if body.prompt or body.images else None
        return await _answer(server, body, writer, prompt)

    async def embed(body: EmbedRequest) -> Response:
        began = time.monotonic()
        texts = [body.input] if isinstance(body.input, str) else body.input
        async with _model(server, body.model, body.keep_alive) as loaded:
            load = time.monotonic() - began
            found, tokens = await embed_texts(server, loaded, texts)
            name = loaded.served.name
        check_dimensions(body.dimensions, found)
        facts = {"model": name, "embeddings": found, "prompt_eval_count": tokens}
        took = {"total_duration": _since(began), "load_duration": _nanoseconds(load)}
        return with_not_kept(JSONResponse({**facts, **took}), _not_kept(body.keep_alive))

    async def embed_one(body: OldEmbedRequest) -> Response:
        async with _model(server, body.model, body.keep_alive) as loaded:
            [vector], _ = await embed_texts(server, loaded, [body.prompt])
        return with_not_kept(JSONResponse({"embedding": vector}), _not_kept(body.keep_alive))

    return [
        post("/api/chat", OllamaChatRequest, chat, "Answer a chat, as ollama does."),
        post("/api/generate", GenerateRequest, generate, "Answer a question, as ollama does."),
        post("/api/embed", EmbedRequest, embed, "A vector for each text, as ollama does."),
        post("/api/embeddings", OldEmbedRequest, embed_one, "A vector, as ollama once gave it."),
    ]


def plain_name(name: str) -> str:
    """A model's name as it is told here: ollama's clients add the tag that it has anyway."""
    return name.removesuffix(":latest")


@asynccontextmanager
async def _model(
    server: Server, name: str, keep_alive: float | str | None
) -> AsyncIterator[LoadedModel]:
    """The model, which leaves afterwards if the request wants that."""
    leaving, loaded = leaves(keep_alive), None
    try:
        async with server.generator.model(plain_name(name)) as loaded:
            yield loaded
    finally:
        if leaving and loaded is not None:
            await server.pool.unload(loaded.served.name)


def _not_kept(keep_alive: float | str | None) -> Sequence[str]:
    """How long a model stays is the server's own to say, but for one that is to leave."""
    return () if keep_alive is None or leaves(keep_alive) else ("keep_alive",)


async def _answer(
    server: Server,
    body: Asked,
    writer: _Writer,
    prompt: Callable[[ServedModel, Asked], ServedPrompt] | None,
    *,
    tools: bool = False,
) -> Response:
    """Answer a request; one that asks nothing loads its model, or lets it leave."""
    async with AsyncExitStack() as stack:
        loaded = await stack.enter_async_context(_model(server, body.model, body.keep_alive))
        writer.begin(loaded)
        response: Response
        if prompt is None:
            reason = "unload" if leaves(body.keep_alive) else "load"
            response = JSONResponse(writer.piece((), done=True, done_reason=reason))
            return with_not_kept(response, _not_kept(body.keep_alive))
        job = await server.in_thread(_job, loaded, body, prompt, tools)
        running = await stack.enter_async_context(server.generator.run(loaded, job))
        if body.stream is False:
            [answer] = await running.all()
            facts = writer.end(answer)
            logprobs = answer.result.logprobs or ()
            response = JSONResponse(writer.piece(answer.parts, logprobs, **facts))
        else:
            response = Stream(
                _lines(writer, running),
                held=stack.pop_all(),
                failed=lambda error: _line(error.as_ollama()),
                media_type=_MEDIA_TYPE,
                keep_alive=b" ",  # a parser of JSON skips it, where an empty line would be none
            )
        return with_not_kept(response, _not_kept(body.keep_alive))


def _job(
    loaded: LoadedModel,
    body: Asked,
    prompt: Callable[[ServedModel, Asked], ServedPrompt],
    tools: bool,
) -> Job:
    model, options = loaded.model, body.options or OllamaOptions()
    kind = grammar(body)
    if kind is not None and tools:
        raise APIError(400, "format: is given beside tools; give one of them", param="format")
    made = prompt(model, body)
    length = -1 if options.num_predict == -2 else options.num_predict  # both mean: no limit
    settings = {
        **options.settings(model.tokenizer),
        **answer_length(length),
        **logprob_settings(body.logprobs, body.top_logprobs),
    }
    if options.num_ctx is not None:
        room = _room(loaded, options.num_ctx, made)
        settings["max_new_tokens"] = min(settings.get("max_new_tokens", room), room)
    constraint = None if kind is None else model.constraint(*kind, made)
    return Job(prompts=[made], settings=settings, constraint=constraint)


def _room(loaded: LoadedModel, context: int, prompt: ServedPrompt) -> int:
    """Positions that are left for the answer in a context that the request limits."""
    if context > loaded.context:
        reason = f"is {context:,}, and the server's context has {loaded.context:,}"
        raise APIError(400, f"options.num_ctx: {reason}", param="options.num_ctx")
    if prompt.positions >= context:
        raise ContextExceeded(prompt.positions, context)
    return context - prompt.positions


class _Writer:
    """Writes one answer, whole or in parts, with what these have in common.

    Args:
        body: The request.
        said: What is said of some pieces of a reply.
    """

    def __init__(
        self, body: OllamaRequest, said: Callable[[Sequence[ReplyPart]], dict[str, Any]]
    ) -> None:
        self._body, self._said, self._began = body, said, time.monotonic()

    def begin(self, loaded: LoadedModel) -> None:
        """Note that the model is here."""
        self._loaded, self._load = loaded, time.monotonic() - self._began

    def piece(
        self, parts: Sequence[ReplyPart], logprobs: Sequence[TokenLogprobs] = (), **more: Any
    ) -> dict[str, Any]:
        """One line of a stream, or all of an answer."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        name = self._loaded.served.name
        facts = {"model": name, "created_at": now, **self._said(joined(parts))}
        if self._body.logprobs:
            facts["logprobs"] = chat_logprobs(logprobs, self._loaded.model)
        return {**facts, "done": False, **more}

    def end(self, answer: Answer) -> dict[str, Any]:
        """What is told where an answer ends; durations in nanoseconds."""
        timings = answer.timings
        return {
            "done": True,
            "done_reason": "length" if answer.finish_reason == "length" else "stop",
            "total_duration": _since(self._began),
            "load_duration": _nanoseconds(self._load),
            "prompt_eval_count": timings.prompt,
            "prompt_eval_duration": _nanoseconds(timings.prompt_seconds),
            "eval_count": timings.tokens,
            "eval_duration": _nanoseconds(timings.decode_seconds),
        }


async def _lines(writer: _Writer, running: Running) -> AsyncIterator[bytes]:
    """The lines of a stream."""
    async for step in running:
        if isinstance(step, Piece) and (step.parts or step.logprobs):
            yield _line(writer.piece(step.parts, step.logprobs))
        elif isinstance(step, Answer):
            yield _line(writer.piece((), **writer.end(step)))


def _message(parts: Sequence[ReplyPart]) -> dict[str, Any]:
    calls = [_call(part) for part in parts if part.kind == "call"]
    more = {"tool_calls": calls} if calls else {}
    return {"message": {"role": "assistant", **_texts(parts, "content"), **more}}


def _response(parts: Sequence[ReplyPart]) -> dict[str, Any]:
    return _texts(parts, "response")


def _texts(parts: Sequence[ReplyPart], name: str) -> dict[str, str]:
    texts = {name: "".join(part.text for part in parts if part.kind == "text")}
    thought = "".join(part.text for part in parts if part.kind == "thought")
    return {**texts, "thinking": thought} if thought else texts


def _call(part: ReplyPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": json.loads(part.text)}
    return {"id": part.id, "function": function}


def _line(facts: dict[str, Any]) -> bytes:
    return to_json(facts) + b"\n"


def _since(began: float) -> int:
    return _nanoseconds(time.monotonic() - began)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
