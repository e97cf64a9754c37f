"""The messages of Anthropic's API, and what the model is given of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, TypeAlias, cast

import msgspec

from lolama_core.protocols.types import ContentPart, Message
from lolama_serve.api.pictures import BETWEEN_PARTS, Pictures
from lolama_serve.errors import APIError
from lolama_serve.http import converted, to_json

_FAILED = "The tool has failed:"
"""Begins the result of a tool that has failed: a chat template has no other place for that."""


class Block(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """A part of a message. Prompts that begin alike are kept anyway: ``cache_control`` changes nothing."""

    cache_control: dict[str, Any] | None = None


class TextBlock(Block, tag="text"):
    """A text."""

    text: str
    citations: None = None


class PictureSource(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where a picture is: only base64 is read."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class PictureBlock(Block, tag="image"):
    """A picture."""

    source: PictureSource


class ToolUseBlock(Block, tag="tool_use"):
    """A call of an earlier answer."""

    id: str
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class ToolResultBlock(Block, tag="tool_result"):
    """What a tool has answered."""

    tool_use_id: str
    content: str | list[TextBlock | PictureBlock] | None = None
    is_error: bool = False


class ThinkingBlock(Block, tag="thinking"):
    """What an earlier answer began with. Nothing is signed here, so no signature is checked."""

    thinking: str
    signature: str = ""


Part: TypeAlias = TextBlock | PictureBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock

_ALLOWED: dict[str, tuple[type[Block], ...]] = {
    "system": (TextBlock,),
    "user": (TextBlock, PictureBlock, ToolResultBlock),
    "assistant": (TextBlock, ToolUseBlock, ThinkingBlock),
}


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a chat."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Part]


class CustomTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A function that the model may call. Calls come as a whole, whatever ``eager_input_streaming`` says."""

    name: str
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None


def tools_of(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools as `ServedModel.chat_prompt` takes them.

    Raises:
        APIError: for one of Anthropic's own, which other models know nothing of.
    """
    made = []
    for number, tool in enumerate(given):
        place = f"tools[{number}]"
        if (kind := tool.get("type")) not in (None, "custom"):
            reason = f"{kind!r:.50} is a tool of Anthropic's own; give custom tools"
            raise APIError(400, f"{place}.type: {reason}", param=f"{place}.type")
        one = converted(tool, CustomTool, place)
        about = {"description": one.description, "strict": one.strict}
        function = {"name": one.name, "parameters": one.input_schema}
        told = {name: value for name, value in about.items() if value is not None}
        made.append({"type": "function", "function": {**function, **told}})
    return made


def turns_of(
    system: str | Sequence[TextBlock] | None, messages: Sequence[Turn], pictures: Pictures
) -> list[Message]:
    """What was said, as templates take it. Neighbors of one role are one turn.

    Args:
        system: What the model is told first.
        messages: The turns.
        pictures: Takes their pictures.

    Raises:
        APIError: naming the message that makes no sense.
    """
    if not messages:
        raise APIError(400, "messages: is empty; give at least one", param="messages")
    if system is not None and not isinstance(system, str):
        system = BETWEEN_PARTS.join(block.text for block in system)
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    for role, group in groupby(enumerate(messages), key=lambda one: one[1].role):
        parts = [part for number, turn in group for part in _parts(number, turn)]
        turns += _assistant(parts) if role == "assistant" else _others(role, parts, pictures)
    return turns


def _parts(number: int, turn: Turn) -> Iterator[tuple[str, Part]]:
    """Each part of a turn, and where it stands."""
    if isinstance(turn.content, str):
        yield f"messages[{number}].content", TextBlock(text=turn.content)
        return
    for index, part in enumerate(turn.content):
        where = f"messages[{number}].content[{index}]"
        if not isinstance(part, _ALLOWED[turn.role]):
            kind = part.__struct_config__.tag
            raise APIError(400, f"{where}: {kind} is no part of the {turn.role}'s", param=where)
        yield where, part


def _assistant(parts: Sequence[tuple[str, Part]]) -> list[Message]:
    texts = [part.text for _, part in parts if isinstance(part, TextBlock)]
    turn: dict[str, Any] = {"role": "assistant", "content": BETWEEN_PARTS.join(texts)}
    if thoughts := [part.thinking for _, part in parts if isinstance(part, ThinkingBlock)]:
        turn["reasoning_content"] = BETWEEN_PARTS.join(thoughts)
    if calls := [part for _, part in parts if isinstance(part, ToolUseBlock)]:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": to_json(call.input).decode()},
            }
            for call in calls
        ]
    return [cast("Message", turn)]


def _others(role: str, parts: Sequence[tuple[str, Part]], pictures: Pictures) -> Iterator[Message]:
    """The results of tools, which follow their calls, and then what else the turn says."""
    said = [(where, part) for where, part in parts if not isinstance(part, ToolResultBlock)]
    for where, part in parts:
        if isinstance(part, ToolResultBlock):
            yield _result(where, part, pictures)
    if said:
        told = [_told(where, part, pictures) for where, part in said]
        yield {"role": role, "content": pictures.content(told)}


def _result(where: str, block: ToolResultBlock, pictures: Pictures) -> Message:
    given = block.content or ""
    blocks = [TextBlock(text=given)] if isinstance(given, str) else given
    told = [_told(f"{where}.content[{i}]", one, pictures) for i, one in enumerate(blocks)]
    if block.is_error:
        told.insert(0, {"type": "text", "text": _FAILED})
    content = pictures.content(told)
    turn = {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    return cast("Message", turn)


def _told(where: str, part: Part, pictures: Pictures) -> ContentPart:
    if isinstance(part, TextBlock):
        return {"type": "text", "text": part.text}
    assert isinstance(part, PictureBlock)
    source = part.source
    if source.type != "base64" or source.data is None:
        reason = "give a picture in base64: no address is opened, and no file is kept here"
        raise APIError(400, f"{where}.source: {reason}", param=f"{where}.source")
    return pictures.show(source.data, f"{where}.source.data")
