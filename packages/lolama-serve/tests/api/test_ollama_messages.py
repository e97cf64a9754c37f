"""Requests of ollama's API as prompts, and how long a model is to stay."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from served_demo import SWITCH, THINKS, DemoHost

from lolama_serve.api.ollama_messages import (
    GenerateRequest,
    OllamaChatRequest,
    grammar,
    leaves,
    prompt_of_chat,
    prompt_of_question,
)
from lolama_serve.errors import APIError
from lolama_serve.http import decoded, to_json

PICTURE = base64.b64encode(b"a picture").decode()
CALL = {"function": {"name": "look", "arguments": {"at": "Paris"}}}


def chat(host: DemoHost, messages: list[Any], **more: Any) -> dict[str, Any]:
    """What the model is asked for a chat."""
    body = decoded(to_json({"model": "demo", "messages": messages, **more}), OllamaChatRequest)
    prompt_of_chat(host.load("demo"), body)
    return host.asked[-1]


def question(host: DemoHost, **more: Any) -> dict[str, Any]:
    """What the model is asked for a question."""
    body = decoded(to_json({"model": "demo", **more}), GenerateRequest)
    prompt_of_question(host.load("demo"), body)
    return host.asked[-1]


def test_messages_are_turns(host: DemoHost) -> None:
    asked = chat(
        host,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "thinking": "I look.", "tool_calls": [CALL]},
            {"role": "tool", "tool_name": "look", "content": "sunny"},
        ],
    )
    function = {"name": "look", "arguments": '{"at":"Paris"}'}
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I look.",
            "tool_calls": [{"id": "", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "sunny", "name": "look"},
    ]
    assert not asked["continues"]


def test_a_last_message_of_the_assistant_is_gone_on_with(host: DemoHost) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert chat(host, messages)["continues"]


def test_tools_reach_the_model(host: DemoHost) -> None:
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}
    asked = chat(host, [{"role": "user", "content": "a"}], tools=[tool])
    assert [one["function"]["name"] for one in asked["tools"]] == ["look"]


def test_pictures_stand_before_the_text(host: DemoHost) -> None:
    host.sees_pictures = True
    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    shown = {"role": "user", "content": "what?", "images": [PICTURE]}
    for asked in (chat(host, [shown]), question(host, prompt="what?", images=[PICTURE])):
        assert asked["messages"] == [{"role": "user", "content": parts}]
        assert asked["pictures"] == [b"a picture"]


def test_a_picture_for_a_text_model_is_refused_by_its_place(host: DemoHost) -> None:
    hello, shown = {"role": "user", "content": "a"}, {"role": "user", "images": [PICTURE]}
    with pytest.raises(APIError, match=r"^messages\[1\]\.images\[0\]: this model"):
        chat(host, [hello, shown])
    with pytest.raises(APIError, match=r"^images\[0\]: this model"):
        question(host, prompt="a", images=[PICTURE])


def test_a_question_may_have_a_system(host: DemoHost) -> None:
    asked = question(host, prompt="weather?", system="Be brief.")
    assert [turn["role"] for turn in asked["messages"]] == ["system", "user"]


def test_raw_is_a_text_to_continue(host: DemoHost) -> None:
    body = decoded(to_json({"model": "demo", "prompt": "Once", "raw": True}), GenerateRequest)
    model = host.load("demo")
    assert prompt_of_question(model, body).ids == model.text_prompt("Once").ids
    assert host.asked == []


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"suffix": "end"}, "suffix"),
        ({"raw": True, "system": "Be brief."}, "raw"),
        ({"raw": True, "images": [PICTURE]}, "raw"),
    ],
)
def test_what_is_not_done_is_refused(host: DemoHost, more: dict[str, Any], field: str) -> None:
    with pytest.raises(APIError) as refused:
        question(host, prompt="a", **more)
    assert (refused.value.status, refused.value.param) == (400, field)


def test_thinking_is_turned_on_and_off_and_refused_where_there_is_none(host: DemoHost) -> None:
    with pytest.raises(APIError, match="does not think"):
        question(host, prompt="a", think=True)
    assert question(host, prompt="a", think=False)["thinking"] is None
    host.template_end = SWITCH
    assert [question(host, prompt="a", think=one)["thinking"] for one in (True, False)] == [1, 0]
    host.template_end = THINKS
    assert question(host, prompt="a", think=True)["thinking"] is None


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        (None, None),
        ("", None),
        ("json", ("json_object", None)),
        ({"type": "object"}, ("json_schema", {"type": "object"})),
    ],
)
def test_a_format_is_a_grammar(format: Any, kind: Any) -> None:
    body = decoded(to_json({"model": "demo", "format": format}), GenerateRequest)
    assert grammar(body) == kind


@pytest.mark.parametrize("keep_alive", [0, 0.0, "0", "0s", "0m0s"])
def test_a_model_leaves_where_it_is_kept_for_no_time(keep_alive: Any) -> None:
    assert leaves(keep_alive)


@pytest.mark.parametrize("keep_alive", [None, 300, -1, "5m", "1h30m", "-1", "0.5s"])
def test_a_model_stays_otherwise(keep_alive: Any) -> None:
    assert not leaves(keep_alive)


@pytest.mark.parametrize("keep_alive", ["", "soon", "5 m", "m"])
def test_what_is_no_duration_is_refused(keep_alive: str) -> None:
    with pytest.raises(APIError, match="keep_alive"):
        leaves(keep_alive)
