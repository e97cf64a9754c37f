"""``/v1/completions`` of OpenAI: texts that are continued, and how probable they are."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, cast

from starlette.responses import Response

from lolama_core.protocols.generation import Generation, TokenLogprobs
from lolama_core.protocols.serving import ServedModel, ServedPrompt
from lolama_serve.api.events import ENDED, event
from lolama_serve.api.generation_request import GenerationRequest
from lolama_serve.api.openai_chat import StreamOptions
from lolama_serve.api.sampling import answer_length, checked_logprobs, checked_n
from lolama_serve.api.timings import timings_facts, usage
from lolama_serve.api.token_texts import completion_logprobs
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, Stream, post
from lolama_serve.job import Answer, Job, Piece, Running, check_choices
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server
from lolama_serve.version import FINGERPRINT

Texts: TypeAlias = str | list[str | int | list[int]]
"""A text, several, or the ids of one or several."""


class CompletionRequest(GenerationRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of a completion. ``user`` changes no answer."""

    prompt: Texts
    n: int | None = None
    echo: bool = False
    logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    best_of: int | None = None
    user: str | None = None


def routes(server: Server) -> list[Endpoint]:
    """The endpoint."""

    async def answer(body: CompletionRequest) -> Response:
        async with AsyncExitStack() as stack:
            loaded = await stack.enter_async_context(server.generator.model(body.model))
            job = await server.in_thread(_job, loaded, body)
            running = await stack.enter_async_context(server.generator.run(loaded, job))
            writer = _Writer(loaded, body, job)
            if body.stream:
                pieces = _chunks(writer, running)
                return Stream(
                    pieces, held=stack.pop_all(), failed=lambda error: event(error.as_openai())
                )
            answers = await running.all()
            return JSONResponse(
                {
                    **writer.facts,
                    "choices": [writer.choice(one) for one in answers],
                    "usage": usage(answers, writer.n),
                    "timings": timings_facts(answers[0].timings, answers[0].result.cached_tokens),
                }
            )

    return [post("/v1/completions", CompletionRequest, answer, "Continue texts.")]


def one_by_one(given: Texts, name: str) -> list[str | list[int]]:
    """The texts one by one: a text is one, and so is a list of ids.

    Args:
        given: What a request has.
        name: What it calls it.

    Raises:
        APIError: for ids between texts.
    """
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(one, int) for one in given):
        return [cast("list[int]", given)]
    if any(isinstance(one, int) for one in given):
        raise APIError(400, f"{name}: holds ids between texts", param=name)
    return cast("list[str | list[int]]", given)


def prompt_of(model: ServedModel, prompt: str | Sequence[int]) -> ServedPrompt:
    """A text, or ids, as a prompt."""
    if isinstance(prompt, str):
        return model.text_prompt(prompt)
    return ServedPrompt(ids=prompt, positions=len(prompt))


def _job(loaded: LoadedModel, body: CompletionRequest) -> Job:
    model, n = loaded.model, checked_n(body.n)
    if body.best_of not in (None, n):
        raise APIError(400, "best_of: answers are not ranked; leave it out", param="best_of")
    prompts = one_by_one(body.prompt, "prompt")
    if not prompts:
        raise APIError(400, "prompt: is empty; give at least one", param="prompt")
    check_choices(len(prompts) * n)
    settings = {**body.settings(model.tokenizer), **answer_length(body.max_tokens, body.n_predict)}
    if body.logprobs is not None:
        settings["logprobs"] = checked_logprobs(body.logprobs, "logprobs")
        if body.echo:
            settings["prompt_logprobs"] = body.logprobs
    kind = body.asked_grammar(body.response_format)
    return Job(
        prompts=[prompt_of(model, one) for one in prompts],
        settings=settings,
        n=n,
        constraint=None if kind is None else model.constraint(*kind),
    )


class _Writer:
    """Writes one answer, whole or in parts, with what these have in common."""

    def __init__(self, loaded: LoadedModel, body: CompletionRequest, job: Job) -> None:
        self.body, self.n, self._prompts = body, job.n, job.prompts
        self._model, self._tokenizer = loaded.model, loaded.model.tokenizer
        self._texts = one_by_one(body.prompt, "prompt")
        self.facts = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": loaded.served.name,
            "system_fingerprint": FINGERPRINT,
        }

    def echo(self, index: int) -> str:
        """The text of an answer's prompt, if the request wants it."""
        if not self.body.echo:
            return ""
        text = self._texts[index // self.n]
        return text if isinstance(text, str) else self._tokenizer.decode(text)

    def choice(self, answer: Answer) -> dict[str, Any]:
        """One answer as a whole."""
        result, echo = answer.result, self.echo(answer.index)
        logprobs = None
        if self.body.logprobs is not None:
            logprobs = self.logprobs(result.logprobs or (), len(echo))
            if self.body.echo:
                logprobs = _joined(self._of_prompt(answer.index, result), logprobs)
        return {
            "index": answer.index,
            "text": echo + answer.text(),
            "finish_reason": answer.finish_reason,
            "logprobs": logprobs,
        }

    def logprobs(self, found: Sequence[TokenLogprobs], start: int) -> dict[str, Any]:
        """Log-probabilities of tokens whose text begins ``start`` characters into the answer."""
        return completion_logprobs(found, self._model, start)

    def _of_prompt(self, index: int, result: Generation[str]) -> dict[str, Any]:
        """Those of a prompt's tokens. The first has none; a control token in front is left out."""
        [first, *_] = self._prompts[index // self.n].ids
        text = self._tokenizer.decode([first])
        found = self.logprobs(result.prompt_logprobs or (), len(text))
        if not text:
            return found
        alone = {"tokens": [text], "token_logprobs": [None], "top_logprobs": [None]}
        return _joined({**alone, "text_offset": [0]}, found)


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [*first[name], *second[name]] for name in first}


async def _chunks(writer: _Writer, running: Running) -> AsyncIterator[bytes]:
    """The events of a stream."""
    # The log-probabilities of a prompt are told with its answer, and those of the answer follow them.
    whole = writer.body.echo and writer.body.logprobs is not None
    lengths: dict[int, int] = {}
    for index in range(len(running.submissions)):
        echo = writer.echo(index)
        lengths[index] = len(echo)
        if echo and writer.body.logprobs is None:
            yield _chunk(writer, index, echo)
    async for step in running:
        if isinstance(step, Piece):
            if whole:
                continue
            text = "".join(part.text for part in step.parts)
            logprobs = None
            if writer.body.logprobs is not None:
                logprobs = writer.logprobs(step.logprobs, lengths[step.index])
            lengths[step.index] += len(text)
            if text or step.logprobs:
                yield _chunk(writer, step.index, text, logprobs=logprobs)
        elif isinstance(step, Answer):
            if whole:
                choice = writer.choice(step)
                yield _chunk(writer, step.index, choice["text"], logprobs=choice["logprobs"])
            yield _chunk(
                writer,
                step.index,
                "",
                step.finish_reason,
                timings=timings_facts(step.timings, step.result.cached_tokens),
            )
    if writer.body.stream_options is not None and writer.body.stream_options.include_usage:
        yield event({**writer.facts, "choices": [], "usage": usage(running.in_order, writer.n)})
    yield ENDED


def _chunk(
    writer: _Writer,
    index: int,
    text: str,
    reason: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": logprobs}
    return event({**writer.facts, "choices": [choice], **more})
