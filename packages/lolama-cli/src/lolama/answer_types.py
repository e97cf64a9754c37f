"""Classes as JSON schemas: what a caller wants an answer to be."""

from __future__ import annotations

from collections.abc import Mapping

from lolama_core.protocols.checks import shown, words_of
from lolama_core.protocols.errors import UsageError


def schema_of(wanted: object) -> Mapping[str, object] | bool:
    """The JSON schema of what a caller gives as one.

    Args:
        wanted: A schema; a class with ``model_json_schema``, as pydantic's have; or a type that msgspec can
            describe: a dataclass, a TypedDict, ``list[int]``, ... An object of a class has its fields and no
            others.

    Raises:
        UsageError: if it is nothing of that.
    """
    if isinstance(wanted, Mapping | bool):
        return wanted
    own = getattr(wanted, "model_json_schema", None)
    if isinstance(wanted, str | list | int | float) or wanted is None:
        raise _no_schema(wanted)
    try:
        if callable(own):
            found = own()
        else:
            import msgspec

            found = msgspec.json.schema(wanted)
    except Exception as error:  # of a library, or of a class
        reason = f"{shown(wanted)} cannot be described: {words_of(error)}"
        raise UsageError("schema", reason, "give a JSON schema") from None
    if not isinstance(found, Mapping):
        raise _no_schema(wanted)
    closed = _closed(found)
    assert isinstance(closed, Mapping)
    return closed


def _closed(schema: object) -> object:
    """A schema whose objects have no other properties than those it names, unless it says so itself."""
    if isinstance(schema, list | tuple):
        return [*map(_closed, schema)]
    if not isinstance(schema, Mapping):
        return schema
    inner = {
        key: value if key in ("default", "const", "enum", "examples") else _closed(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "object" and isinstance(schema.get("properties"), Mapping):
        inner.setdefault("additionalProperties", False)
    return inner


def _no_schema(wanted: object) -> UsageError:
    return UsageError("schema", f"{shown(wanted)} is no JSON schema", "give a mapping, or a class")
