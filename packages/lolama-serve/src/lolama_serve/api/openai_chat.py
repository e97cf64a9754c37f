"""``/v1/chat/completions`` of OpenAI, with what llama.cpp's server adds to it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from lolama_core.protocols.serving import ReplyPart, ServedPrompt, ToolChoice
from lolama_serve.api.events import ENDED, event
from lolama_serve.api.generation_request import GenerationRequest
from lolama_serve.api.messages import ChatMessage, NamedTool, Tool, conversation
from lolama_serve.api.sampling import answer_length, checked_n, logprob_settings
from lolama_serve.api.timings import progress_facts, timings_facts, usage
from lolama_serve.api.token_texts import chat_logprobs
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, Stream, post
from lolama_serve.job import Answer, Job, Piece, PromptProgress, Running
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server
from lolama_serve.version import FINGERPRINT


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream tells besides its text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TemplateOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a chat template is told. A request brings no template of its own."""

    enable_thinking: bool | None = None


class ChatRequest(GenerationRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of a chat completion.

    ``user``, ``metadata``, ``store``, ``service_tier``, ``safety_identifier`` and ``prompt_cache_key``
    change no answer, and are not looked at.
    """

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: TemplateOptions | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    timings_per_token: bool = False
    return_progress: bool = False
    verbose: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoint, under both of its paths."""

    async def answer(body: ChatRequest) -> Response:
        return await chat(server, body)

    async def count(body: ChatRequest) -> Response:
        async with server.pool.use(body.model) as loaded:
            prompt = await server.in_thread(chat_prompt, loaded, body)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": prompt.positions})

    paths = ("/v1/chat/completions", "/chat/completions")
    return [
        *(post(path, ChatRequest, answer, "Answer a chat.") for path in paths),
        *(post(f"{path}/input_tokens", ChatRequest, count, "Count its tokens.") for path in paths),
    ]


async def chat(server: Server, body: ChatRequest) -> Response:
    """Answer a chat."""
    async with AsyncExitStack() as stack:
        loaded = await stack.enter_async_context(server.generator.model(body.model))
        job = await server.in_thread(chat_job, loaded, body)
        running = await stack.enter_async_context(server.generator.run(loaded, job))
        shows = server.options.show_prompts if body.verbose is None else body.verbose
        writer = _Writer(loaded, body, job.prompts[0] if shows else None)
        if body.stream:
            held = stack.pop_all()
            pieces = _chunks(writer, running)
            return Stream(pieces, held=held, failed=lambda error: event(error.as_openai()))
        return JSONResponse(writer.whole(await running.all(), running))


class _Writer:
    """Writes one answer, whole or in parts, with what these have in common."""

    def __init__(self, loaded: LoadedModel, body: ChatRequest, shown: ServedPrompt | None) -> None:
        self.loaded, self.body, self.n, self._shown = loaded, body, body.n or 1, shown
        self.facts = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": loaded.served.name,
            "system_fingerprint": FINGERPRINT,
        }

    def whole(self, answers: list[Answer], running: Running) -> dict[str, Any]:
        """The answer of a request that is not streamed."""
        return {
            **self.facts,
            "object": "chat.completion",
            "choices": [self._choice(answer) for answer in answers],
            "usage": usage(answers, self.n),
            "timings": timings_facts(answers[0].timings, answers[0].result.cached_tokens),
            **self.verbose(running),
        }

    def verbose(self, running: Running) -> dict[str, Any]:
        """What the model was given, if it is to be shown."""
        if self._shown is None:
            return {}
        ids, tokenizer = [*self._shown.ids], self.loaded.model.tokenizer
        prompt = tokenizer.decode(ids, skip_special_tokens=False)
        return {"__verbose": {"prompt": prompt, "generation_settings": dict(running.settings)}}

    def _choice(self, answer: Answer) -> dict[str, Any]:
        calls = [part for part in answer.parts if part.kind == "call"]
        text = answer.text()
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if thought := answer.text("thought"):
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [_call(part) for part in calls]
        return {
            "index": answer.index,
            "message": message,
            "finish_reason": answer.finish_reason,
            "logprobs": self.logprobs(answer.result.logprobs or ()),
        }

    def logprobs(self, found: Any) -> dict[str, Any] | None:
        """Log-probabilities of tokens, if the request asked for them."""
        if not self.body.logprobs:
            return None
        return {"content": chat_logprobs(found, self.loaded.model), "refusal": None}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """One event of a stream."""
        return event({**self.facts, "object": "chat.completion.chunk", "choices": choices, **more})


