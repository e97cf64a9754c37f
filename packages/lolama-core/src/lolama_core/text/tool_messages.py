"""Tools and calls as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import Message

_MOST_LEVELS = 100

PROBE: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "lolama_probe",
        "description": "Is here to be looked for.",
        "parameters": {
            "type": "object",
            "properties": {"lolama_value": {"type": "string", "description": "A value."}},
            "required": ["lolama_value"],
        },
    },
}
"""A tool by which a template is asked whether it tells the model of tools, and how calls look."""


_NAMES = ("tools", "xml_tools")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


def tool_names(source: str, environment: Any) -> list[str]:
    """The variables in which a template looks for tools: SmolLM3's has a name of its own for those in JSON.

    Args:
        source: The Jinja source, which is valid.
        environment: What parses it.
    """
    if "tools" not in source:
        return []
    from jinja2.meta import find_undeclared_variables

    read = find_undeclared_variables(environment.parse(source))
    return [name for name in _NAMES if name in read][:1]


def template_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates expect them.

    Arguments that are the text of a JSON object become that object, since most templates write ``arguments |
    tojson``, which would put a text in quotes once more. Other texts stay what they are. A content that is
    None becomes "", in which a template may look for tags, and an empty list of calls goes: templates ask
    whether there is one. A thought gets both names that templates have for it, as in transformers.

    Raises:
        UsageError: for messages that nest too deep.
    """
    _check_levels("messages", messages)
    return [_turn(message) for message in messages]


def template_tools(tools: Sequence[ToolDefinition] | None) -> list[ToolDefinition] | None:
    """Tools as templates expect them: None if there are none.

    Raises:
        UsageError: for definitions that nest too deep.
    """
    if not tools:
        return None
    _check_levels("tools", tools)
    return list(tools)


def texts_in(value: object) -> Iterator[str]:
    """All texts in a value that is made of lists and mappings, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from texts_in(name)
            yield from texts_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_in(part)


def parsed_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; None if it is none."""

    def refused(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refused)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _is_deep(value) else None


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = dict(message)
    if "content" in turn and turn["content"] is None:
        turn["content"] = ""
    thoughts = [turn[name] for name in _THOUGHTS if turn.get(name) is not None]
    if thoughts:
        turn = {"thinking": thoughts[0], **turn, "reasoning_content": thoughts[0]}
    calls = turn.pop("tool_calls", None)
    if calls:
        turn["tool_calls"] = [_call(call) for call in calls]
    return turn


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    copy = dict(call)
    function = copy.get("function")
    if isinstance(function, Mapping):
        arguments = function.get("arguments")
        # A function without parameters may be called with no text at all.
        parsed = parsed_object(arguments or "{}") if isinstance(arguments, str) else None
        copy["function"] = {**function, **({} if parsed is None else {"arguments": parsed})}
    return copy


def _check_levels(subject: str, value: object) -> None:
    if _is_deep(value):
        reason = f"nest more than {_MOST_LEVELS} levels deep"
        raise UsageError(subject, reason, "make them flatter")


def _is_deep(value: object) -> bool:
    """Whether lists and mappings stand in each other more than `_MOST_LEVELS` deep."""
    waiting = [(value, 0)]
    while waiting:
        part, level = waiting.pop()
        if level > _MOST_LEVELS:
            return True
        if isinstance(part, Mapping):
            waiting += [(each, level + 1) for each in part.values()]
        elif isinstance(part, list | tuple):
            waiting += [(each, level + 1) for each in part]
    return False
