"""Python functions as tools: what a model is told of them, by their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, Union

from lolama_core import function_names
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import JSON

Tool: TypeAlias = "ToolDefinition | Callable[..., object]"
"""A tool as OpenAI's interface describes it, or a function with type hints."""

_SIMPLE: dict[object, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def tool_definitions(tools: Sequence[Tool]) -> list[ToolDefinition]:
    """Tools as chat templates are told of them.

    Raises:
        UsageError: for what is neither a definition nor a function that can be described.
    """
    given = listed("tools", tools, "give functions, or what OpenAI's interface calls tools")
    definitions = [one if isinstance(one, Mapping) else definition_of(one) for one in given]
    function_names(definitions)
    return definitions


def definition_of(function: Callable[..., object]) -> dict[str, JSON]:
    """What a model is told of a function: its name, what its docstring says, and a schema of its parameters.

    Type hints may be ``str``, ``int``, ``float``, ``bool``, ``None``, ``Any``, ``Literal``, lists, dicts with
    text as keys, unions of these, and ``Annotated``. A parameter with a default need not be given. What
    stands under ``Args:`` in the docstring describes the parameters.

    Raises:
        UsageError: for a parameter without a type hint, of another type, or without a name.

    Example:
        >>> def add(a: int, b: int = 0) -> int:
        ...     "Adds two numbers."
        ...     return a + b
        >>> definition_of(add)["function"]["parameters"]["required"]
        ['a']
    """
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str):
        raise UsageError("tools", f"hold {shown(function)}", "give functions, or dicts")
    try:
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise UsageError("tools", f"hold {name}, whose signature fails: {error}", "") from None
    said, described = _docstring(inspect.getdoc(function) or "")
    properties: dict[str, JSON] = {}
    required: list[JSON] = []
    for parameter in parameters:
        place = f"{name}({parameter.name})"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError("tools", f"{place} cannot be given by its name", "name parameters")
        if parameter.name not in hints:
            raise UsageError("tools", f"{place} has no type hint", "add one, such as : str")
        schema = _schema(hints[parameter.name], place)
        if parameter.name in described:
            schema["description"] = described[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif isinstance(parameter.default, str | int | float | bool):
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    shape: dict[str, JSON] = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "function",
        "function": {"name": name, "description": said, "parameters": shape},
    }


def _schema(hint: Any, place: str) -> dict[str, JSON]:
    """The JSON Schema of a type."""
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _schema(parts[0], place)
    if origin is Literal:
        kinds = sorted({_SIMPLE.get(type(value), "") for value in parts})
        return {"type": kinds[0] if len(kinds) == 1 else list(kinds), "enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(part, place) for part in parts]}
    if origin in (list, Sequence) and len(parts) == 1:
        return {"type": "array", "items": _schema(parts[0], place)}
    if origin in (dict, Mapping) and parts[0] is str:
        return {"type": "object", "additionalProperties": _schema(parts[1], place)}
    reason = f"{place} is of type {inspect.formatannotation(hint)}, which no schema is made of"
    raise UsageError("tools", reason, "use str, int, float, bool, Literal, list, dict or a union")


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of a function, and of each parameter."""
    said: list[str] = []
    described: dict[str, str] = {}
    section = name = ""
    for line in text.splitlines():
        found = _SECTION.match(line)
        entry = _ENTRY.match(line)
        if found is not None:
            section, name = found[1], ""
        elif not section:
            said.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            if entry is not None:
                name = entry[1]
                described[name] = entry[2].strip()
            elif name and line.strip():
                described[name] += " " + line.strip()
    return "\n".join(said).strip(), described
