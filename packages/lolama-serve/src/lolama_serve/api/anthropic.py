"""``/v1/messages`` of Anthropic, and ``/v1/messages/count_tokens``."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from lolama_core.protocols.serving import ReplyPart, ServedPrompt, ToolChoice
from lolama_serve.api.anthropic_messages import TextBlock, Turn, tools_of, turns_of
from lolama_serve.api.events import event
from lolama_serve.api.pictures import Pictures
from lolama_serve.api.sampling import checked_stop
from lolama_serve.api.thinking import thinking_switch
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, Stream, post, with_not_kept
from lolama_serve.job import Answer, Job, Piece, Running
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

_TARGETS = "thinking.budget_tokens", "output_config.effort"


class ChosenTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether the model calls a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether the model thinks first. It decides how long, within ``max_tokens``."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized"] | None = None


class JSONFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """The schema that the answer keeps to."""

    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the answer is to be."""

    format: JSONFormat | None = None
    effort: str | None = None


class CountRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a count of tokens. ``cache_control`` changes nothing."""

    messages: list[Turn]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: ChosenTool | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None


class MessagesRequest(CountRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of a message. ``metadata`` and ``service_tier`` change no answer."""

    max_tokens: int
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoints."""

    async def answer(body: MessagesRequest) -> Response:
        async with AsyncExitStack() as stack:
            loaded = await stack.enter_async_context(server.generator.model(body.model))
            job = await server.in_thread(_job, loaded, body)
            running = await stack.enter_async_context(server.generator.run(loaded, job))
            writer = _Writer(loaded, body)
            response: Response
            if body.stream:
                response = Stream(
                    _events(writer, running),
                    held=stack.pop_all(),
                    failed=lambda error: _event(error.as_anthropic()),
                    keep_alive=_event({"type": "ping"}),
                )
            else:
                [whole] = await running.all()
                response = JSONResponse(writer.whole(whole))
            return with_not_kept(response, _not_kept(body))

    async def count(body: CountRequest) -> Response:
        async with server.pool.use(body.model) as loaded:
            prompt = await server.in_thread(_prompt, loaded, body)
        return JSONResponse({"input_tokens": prompt.positions})

    return [
        post("/v1/messages", MessagesRequest, answer, "Answer messages, as Anthropic's API does."),
        post("/v1/messages/count_tokens", CountRequest, count, "Count the tokens of messages."),
    ]


def _job(loaded: LoadedModel, body: MessagesRequest) -> Job:
    if body.max_tokens < 1:
        raise APIError(400, f"max_tokens: is {body.max_tokens}; give 1 or more", param="max_tokens")
    settings: dict[str, Any] = {"max_new_tokens": body.max_tokens}
    for name in ("temperature", "top_k", "top_p"):
        if (value := getattr(body, name)) is not None:
            settings[name] = value
    if body.stop_sequences:
        settings["stop"] = checked_stop(body.stop_sequences)
    format = body.output_config and body.output_config.format
    if format and body.tools:
        reason = "is given beside tools; give one of them"
        raise APIError(400, f"output_config.format: {reason}", param="output_config.format")
    prompt, constraint = _prompt(loaded, body), None
    if format:
        constraint = loaded.model.constraint("json_schema", format.schema, prompt)
    return Job(prompts=[prompt], settings=settings, constraint=constraint)


def _prompt(loaded: LoadedModel, body: CountRequest) -> ServedPrompt:
    model, choice = loaded.model, body.tool_choice or ChosenTool(type="auto")
    pictures = Pictures(seen=model.sees_pictures)
    turns = turns_of(body.system, body.messages, pictures)
    if not turns:
        raise APIError(400, "messages: say nothing; give one of the user", param="messages")
    continues = turns[-1]["role"] == "assistant"
    if continues and "tool_calls" in turns[-1]:
        reason = "the last one calls a tool; give its result"
        raise APIError(400, f"messages: {reason}", param="messages")
    tools = tools_of(body.tools)
    if choice.type in ("any", "tool") and not tools:
        raise APIError(
            400, "tool_choice: wants a call, and no tools are given", param="tool_choice"
        )
    return model.chat_prompt(
        turns,
        pictures=pictures.files,
        tools=[] if choice.type == "none" else tools,
        tool_choice=_choice(choice),
        parallel_calls=not choice.disable_parallel_tool_use,
        thinking=thinking_switch(model.tokenizer, _thinking(body)),
        continues=continues,
    )


def _choice(choice: ChosenTool) -> ToolChoice:
    if choice.type == "tool":
        if choice.name is None:
            raise APIError(400, "tool_choice.name: is missing", param="tool_choice.name")
        return (choice.name,)
    return "required" if choice.type == "any" else choice.type


def _thinking(body: CountRequest) -> bool | None:
    given = body.thinking
    if given is None or given.type == "adaptive":
        return None
    budget, limit = given.budget_tokens, getattr(body, "max_tokens", None)
    if budget is not None and limit is not None and not 1 <= budget < limit:
        reason = f"is {budget}; give 1 or more, and less than max_tokens"
        raise APIError(400, f"thinking.budget_tokens: {reason}", param="thinking.budget_tokens")
    return given.type == "enabled"


def _not_kept(body: CountRequest) -> list[str]:
    """Fields that ask for what is not promised."""
    budget = body.thinking and body.thinking.budget_tokens
    effort = body.output_config and body.output_config.effort
    return [name for name, value in zip(_TARGETS, (budget, effort), strict=True) if value]


class _Writer:
    """Writes one answer, whole or in parts, with what these have in common."""

    def __init__(self, loaded: LoadedModel, body: MessagesRequest) -> None:
        self._context, self._most = loaded.context, body.max_tokens
        self._facts = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": loaded.served.name,
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        """An answer that is not streamed."""
        content = [_block(part) for part in answer.parts]
        return {**self._facts, "content": content, **self.end(answer), "usage": _usage(answer)}

    def start(self, positions: int) -> dict[str, Any]:
        """The message before anything of it is known."""
        end = {"stop_reason": None, "stop_sequence": None}
        return {**self._facts, "content": [], **end, "usage": _counts(positions, 0, 0)}

    def end(self, answer: Answer) -> dict[str, Any]:
        """Why it ended."""
        result, timings = answer.result, answer.timings
        if result.finish_reason == "stop":
            reason = "stop_sequence"
        elif result.finish_reason == "eos":
            reason = "tool_use" if answer.finish_reason == "tool_calls" else "end_turn"
        elif timings.tokens < self._most and timings.prompt + timings.tokens >= self._context:
            reason = "model_context_window_exceeded"
        else:
            reason = "max_tokens"
        return {"stop_reason": reason, "stop_sequence": result.stop_text}


async def _events(writer: _Writer, running: Running) -> AsyncIterator[bytes]:
    """The events of a stream: blocks one after another, each of one kind."""
    yield _event({"type": "message_start", "message": writer.start(running.positions[0])})
    yield _event({"type": "ping"})
    index, kind = -1, ""
    async for step in running:
        for part in step.parts if isinstance(step, Piece) else ():
            if kind != part.kind or kind == "call":
                for end in _block_end(index, kind):
                    yield end
                index, kind = index + 1, part.kind
                block = _block(part._replace(text=""))
                yield _of(index, "content_block_start", content_block=block)
            yield _of(index, "content_block_delta", delta=_delta(part))
        if isinstance(step, Answer):
            for end in _block_end(index, kind):
                yield end
            yield _event(
                {"type": "message_delta", "delta": writer.end(step), "usage": _usage(step)}
            )
    yield _event({"type": "message_stop"})


def _block_end(index: int, kind: str) -> Sequence[bytes]:
    """What ends a block. Clients wait for a thought's signature; nothing is signed here."""
    if not kind:
        return []
    ends = [_of(index, "content_block_stop")]
    if kind == "thought":
        signature = {"type": "signature_delta", "signature": ""}
        ends.insert(0, _of(index, "content_block_delta", delta=signature))
    return ends


def _block(part: ReplyPart) -> dict[str, Any]:
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    if part.kind == "thought":
        return {"type": "thinking", "thinking": part.text, "signature": ""}
    arguments = json.loads(part.text) if part.text else {}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}


def _delta(part: ReplyPart) -> dict[str, Any]:
    if part.kind == "text":
        return {"type": "text_delta", "text": part.text}
    if part.kind == "thought":
        return {"type": "thinking_delta", "thinking": part.text}
    return {"type": "input_json_delta", "partial_json": part.text}


def _usage(answer: Answer) -> dict[str, Any]:
    timings, cached = answer.timings, answer.result.cached_tokens
    return _counts(timings.prompt - cached, cached, timings.tokens)


def _counts(prompt: int, cached: int, made: int) -> dict[str, Any]:
    """Tokens, each counted once: those of the prompt that were run, those that were found, the answer's."""
    read = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    return {"input_tokens": prompt, **read, "output_tokens": made}


def _of(index: int, kind: str, **more: Any) -> bytes:
    return _event({"type": kind, "index": index, **more})


def _event(facts: Mapping[str, Any]) -> bytes:
    """An event, under the name that is its type."""
    return f"event: {facts['type']}\n".encode() + event(facts)
