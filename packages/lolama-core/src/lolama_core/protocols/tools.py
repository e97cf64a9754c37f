"""Functions that a model may ask for: what it is told of them, and what it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NotRequired, TypeAlias, TypedDict

ToolDefinition: TypeAlias = Mapping[str, object]
"""A function as OpenAI's interface describes it: ``{"type": "function", "function": {...}}``.

The inner object has ``name``, and mostly ``description`` and ``parameters``, a JSON Schema of an object.
"""


class FunctionCall(TypedDict):
    """Which function is called, and with what: an object, or the text of one as OpenAI's clients send it."""

    name: str
    arguments: str | Mapping[str, object]


class ToolCallBlock(TypedDict):
    """A call as a message of the assistant has it, in OpenAI's shape."""

    function: FunctionCall
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]


@dataclass(frozen=True)
class ToolCall:
    """A call that a model asks for.

    Attributes:
        id: What the answer names it by: nine letters and digits, which every chat template takes.
        name: The function.
        arguments: Name of a parameter → value, as JSON has it.
    """

    id: str
    name: str
    arguments: Mapping[str, object]
