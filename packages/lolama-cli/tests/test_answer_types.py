"""Classes as JSON schemas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import pytest

from lolama.answer_types import schema_of
from lolama_core.protocols.errors import UsageError


@dataclass
class Inner:
    """What it says is in its schema."""

    values: list[int]
    note: str | None = None
    more: dict[str, float] = field(default_factory=dict)


class Outer(TypedDict):
    inner: Inner
    pair: tuple[int, str]


class Described:
    """As pydantic's models are."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        nested = {"type": "object", "properties": {"a": {"const": {"type": "object"}}}}
        return {"$defs": {"N": nested}, "type": "object", "properties": {"n": {"$ref": "N"}}}


class Broken:
    @classmethod
    def model_json_schema(cls) -> Any:
        raise KeyError("field")


class Strange:
    @classmethod
    def model_json_schema(cls) -> Any:
        return "object"


def test_schemas_stay_as_they_are() -> None:
    own: dict[str, object] = {"type": "object", "properties": {"a": {}}}
    assert schema_of(own) is own
    assert schema_of(True) is True


def test_a_class_has_its_fields_and_no_others() -> None:
    found = schema_of(Outer)
    assert isinstance(found, dict)
    outer, inner = (found["$defs"][name] for name in ("Outer", "Inner"))
    assert outer["additionalProperties"] is inner["additionalProperties"] is False
    assert outer["required"] == ["inner", "pair"] and inner["required"] == ["values"]
    # A dictionary has any keys.
    assert inner["properties"]["more"]["additionalProperties"] == {"type": "number"}
    assert schema_of(list[int]) == {"type": "array", "items": {"type": "integer"}}


def test_a_class_may_describe_itself() -> None:
    found = schema_of(Described)
    assert isinstance(found, dict)
    assert found["additionalProperties"] is found["$defs"]["N"]["additionalProperties"] is False
    # A value that looks like a schema is none.
    assert found["$defs"]["N"]["properties"]["a"] == {"const": {"type": "object"}}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, "None is no JSON schema"),
        ([1], r"\[1\] is no JSON schema"),
        (Broken, "cannot be described: 'field'"),
        (Strange, "is no JSON schema"),
        (complex, "cannot be described: "),
    ],
)
def test_what_is_no_schema(wanted: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schema_of(wanted)
