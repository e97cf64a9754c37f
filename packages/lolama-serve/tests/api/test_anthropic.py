"""`/v1/messages`, over the built-in model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from served_demo import SWITCH, DemoHost
from starlette.testclient import TestClient

from lolama_core.protocols.serving import ReplyPart

QUESTION: dict[str, Any] = {
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "What is two plus three?"}],
    "temperature": 0,
}
ANSWER = "Two plus three is five."
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
PARTS = [
    ReplyPart("thought", "hm, "),
    ReplyPart("thought", "so"),
    ReplyPart("text", "Look: "),
    ReplyPart("call", '{"at": 1}', "look", "call_1"),
    ReplyPart("call", "{}", "look", "call_2"),
]


def asked(client: TestClient, **more: Any) -> dict[str, Any]:
    """The answer to the question."""
    answer = client.post("/v1/messages", json={**QUESTION, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(client: TestClient, **more: Any) -> list[dict[str, Any]]:
    """The events of the answer; each has the name that is its type."""
    text = client.post("/v1/messages", json={**QUESTION, **more, "stream": True}).text
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def refused(client: TestClient, **more: Any) -> str:
    """Why a request is refused, in Anthropic's form."""
    answer = client.post("/v1/messages", json={**QUESTION, **more})
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    return str(body["error"]["message"])


def test_an_answer_as_a_whole(client: TestClient) -> None:
    answer = asked(client)
    assert answer.pop("id").startswith("msg_")
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "demo",
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 7,
        },
    }


def test_tokens_that_were_found_are_counted_apart(client: TestClient) -> None:
    asked(client)
    usage = asked(client)["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (1, 8)


def test_a_stream_adds_up_to_the_whole(client: TestClient, host: DemoHost) -> None:
    host.parts = PARTS
    whole, events = asked(client, tools=[TOOL]), streamed(client, tools=[TOOL])
    start, ping, *blocks, end, stop = events
    assert start["type"] == "message_start"
    assert start["message"].pop("id") != whole.pop("id")
    message = start["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert (ping, stop) == ({"type": "ping"}, {"type": "message_stop"})
    content: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    open_block = False
    for event in blocks:
        if event["type"] == "content_block_start":
            assert not open_block and event["index"] == len(content)
            content.append(event["content_block"])
            open_block = True
            continue
        assert open_block and event["index"] == len(content) - 1
        if event["type"] == "content_block_stop":
            open_block = False
            continue
        delta = event["delta"]
        kind = delta.pop("type")
        if kind == "input_json_delta":
            arguments[event["index"]] = delta["partial_json"]
        else:
            [(name, piece)] = delta.items()
            assert kind == f"{name}_delta"
            content[-1][name] += piece
    assert not open_block
    for index, text in arguments.items():
        content[index]["input"] = json.loads(text)
    assert content == whole["content"]
    assert end["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    assert end["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    used = end["usage"]["input_tokens"] + end["usage"]["cache_read_input_tokens"]
    assert used == whole["usage"]["input_tokens"]


def test_thoughts_and_calls_are_blocks(client: TestClient, host: DemoHost) -> None:
    host.parts = PARTS
    answer = asked(client, tools=[TOOL])
    assert answer["content"] == [
        {"type": "thinking", "thinking": "hm, so", "signature": ""},
        {"type": "text", "text": "Look: "},
        {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "call_2", "name": "look", "input": {}},
    ]
    assert answer["stop_reason"] == "tool_use"


def test_an_answer_without_a_token_that_shows_has_no_block(
    client: TestClient, host: DemoHost
) -> None:
    host.parts = []
    assert asked(client)["content"] == []
    assert [event["type"] for event in streamed(client)] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]


def test_it_tells_why_it_ended(client: TestClient) -> None:
    stopped = asked(client, stop_sequences=["five", "three"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "three")
    assert stopped["content"][0]["text"] == "Two plus "
    assert asked(client, max_tokens=3)["stop_reason"] == "max_tokens"


def test_it_tells_where_the_context_has_ended(
    client_of: Callable[..., TestClient], host: DemoHost
) -> None:
    answer = asked(client_of(context=12))
    assert answer["stop_reason"] == "model_context_window_exceeded"
    assert answer["usage"]["output_tokens"] == 3


def test_a_prompt_that_is_too_long_is_refused(client: TestClient) -> None:
    message = refused(client, messages=[{"role": "user", "content": "two " * 600}])
    assert "context size of 512" in message


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "look"}, ("look",)),
        (None, "auto"),
    ],
)
def test_tools_and_their_choice_reach_the_model(
    client: TestClient, host: DemoHost, choice: Any, told: Any
) -> None:
    asked(client, tools=[TOOL], tool_choice=choice)
    assert host.asked[-1]["tool_choice"] == told
    assert [tool["function"]["name"] for tool in host.asked[-1]["tools"]] == ["look"]
    assert host.asked[-1]["parallel_calls"]