async def _chunks(writer: _Writer, running: Running) -> AsyncIterator[bytes]:
    """The events of a stream: the role first, each piece, why it ended, and what it used."""
    for index in range(len(running.submissions)):
        delta = {"role": "assistant", "content": None}
        yield writer.chunk([_delta(index, delta)])
    calls: dict[int, int] = {}
    async for step in running:
        if isinstance(step, PromptProgress):
            yield writer.chunk([_delta(step.index, {})], prompt_progress=progress_facts(step))
        elif isinstance(step, Piece):
            more = {}
            if writer.body.timings_per_token:
                more["timings"] = timings_facts(running.submissions[step.index].timings)
            logprobs = writer.logprobs(step.logprobs) if step.logprobs else None
            for part in step.parts or ([ReplyPart("text", "")] if logprobs else []):
                choice = _delta(step.index, _part_delta(part, calls, step.index))
                yield writer.chunk([{**choice, "logprobs": logprobs}], **more)
                logprobs = None  # they stand with the first part of their step
        else:
            facts = timings_facts(step.timings, step.result.cached_tokens)
            choice = _delta(step.index, {}, step.finish_reason)
            yield writer.chunk([choice], timings=facts, **writer.verbose(running))
    options = writer.body.stream_options
    if options is not None and options.include_usage:
        first = running.in_order[0]
        facts = timings_facts(first.timings, first.result.cached_tokens)
        yield writer.chunk([], usage=usage(running.in_order, writer.n), timings=facts)
    yield ENDED


def _part_delta(part: ReplyPart, calls: dict[int, int], index: int) -> dict[str, Any]:
    if part.kind == "text":
        return {"content": part.text}
    if part.kind == "thought":
        return {"reasoning_content": part.text}
    number = calls[index] = calls.get(index, -1) + 1
    return {"tool_calls": [{"index": number, **_call(part)}]}


def _call(part: ReplyPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": part.text}
    return {"id": part.id, "type": "function", "function": function}


def _delta(index: int, delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def chat_job(loaded: LoadedModel, body: ChatRequest) -> Job:
    """What is generated for a chat; templates, pictures and grammars are worked on here.

    Raises:
        APIError, LolamaError: for what makes no sense.
    """
    model = loaded.model
    settings = body.settings(model.tokenizer)
    settings |= answer_length(body.max_completion_tokens, body.max_tokens, body.n_predict)
    settings |= logprob_settings(body.logprobs, body.top_logprobs)
    prompt = chat_prompt(loaded, body)
    kind, constraint = body.asked_grammar(body.response_format), None
    if kind is not None:
        if body.tools and body.tool_choice != "none":
            raise APIError(400, "tools and a grammar are given; give one of them", param="tools")
        constraint = model.constraint(*kind, prompt)
    return Job(
        prompts=[prompt],
        settings=settings,
        n=checked_n(body.n),
        constraint=constraint,
        reports_progress=body.return_progress and bool(body.stream),
    )


def chat_prompt(loaded: LoadedModel, body: ChatRequest) -> ServedPrompt:
    """The prompt of a chat."""
    model = loaded.model
    turns, pictures = conversation(body.messages, sees_pictures=model.sees_pictures)
    choice = body.tool_choice
    if choice not in (None, "none", "auto") and not body.tools:
        raise APIError(
            400, "tool_choice: wants a call, and no tools are given", param="tool_choice"
        )
    named: ToolChoice = (
        (choice.function.name,) if isinstance(choice, NamedTool) else choice or "auto"
    )
    tools = [msgspec.to_builtins(tool) for tool in body.tools or ()]
    return model.chat_prompt(
        turns,
        pictures=pictures,
        tools=[] if named == "none" else tools,
        tool_choice=named,
        parallel_calls=body.parallel_tool_calls is not False,
        thinking=_thinking(body),
        continues=_continues(body),
    )


def _thinking(body: ChatRequest) -> bool | None:
    if body.chat_template_kwargs is not None:
        return body.chat_template_kwargs.enable_thinking
    return False if body.reasoning_effort == "none" else None


def _continues(body: ChatRequest) -> bool:
    """Whether the answer goes on with the last message, which is the assistant's."""
    if body.continue_final_message and body.add_generation_prompt:
        reason = "continue_final_message and add_generation_prompt exclude each other"
        raise APIError(400, reason, param="continue_final_message")
    last = body.messages[-1].role if body.messages else ""
    if body.continue_final_message and last != "assistant":
        reason = "the last message is not the assistant's"
        raise APIError(400, f"continue_final_message: {reason}", param="continue_final_message")
    return last == "assistant" and body.continue_final_message is not False
