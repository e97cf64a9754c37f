"""Grammars of replies that call tools, in the dialect of Lark that llguidance reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.tools import ToolDefinition
from lolama_core.text.tool_formats import ToolFormat

_NAME = re.compile(r"[\w.\-/]{1,256}")
_NO_IDS: Mapping[str, int] = MappingProxyType({})
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}

_JSON = {
    "x-guidance": {
        # A model that is at a loss writes blanks to the end, where a grammar admits any number of them.
        "whitespace_flexible": False,
        # As chat templates write JSON, so that the model meets what it was trained on.
        "item_separator": ", ",
        "key_separator": ": ",
        # Else what is not known would be left out, and what is no call be accepted.
        "lenient": False,
        "coerce_one_of": False,
    }
}
"""How llguidance reads the schemas, whatever they say of it themselves."""


def function_names(tools: Sequence[ToolDefinition]) -> list[str]:
    """The names of tools, in order.

    Raises:
        UsageError: for a definition in another shape than OpenAI's, a name that a call cannot spell, or two
            tools of one name.
    """
    names: list[str] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str):
            reason = f"hold {shown(tool)}, which names no function"
            remedy = 'write {"type": "function", "function": {"name": ..., "parameters": {...}}}'
            raise UsageError("tools", reason, remedy)
        if not _NAME.fullmatch(name):
            reason = f"name a function {shown(name)}"
            raise UsageError("tools", reason, "use letters, digits, _, -, . and /")
        if name in names:
            raise UsageError("tools", f"hold two functions {name}", "give each a name of its own")
        names.append(name)
    return names


def tool_lark(
    form: ToolFormat,
    tools: Sequence[ToolDefinition],
    choice: str | Mapping[str, Any] = "auto",
    parallel: bool = True,
    *,
    control_ids: Mapping[str, int] = _NO_IDS,
    thought: tuple[str, str] | None = None,
    opened: bool = False,
) -> str:
    """A grammar of what a model may write that is told of tools.

    With ``auto`` any text may be written up to the beginning of a call; from there on it is a call of a tool
    whose arguments are as its schema says, and then more calls or the end. Names and line breaks are as chat
    templates write them. The text of a schema goes into the grammar as it is, so that its references hold.

    Args:
        form: How calls are written.
        tools: What may be called: one at least.
        choice: ``auto``, ``required`` (one call at least, and no other text), or
            ``{"type": "function", "function": {"name": ...}}`` (that one, and no other text).
        parallel: Whether there may be several calls, in formats that have several.
        control_ids: Markers of the format that are control tokens, with their ids (`Chats.control_ids`).
        thought: The tags of a thought that may come first, in which anything may be written.
        opened: Whether the prompt has opened that thought.

    Raises:
        UsageError: for tools that `function_names` refuses, none at all, or another choice.
    """
    names = function_names(tools)
    named = _named(choice, names)
    functions: list[Any] = [tool["function"] for tool in tools]
    chosen = [function for function in functions if named in (None, function["name"])]

    def literal(text: str) -> str:
        """A text in which control tokens stand by their ids."""
        marks = sorted(control_ids, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
        return " ".join(
            f"<[{control_ids[part]}]>" if part in control_ids else json.dumps(part)
            for part in parts
            if part
        )

    rules: list[str] = []
    for number, function in enumerate(chosen):
        schema = function.get("parameters") or _NO_PARAMETERS
        middle = literal(json.dumps(function["name"], ensure_ascii=False)[1:-1] + form.middle)
        rules.append(f"call_{number}: {middle} arguments_{number} {literal(form.after)}")
        # A function cannot do anything with an argument that is not described.
        closed = {"additionalProperties": False} if "properties" in schema else {}
        known = {"type": "object", **closed, **schema, **_JSON}
        rules.append(f"arguments_{number}: %json {json.dumps(known)}")
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(chosen))))
    more = f"({literal(form.between + form.before)} call)*" if parallel and form.several else ""
    rest = f"call {more} {literal(form.last)}"
    opening = form.first + form.before
    if choice != "auto":
        rules.append(f"reply: {literal(opening)} {rest}")
    elif opening.startswith("{"):
        rules += [f"reply: OTHER | {literal(opening)} {rest}"]
        # A reply in JSON is none that begins like a call.
        rules += [r'OTHER: /(.|\n)*/ & ~/[ \t\n]*\{[ \t\n]*"name"(.|\n)*/']
    else:
        rules += _until("head", form.literals[0], control_ids)
        rules += [f"reply: ANY | head {literal(opening.removeprefix(form.literals[0]))} {rest}"]
    start = "start: reply"
    if thought is not None:
        begin, end = thought
        rules += [*_until("thought", end, control_ids), r"SPACES: /[ \t\n]*/"]
        start = "start: thought SPACES reply"
        if not opened:
            start = f"start: reply | {literal(begin)} thought SPACES reply"
    rules.append(r"ANY: /(.|\n)*/")
    return "\n".join(["%llguidance {}", start, *rules, ""])


def _until(rule: str, mark: str, control_ids: Mapping[str, int]) -> list[str]:
    """A rule for any text up to a mark, and the mark."""
    if mark in control_ids:
        return [f"{rule}: ANY <[{control_ids[mark]}]>"]
    return [f"{rule}[lazy]: ANY {json.dumps(mark)}"]


def _named(choice: str | Mapping[str, Any], names: list[str]) -> str | None:
    """The function that a choice names, if it names one."""
    if not names:
        raise UsageError("tools", "are none", "give one at least")
    if choice in ("auto", "required"):
        return None
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        remedy = 'give auto, required, or {"type": "function", "function": {"name": ...}}'
        raise UsageError("tool_choice", f"is {shown(choice)}", remedy)
    if name not in names:
        reason = f"names {shown(name)}, which is none of the tools"
        raise UsageError("tool_choice", reason, f"give one of {', '.join(names)}")
    return name
