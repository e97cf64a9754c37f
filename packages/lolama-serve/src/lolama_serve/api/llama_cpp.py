"""``/completion`` of llama.cpp's server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import Response

from lolama_core.protocols import Tokenizer
from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.protocols.serving import ServedPrompt
from lolama_serve.api.events import event
from lolama_serve.api.generation_request import GenerationRequest
from lolama_serve.api.sampling import answer_length, checked_logprobs
from lolama_serve.api.timings import progress_facts, timings_facts
from lolama_serve.api.token_texts import chat_logprobs
from lolama_serve.errors import APIError
from lolama_serve.http import Endpoint, JSONResponse, Stream, post
from lolama_serve.job import Answer, Job, Piece, PromptProgress, Running, check_choices
from lolama_serve.pool import LoadedModel
from lolama_serve.server import Server

_STOP_TYPES = {"eos": "eos", "stop": "word", "length": "limit"}
# lolama's name of a setting → llama.cpp's, in what an answer tells of its settings.
_NAMES = {"max_new_tokens": "n_predict", "repetition_penalty": "repeat_penalty"}


class NativeRequest(GenerationRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/completion``."""

    prompt: str | list[Any] | dict[str, Any]
    stream: bool = False
    return_tokens: bool = False
    n_probs: int | None = None
    response_fields: list[str] | None = None
    timings_per_token: bool = False
    return_progress: bool = False


def routes(server: Server) -> list[Endpoint]:
    """The endpoint, under both of its paths."""

    async def answer(body: NativeRequest) -> Response:
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
            whole = [writer.whole(one, running) for one in await running.all()]
            return JSONResponse(whole if _is_batch(body.prompt) else whole[0])

    about = "Continue texts, as llama.cpp's server does."
    return [post(path, NativeRequest, answer, about) for path in ("/completion", "/completions")]


def _is_batch(prompt: Any) -> bool:
    """Whether a list is several prompts: one of ids, with texts between them or without, is one."""
    return isinstance(prompt, list) and not any(isinstance(one, int) for one in prompt)


def _job(loaded: LoadedModel, body: NativeRequest) -> Job:
    model, given = loaded.model, body.prompt
    prompts = given if isinstance(given, list) and _is_batch(given) else [given]
    if not prompts:
        raise APIError(400, "prompt: is empty; give at least one", param="prompt")
    check_choices(len(prompts))
    settings = {
        **body.settings(model.tokenizer),
        **answer_length(body.n_predict, body.max_tokens),
    }
    if body.n_probs:
        settings["logprobs"] = checked_logprobs(body.n_probs, "n_probs")
    kind = body.asked_grammar()
    return Job(
        prompts=[_prompt(loaded, one) for one in prompts],
        settings=settings,
        constraint=None if kind is None else model.constraint(*kind),
        reports_progress=body.return_progress and body.stream,
    )


def _prompt(loaded: LoadedModel, given: Any) -> ServedPrompt:
    """One prompt: a text, ids, a list of both, or an object that has a text."""
    model = loaded.model
    if isinstance(given, dict):
        if given.get("multimodal_data"):
            reason = "pictures are shown in messages: use /v1/chat/completions"
            raise APIError(400, f"multimodal_data: {reason}", param="multimodal_data")
        given = given.get("prompt_string")
    if isinstance(given, str):
        return model.text_prompt(given)
    if not isinstance(given, list) or not given:
        raise APIError(400, "prompt: is neither a text nor a list of ids", param="prompt")
    ids: list[int] = []
    for one in given:
        if isinstance(one, str):
            ids += model.tokenizer.encode_ids(one, add_special_tokens=False)
        elif isinstance(one, int) and not isinstance(one, bool):
            ids.append(one)
        else:
            raise APIError(400, "prompt: holds neither ids nor texts", param="prompt")
    return ServedPrompt(ids=ids, positions=len(ids))


class _Writer:
    """Writes one answer, whole or in parts, with what these have in common."""

    def __init__(self, loaded: LoadedModel, body: NativeRequest, job: Job) -> None:
        self.body, self._prompts = body, job.prompts
        self._loaded, self._tokenizer = loaded, loaded.model.tokenizer
        self._wanted = job.settings.get("max_new_tokens")

    def whole(self, answer: Answer, running: Running) -> dict[str, Any]:
        """An answer that is not streamed."""
        result, text = answer.result, answer.text()
        facts = {
            **self.end(answer, running),
            "content": text,
            "tokens": [*result.ids] if self.body.return_tokens else [],
        }
        if self.body.n_probs:
            facts["completion_probabilities"] = self.probabilities(result.logprobs or ())
        return facts if not self.body.response_fields else _chosen(facts, self.body.response_fields)

    def end(self, answer: Answer, running: Running) -> dict[str, Any]:
        """What is told where an answer ends."""
        result = answer.result
        ids = [*self._prompts[answer.index].ids]
        return {
            "index": answer.index,
            "content": "",
            "tokens": [],
            "stop": True,
            "model": self._loaded.served.name,
            "tokens_predicted": answer.timings.tokens,
            "tokens_evaluated": answer.timings.prompt,
            "tokens_cached": result.cached_tokens,
            "generation_settings": named_settings(running.settings, self._tokenizer),
            "prompt": self._tokenizer.decode(ids, skip_special_tokens=False),
            "has_new_line": "\n" in answer.text(),
            "truncated": self._is_cut(answer),
            "stop_type": _STOP_TYPES[result.finish_reason],
            "timings": timings_facts(answer.timings, result.cached_tokens),
        }

    def _is_cut(self, answer: Answer) -> bool:
        """Whether the context was full before the answer had the length that the request wants."""
        timings = answer.timings
        full = timings.prompt + timings.tokens >= self._loaded.context
        return full and answer.finish_reason == "length" and timings.tokens != self._wanted

    def probabilities(self, found: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        """Log-probabilities of tokens."""
        return chat_logprobs(found, self._loaded.model)


def named_settings(settings: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Settings of sampling by llama.cpp's names, as JSON can hold them."""
    found = {_NAMES.get(name, name): value for name, value in settings.items()}
    biases = [{"token": one, "bias": bias} for one, bias in settings["logit_bias"].items()]
    if settings["ignore_eos"]:  # JSON has no infinity
        biases += [{"token": one, "bias": None} for one in sorted(tokenizer.eos_ids)]
    return {**found, "logit_bias": biases}


def _chosen(facts: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Only the fields that a request wants; a field within another one is named ``outer/inner``."""
    found: dict[str, Any] = {}
    for field in fields:
        value: Any = facts
        for name in field.split("/"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found[field] = value
    return found


async def _chunks(writer: _Writer, running: Running) -> AsyncIterator[bytes]:
    """The events of a stream."""
    async for step in running:
        timings = running.submissions[step.index].timings
        common: dict[str, Any] = {"index": step.index, "content": "", "tokens": [], "stop": False}
        if isinstance(step, Answer):
            yield event(writer.end(step, running))
            continue
        if isinstance(step, PromptProgress):
            progress = progress_facts(step)
            if step.done == step.found:
                timings = running.submissions[step.index].not_begun()
            yield event({**common, "prompt_progress": progress, "timings": timings_facts(timings)})
            continue
        assert isinstance(step, Piece)
        facts = {
            **common,
            "content": "".join(part.text for part in step.parts),
            "tokens": [*step.ids],
        }
        if writer.body.n_probs and step.logprobs:
            facts["completion_probabilities"] = writer.probabilities(step.logprobs)
        if writer.body.timings_per_token:
            facts["timings"] = timings_facts(timings)
        yield event(facts)
