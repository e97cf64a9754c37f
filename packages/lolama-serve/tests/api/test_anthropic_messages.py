"""Anthropic's messages as turns that chat templates take."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lolama_core.protocols.types import Message
from lolama_serve.api.anthropic import CountRequest
from lolama_serve.api.anthropic_messages import tools_of, turns_of
from lolama_serve.api.pictures import Pictures
from lolama_serve.errors import APIError
from lolama_serve.http import decoded, to_json

PNG = base64.b64encode(b"a picture").decode()
SHOWN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
CALL = {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}


def turns(
    *messages: tuple[str, Any], system: Any = None, sees: bool = False
) -> tuple[list[Message], list[bytes]]:
    """What becomes of a request's messages, and its pictures."""
    told = [{"role": role, "content": content} for role, content in messages]
    body = decoded(to_json({"messages": told, "system": system}), CountRequest)
    pictures = Pictures(seen=sees)
    return turns_of(body.system, body.messages, pictures), pictures.files


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize("system", ["Be brief.", [text("Be brief.")]])
def test_the_system_is_a_turn(system: Any) -> None:
    found, _ = turns(("user", "hello"), system=system)
    assert found == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


@pytest.mark.parametrize("system", [None, "", []])
def test_a_system_that_says_nothing_is_none(system: Any) -> None:
    assert turns(("user", "hello"), system=system)[0] == [{"role": "user", "content": "hello"}]


def test_neighbors_of_one_role_are_one_turn() -> None:
    found, _ = turns(("user", "a"), ("user", [text("b"), text("c")]), ("assistant", "d"))
    assert [turn["content"] for turn in found] == ["a\n\nb\n\nc", "d"]


def test_calls_and_thoughts_are_those_of_the_turn() -> None:
    thought = {"type": "thinking", "thinking": "I should look.", "signature": "x"}
    found, _ = turns(("user", "weather?"), ("assistant", [thought, text("Well."), CALL]))
    function = {"name": "look", "arguments": '{"at":"Paris"}'}
    assert found[1] == {
        "role": "assistant",
        "content": "Well.",
        "reasoning_content": "I should look.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }


@pytest.mark.parametrize("content", [[RESULT, text("and now?")], [text("and now?"), RESULT]])
def test_results_follow_their_calls(content: list[Any]) -> None:
    found, _ = turns(("user", "weather?"), ("assistant", [CALL]), ("user", content))
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "user", "content": "and now?"},
    ]


def test_a_result_says_that_the_tool_has_failed() -> None:
    failed = {**RESULT, "is_error": True, "content": [text("no such city")]}
    found, _ = turns(("user", "weather?"), ("assistant", [CALL]), ("user", [failed]))
    assert found[2]["content"] == "The tool has failed:\n\nno such city"


def test_a_result_without_content_is_empty() -> None:
    bare = {"type": "tool_result", "tool_use_id": "call_1"}
    found, _ = turns(("user", "weather?"), ("assistant", [CALL]), ("user", [bare]))
    assert found[2]["content"] == ""


def test_pictures_stand_where_they_are_shown() -> None:
    result = {**RESULT, "content": [text("here"), SHOWN]}
    found, files = turns(
        ("user", [SHOWN, text("what?")]), ("assistant", [CALL]), ("user", [result]), sees=True
    )
    assert files == [b"a picture"] * 2
    assert found[0]["content"] == [{"type": "image"}, text("what?")]
    assert found[2]["content"] == [text("here"), {"type": "image"}]


@pytest.mark.parametrize(
    ("role", "part", "place"),
    [
        ("user", CALL, "messages[0].content[0]: tool_use"),
        ("assistant", SHOWN, "messages[0].content[0]: image"),
        ("user", {"type": "document", "source": {}}, "messages[0].content[0].type"),
        ("user", {**text("a"), "width": 1}, "messages[0].content[0].width"),
        (
            "user",
            {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}},
            "messages[0].content[0].source: give a picture in base64",
        ),
        ("user", SHOWN, "messages[0].content[0].source.data: this model is shown no pictures"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_place(role: str, part: Any, place: str) -> None:
    with pytest.raises(APIError) as refused:
        turns((role, [part]))
    assert refused.value.message.startswith(place)


def test_no_messages_are_refused() -> None:
    with pytest.raises(APIError, match="messages: is empty"):
        turns()


def test_custom_tools_are_functions() -> None:
    tool = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}
    function = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
    for more in ({}, {"type": "custom"}, {"cache_control": {"type": "ephemeral"}}):
        assert tools_of([{**tool, **more}]) == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    ("tool", "place"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, "tools[0].type: 'web_search"),
        ({"name": "look", "input_schema": SCHEMA, "width": 1}, "tools[0].width"),
        ({"name": "look"}, "tools[0]: Object missing required field `input_schema`"),
    ],
)
def test_other_tools_are_refused(tool: dict[str, Any], place: str) -> None:
    with pytest.raises(APIError) as refused:
        tools_of([tool])
    assert refused.value.message.startswith(place)
