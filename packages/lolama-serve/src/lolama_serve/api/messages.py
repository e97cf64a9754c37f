"""The messages of a chat, as OpenAI's API has them, and what the model is given of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias, cast

import msgspec

from lolama_core.protocols.types import ContentPart, Message
from lolama_serve.api.pictures import Pictures
from lolama_serve.errors import APIError

MOST_MESSAGES = 4_096
"""Messages of one request; a template looks at each of them."""

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A text within a message."""

    text: str


class ImageURL(msgspec.Struct, forbid_unknown_fields=True):
    """A picture, within its address. The server opens none, and reads no file."""

    url: str
    detail: str | None = None


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """A picture within a message."""

    image_url: ImageURL


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """What an earlier answer refused."""

    refusal: str


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True):
    """The function that a model called, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A call of an earlier answer."""

    function: CalledFunction
    id: str = ""
    type: str = "function"
    index: int | None = None


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn of a chat."""

    role: Role
    content: str | list[TextPart | ImagePart | RefusalPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class Function(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A tool; functions are the only ones that there are."""

    function: Function


class NamedFunction(msgspec.Struct, forbid_unknown_fields=True):
    """The name of a function."""

    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """The tool that has to be called."""

    function: NamedFunction


def conversation(
    messages: Sequence[ChatMessage], *, sees_pictures: bool
) -> tuple[list[Message], list[bytes]]:
    """What was said, as templates take it, and the files of its pictures.

    Raises:
        APIError: naming the message that makes no sense.
    """
    if not messages:
        raise APIError(400, "messages: is empty; give at least one", param="messages")
    if len(messages) > MOST_MESSAGES:
        reason = f"{len(messages):,} messages are too many; give {MOST_MESSAGES:,} at most"
        raise APIError(400, f"messages: {reason}", param="messages")
    pictures = Pictures(seen=sees_pictures)
    turns: list[Message] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        turn: dict[str, Any] = {
            "role": "system" if message.role == "developer" else message.role,
            "content": _content(message, place, pictures),
        }
        if message.tool_calls:
            turn["tool_calls"] = [
                {"id": call.id, "type": "function", "function": msgspec.to_builtins(call.function)}
                for call in message.tool_calls
            ]
        for field in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(message, field)) is not None:
                turn[field] = value
        turns.append(cast(Message, turn))
    for before, after in pairwise(turns):
        if before["role"] == after["role"] == "assistant":
            reason = "two messages of the assistant follow each other; make them one"
            raise APIError(400, f"messages: {reason}", param="messages")
    return turns, pictures.files


def _content(message: ChatMessage, place: str, pictures: Pictures) -> str | list[ContentPart]:
    content = message.content
    if content is None:
        if message.role not in ("assistant", "tool"):
            raise APIError(400, f"{place}.content: is missing", param=f"{place}.content")
        return ""
    if isinstance(content, str):
        return content
    parts: list[ContentPart] = []
    for number, part in enumerate(content):
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, RefusalPart):
            parts.append({"type": "text", "text": part.refusal})
        else:
            where = f"{place}.content[{number}].image_url"
            parts.append(pictures.show(_data(part.image_url.url, where), where))
    return pictures.content(parts)


def _data(url: str, where: str) -> str:
    """The base64 that a ``data:`` URL of a picture holds. Any other address would have to be opened."""
    found = _DATA_URL.match(url)
    if found is None:
        reason = "is no data:image/...;base64, URL, and no other address is opened"
        raise APIError(400, f"{where}: {reason}", param=where)
    return url[found.end() :]