def test_no_tool_may_be_called_and_one_at_most(client: TestClient, host: DemoHost) -> None:
    asked(client, tools=[TOOL], tool_choice={"type": "none"})
    assert (host.asked[-1]["tools"], host.asked[-1]["tool_choice"]) == ([], "none")
    asked(client, tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert not host.asked[-1]["parallel_calls"]


@pytest.mark.parametrize(
    ("thinking", "told"),
    [
        ({"type": "enabled", "budget_tokens": 20}, True),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, None),
    ],
)
def test_thinking_is_turned_on_and_off(
    client: TestClient, host: DemoHost, thinking: dict[str, Any], told: bool | None
) -> None:
    host.template_end = SWITCH
    asked(client, thinking=thinking)
    assert host.asked[-1]["thinking"] is told


def test_what_is_not_promised_is_told(client: TestClient) -> None:
    budget = {"type": "enabled", "budget_tokens": 20}
    for stream in (False, True):
        body = {**QUESTION, "thinking": budget, "stream": stream}
        answer = client.post("/v1/messages", json=body)
        assert answer.headers["X-Lolama-Not-Kept"] == "thinking.budget_tokens"
    body = {**QUESTION, "thinking": budget, "output_config": {"effort": "high"}}
    both = "thinking.budget_tokens, output_config.effort"
    assert client.post("/v1/messages", json=body).headers["X-Lolama-Not-Kept"] == both
    assert "X-Lolama-Not-Kept" not in client.post("/v1/messages", json=QUESTION).headers


@pytest.mark.parametrize("budget", [0, 40])
def test_a_budget_leaves_room_for_the_answer(client: TestClient, budget: int) -> None:
    message = refused(client, thinking={"type": "enabled", "budget_tokens": budget})
    assert message.startswith("thinking.budget_tokens:")


def test_an_answer_goes_on_with_what_it_begins_with(client: TestClient) -> None:
    begun = [*QUESTION["messages"], {"role": "assistant", "content": "Two plus three is"}]
    assert asked(client, messages=begun)["content"][0]["text"] == " five."


def test_a_schema_is_kept_to(client: TestClient, host: DemoHost) -> None:
    format = {"type": "json_schema", "schema": {"type": "object"}}
    asked(client, output_config={"format": format})
    assert host.grammars == [("json_schema", {"type": "object"})]
    assert "tools" in refused(client, output_config={"format": format}, tools=[TOOL])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: is 0"),
        ({"container": "x"}, "container: is not a parameter"),
        ({"tool_choice": {"type": "tool"}, "tools": [TOOL]}, "tool_choice.name: is missing"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: wants a call, and no tools"),
        ({"tool_choice": {"type": "tool", "name": "f"}, "tools": []}, "tool_choice: wants a call"),
        ({"top_p": 7}, "top_p"),
        (
            {"messages": [{"role": "assistant", "content": [CALL]}]},
            "messages: the last one calls a tool",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: TestClient, more: dict[str, Any], message: str
) -> None:
    assert refused(client, **more).startswith(message)


@pytest.mark.parametrize("missing", ["max_tokens", "messages"])
def test_what_has_to_be_there_is_asked_for(client: TestClient, missing: str) -> None:
    body = {name: value for name, value in QUESTION.items() if name != missing}
    answer = client.post("/v1/messages", json=body)
    assert answer.status_code == 400
    assert missing in answer.json()["error"]["message"]


def test_a_failure_after_the_start_is_an_event(client: TestClient, host: DemoHost) -> None:
    host.failure = RuntimeError("the test wants it")
    last = streamed(client)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert "the test wants it" not in last["error"]["message"]


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": []}]])
def test_messages_that_say_nothing_are_refused(
    client: TestClient, messages: list[dict[str, Any]]
) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        limit = {"max_tokens": 2} if path == "/v1/messages" else {}
        refused = client.post(path, json={"messages": messages, **limit})
        assert (refused.status_code, "messages" in refused.text) == (400, True)


def test_tokens_are_counted_as_an_answer_counts_them(client: TestClient) -> None:
    body = {"messages": QUESTION["messages"], "system": "Be brief."}
    counted = client.post("/v1/messages/count_tokens", json=body).json()
    assert counted == {"input_tokens": asked(client, **body)["usage"]["input_tokens"]}
    bare = client.post("/v1/messages/count_tokens", json={"messages": QUESTION["messages"]})
    assert bare.json()["input_tokens"] < counted["input_tokens"]


def test_earlier_thoughts_are_counted(client: TestClient) -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "main.py"}
    counts = []
    for thoughts in ([], [{"type": "thinking", "thinking": "First I look around."}]):
        messages = [
            {"role": "user", "content": "Mend it."},
            {"role": "assistant", "content": [*thoughts, CALL]},
            {"role": "user", "content": [result]},
        ]
        answer = client.post("/v1/messages/count_tokens", json={"messages": messages})
        counts.append(answer.json()["input_tokens"])
    assert counts[0] < counts[1]
