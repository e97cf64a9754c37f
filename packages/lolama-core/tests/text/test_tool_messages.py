from __future__ import annotations

from typing import Any

import pytest

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Message
from lolama_core.text.tool_messages import (
    parsed_object,
    template_tools,
    template_turns,
    texts_in,
)


def called(arguments: Any, content: Any = "") -> Message:
    call: Any = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a": [1, {"b": "é"}]}', {"a": [1, {"b": "é"}]}),
        ("{}", {}),
        ("", {}),
        ({"a": 1}, {"a": 1}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ('{"a": NaN}', '{"a": NaN}'),
    ],
)
def test_arguments_that_are_json_become_an_object(given: Any, expected: Any) -> None:
    message = called(given)
    [turn] = template_turns([message])
    assert turn["tool_calls"][0]["function"] == {"name": "f", "arguments": expected}
    assert message == called(given)  # the caller's own is as it was


def test_content_that_is_none_is_empty() -> None:
    [turn] = template_turns([called("{}", None)])
    assert turn["content"] == ""


@pytest.mark.parametrize("calls", [[], None])
def test_no_calls_are_no_list_of_calls(calls: Any) -> None:
    message: Any = {"role": "assistant", "content": "hi", "tool_calls": calls}
    assert template_turns([message]) == [{"role": "assistant", "content": "hi"}]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_has_the_names_that_templates_know(name: str) -> None:
    message: Any = {"role": "assistant", "content": "hi", name: "hm"}
    [turn] = template_turns([message])
    assert (turn["reasoning_content"], turn["thinking"]) == ("hm", "hm")


def test_no_tools_are_none() -> None:
    assert template_tools(None) is None
    assert template_tools([]) is None


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"items": [value]}
    return value


def test_what_nests_too_deep_is_refused() -> None:
    template_tools([nested(40)])
    with pytest.raises(UsageError, match="tools: nest more than 100 levels"):
        template_tools([nested(100_000)])
    with pytest.raises(UsageError, match="messages: nest more than 100 levels"):
        template_turns([called(nested(60))])
    assert parsed_object('{"a":' * 60 + "1" + "}" * 60) is not None
    assert parsed_object('{"a":' * 60_000 + "1" + "}" * 60_000) is None


def test_texts_are_names_and_values() -> None:
    assert [*texts_in({"a": ["b", {"c": "d"}], "e": 1})] == ["a", "b", "c", "d", "e"]
