"""The requests of ollama's API, and what the model is given of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from lolama_core.protocols.serving import GrammarKind, ServedModel, ServedPrompt
from lolama_core.protocols.types import JSON, ContentPart, Message
from lolama_serve.api.messages import Tool
from lolama_serve.api.pictures import Pictures
from lolama_serve.api.sampling import Sampling
from lolama_serve.api.thinking import thinking_switch, thinks
from lolama_serve.errors import APIError
from lolama_serve.http import to_json

_DURATION = re.compile(r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h)?)+")


class OllamaOptions(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Settings of an answer. Options of how a model is loaded are the server's own."""

    num_ctx: int | None = None
    num_predict: int | None = None


class CalledTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The function of a call, and its arguments."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class OllamaCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call of an earlier answer."""

    function: CalledTool
    id: str = ""
    type: str | None = None


class OllamaMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What all requests for an answer have in common."""

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: OllamaOptions | None = None
    keep_alive: float | str | None = None
    think: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class OllamaChatRequest(OllamaRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of a chat."""

    messages: list[OllamaMessage] = []
    tools: list[Tool] | None = None


class GenerateRequest(OllamaRequest, kw_only=True, forbid_unknown_fields=True):
    """The body of a question, or with ``raw`` of a text to continue."""

    prompt: str = ""
    system: str = ""
    raw: bool = False
    images: list[str] | None = None
    template: str = ""
    suffix: str = ""


def leaves(keep_alive: float | str | None) -> bool:
    """Whether a model is to leave the memory once it has answered.

    Raises:
        APIError: for what is no duration.
    """
    if isinstance(keep_alive, str):
        if not _DURATION.fullmatch(keep_alive):
            reason = 'give seconds, or a duration such as "5m"'
            raise APIError(400, f"keep_alive: {reason}", param="keep_alive")
        return not re.search("[1-9]", keep_alive)
    return keep_alive == 0


def grammar(body: OllamaRequest) -> tuple[GrammarKind, JSON] | None:
    """What the answer has to be; None for anything."""
    if not body.format:
        return None
    return ("json_object", None) if body.format == "json" else ("json_schema", body.format)


def prompt_of_chat(model: ServedModel, body: OllamaChatRequest) -> ServedPrompt:
    """The prompt of a chat.

    Raises:
        APIError: for what makes no sense.
    """
    pictures = Pictures(seen=model.sees_pictures)
    turns = [
        _turn(message, f"messages[{number}]", pictures)
        for number, message in enumerate(body.messages)
    ]
    last = body.messages[-1]
    return model.chat_prompt(
        turns,
        pictures=pictures.files,
        tools=[msgspec.to_builtins(tool) for tool in body.tools or ()],
        thinking=_thinking(model, body),
        continues=last.role == "assistant" and not last.tool_calls,
    )


def prompt_of_question(model: ServedModel, body: GenerateRequest) -> ServedPrompt:
    """The prompt of a question, or of a text to continue.

    Raises:
        APIError: for what makes no sense.
    """
    for field, reason in (
        ("template", "no template comes from a request; start the server with another one"),
        ("suffix", "nothing is written between two texts"),
    ):
        if getattr(body, field):
            raise APIError(400, f"{field}: {reason}", param=field)
    if body.raw:
        if body.system or body.images or body.think:
            raise APIError(400, "raw: takes a prompt alone", param="raw")
        return model.text_prompt(body.prompt)
    pictures = Pictures(seen=model.sees_pictures)
    messages = [OllamaMessage(role="system", content=body.system)] if body.system else []
    messages.append(OllamaMessage(role="user", content=body.prompt, images=body.images))
    turns = [_turn(message, "", pictures) for message in messages]
    thinking = _thinking(model, body)
    return model.chat_prompt(turns, pictures=pictures.files, thinking=thinking)


def _thinking(model: ServedModel, body: OllamaRequest) -> bool | None:
    if body.think and not thinks(model.tokenizer):
        raise APIError(400, "think: this model does not think before it answers", param="think")
    return thinking_switch(model.tokenizer, body.think)


def _turn(message: OllamaMessage, place: str, pictures: Pictures) -> Message:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        parts: Sequence[ContentPart] = [
            pictures.show(image, f"{place}.images[{number}]".lstrip("."))
            for number, image in enumerate(message.images)
        ]
        turn["content"] = pictures.content([*parts, {"type": "text", "text": message.content}])
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    more = {
        "reasoning_content": message.thinking,
        "name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    turn.update({name: value for name, value in more.items() if value is not None})
    return cast("Message", turn)


def _call(call: OllamaCall) -> dict[str, Any]:
    arguments = to_json(call.function.arguments).decode()
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
