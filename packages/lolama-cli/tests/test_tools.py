from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest

from lolama.tools import definition_of, tool_definitions
from lolama_core.protocols.errors import UsageError


def weather(
    city: str,
    days: int = 3,
    unit: Literal["C", "F"] = "C",
    hours: list[int] | None = None,
    exact: bool = False,
    height: Optional[float] = None,  # noqa: UP045 (both spellings are in use)
) -> str:
    """The weather in a city.

    It is not measured.

    Args:
        city: Name of the city,
            with its country: France.
        days: How many days.
        unit (str): Of the temperature.

    Returns:
        str: a sentence.
    """
    return f"{city} {days} {unit} {hours} {exact} {height}"


def test_a_function_is_what_its_signature_and_docstring_say() -> None:
    assert definition_of(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.\n\nIt is not measured.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {
                        "type": "string",
                        "description": "Name of the city, with its country: France.",
                    },
                    "days": {"type": "integer", "description": "How many days.", "default": 3},
                    "unit": {
                        "type": "string",
                        "enum": ["C", "F"],
                        "description": "Of the temperature.",
                        "default": "C",
                    },
                    "hours": {
                        "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]
                    },
                    "exact": {"type": "boolean", "default": False},
                    "height": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                },
                "required": ["city"],
            },
        },
    }


def test_types() -> None:
    def typed(
        a: Any,
        b: Annotated[int, "told"],
        c: list,  # type: ignore[type-arg]
        d: dict[str, list[bool]],
        e: Literal[1, "x"],
        f: None,
    ) -> None: ...

    function: Any = definition_of(typed)["function"]
    assert function["description"] == ""
    assert function["parameters"]["properties"] == {
        "a": {},
        "b": {"type": "integer"},
        "c": {"type": "array"},
        "d": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "boolean"}},
        },
        "e": {"type": ["integer", "string"], "enum": [1, "x"]},
        "f": {"type": "null"},
    }


def untyped(a):  # type: ignore[no-untyped-def]
    return a


def many(*numbers: int) -> None: ...


def odd(a: bytes) -> None: ...


def wrong(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (untyped, r"untyped\(a\) has no type hint"),
        (many, r"many\(numbers\) cannot be given by its name"),
        (odd, r"odd\(a\) is of type bytes"),
        (wrong, "wrong, whose signature fails"),
    ],
)
def test_what_cannot_be_described_is_refused(function: Callable[..., object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        definition_of(function)


def test_tools_are_functions_or_definitions() -> None:
    given = definition_of(weather)
    assert tool_definitions([weather]) == tool_definitions([given]) == [given]
    for wrong_tools in ("weather", [1], [weather, weather], [{"name": "weather"}]):
        with pytest.raises(UsageError, match="tools"):
            tool_definitions(wrong_tools)  # type: ignore[arg-type]
