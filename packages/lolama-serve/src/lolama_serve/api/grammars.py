"""What an answer has to be: the fields of requests that say so."""

from __future__ import annotations

from typing import Any

from lolama_core.protocols.serving import GrammarKind
from lolama_core.protocols.types import JSON
from lolama_serve.errors import APIError

_FORMATS = ("text", "json_object", "json_schema", "regex")


def grammar_of(
    response_format: dict[str, Any] | None = None,
    json_schema: JSON = None,
    regex: str | None = None,
    grammar: str | None = None,
    lark: str | None = None,
) -> tuple[GrammarKind, JSON] | None:
    """The one grammar that a request gives; None if it gives none.

    Raises:
        APIError: for several, or a format that is unknown.
    """
    found: list[tuple[GrammarKind, JSON]] = []
    if response_format is not None and (format := _format(response_format)) is not None:
        found.append(format)
    if json_schema is not None:
        found.append(("json_schema", json_schema))
    if regex is not None:
        found.append(("regex", regex))
    if grammar:
        found.append(("gbnf", grammar))
    if lark is not None:
        found.append(("lark", lark))
    if len(found) > 1:
        raise APIError(400, "several grammars are given; give one", param="response_format")
    return found[0] if found else None


def _format(given: dict[str, Any]) -> tuple[GrammarKind, JSON] | None:
    kind = given.get("type")
    if kind not in _FORMATS:
        reason = f"{kind!r:.50} is none of {', '.join(_FORMATS)}"
        raise APIError(400, f"response_format.type: {reason}", param="response_format.type")
    if kind == "text":
        return None
    if kind == "regex":
        return "regex", _field(given, "pattern", str)
    if kind == "json_object" and "schema" not in given:
        return "json_object", None
    if kind == "json_schema" and "schema" not in given:  # where OpenAI's clients put it
        given = _field(given, "json_schema", dict)
    return "json_schema", _field(given, "schema", (dict, bool))


def _field(given: dict[str, Any], name: str, kind: Any) -> Any:
    value = given.get(name)
    if not isinstance(value, kind):
        raise APIError(
            400, f"response_format: has no usable {name}", param=f"response_format.{name}"
        )
    return value
