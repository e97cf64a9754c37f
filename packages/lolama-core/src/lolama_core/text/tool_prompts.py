"""Tools for models whose chat templates know of none: all of it is said in ordinary messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import ContentPart, Message
from lolama_core.text.tool_formats import FORMATS

_INTRODUCTION = "You may call functions. These are the functions, each in JSON:"
_HOW = (
    "To call one, write its name and its arguments as JSON between tags, and nothing after that:\n"
    '<tool_call>\n{"name": "the name", "arguments": {"parameter": "value"}}\n</tool_call>\n'
    "Its result is told to you between <tool_response> and </tool_response>. "
    "Call a function only if you need it."
)


def told_turns(
    messages: Sequence[Message], tools: Sequence[ToolDefinition], *, system: bool = True
) -> list[Message]:
    """A conversation without calls and results, and with what tools there are in its first message.

    Calls of earlier replies stand in their text, and results in messages of the user. Several results in a
    row are one message, since many templates want roles to take turns.

    Args:
        messages: The conversation.
        tools: What the model may call; none is told of if there are none.
        system: Whether the template has a place for a system message; else the first message of the user
            begins with it.
    """
    turns: list[Message] = []
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{_text(message)}\n</tool_response>")
            continue
        _add_results(turns, results)
        turns.append(_without_calls(message))
    _add_results(turns, results)
    if not tools:
        return turns
    lines = [_INTRODUCTION, *(json.dumps(dict(tool), ensure_ascii=False) for tool in tools), _HOW]
    told = "\n".join(lines)
    if system and (not turns or turns[0]["role"] != "system"):
        return [{"role": "system", "content": told}, *turns]
    for place, turn in enumerate(turns):
        if turn["role"] == "user" or (system and turn["role"] == "system"):
            turns[place] = _joined(turn, told)
            return turns
    return [{"role": "user", "content": told}, *turns]


def _add_results(turns: list[Message], results: list[str]) -> None:
    if results:
        turns.append({"role": "user", "content": "\n".join(results)})
        results.clear()


def _without_calls(message: Message) -> Message:
    """The message with its calls in its text."""
    calls = [
        (call["function"]["name"], _json(call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]
    if not calls:
        return message
    said = [_text(message), FORMATS["generic"].spelled(calls)]
    return {"role": message["role"], "content": "\n".join(filter(None, said))}


def _json(arguments: str | Mapping[str, object]) -> str:
    if isinstance(arguments, str):
        return arguments or "{}"
    return json.dumps(dict(arguments), ensure_ascii=False)


def _text(message: Message) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


def _joined(message: Message, told: str) -> Message:
    """A system message that what is told follows, or another that it stands before."""
    content = message["content"]
    if not isinstance(content, str):
        part: ContentPart = {"type": "text", "text": f"{told}\n\n"}
        return {"role": message["role"], "content": [part, *(content or [])]}
    said = [content, told] if message["role"] == "system" else [told, content]
    return {"role": message["role"], "content": "\n\n".join(said)}
