"""`/v1/chat/completions`, over the built-in model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is two plus three?"}],
    "temperature": 0,
}


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream but the one that ends it."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_stream_adds_up_to_the_answer_that_comes_as_a_whole(client: TestClient) -> None:
    whole = client.post("/v1/chat/completions", json=QUESTION).json()
    answer = whole["choices"][0]
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"]
    asked = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    streamed = events(client.post("/v1/chat/completions", json=asked).text)
    *pieces, used = streamed
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == answer["message"]["content"]
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [used["usage"][name] for name in counts] == [whole["usage"][name] for name in counts]


def test_a_server_on_a_port_answers_the_same(
    client: TestClient, listening: Callable[..., str]
) -> None:
    here = client.post("/v1/chat/completions", json=QUESTION).json()
    there = httpx2.post(f"{listening()}/v1/chat/completions", json=QUESTION).json()
    assert there["choices"] == here["choices"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
@pytest.mark.parametrize("tools", [None, []])
def test_a_call_is_not_asked_for_where_there_are_no_tools(
    client: TestClient, choice: Any, tools: list[Any] | None
) -> None:
    body = {**QUESTION, "tool_choice": choice, "tools": tools}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tool_choice"
    for harmless in ("none", "auto"):
        body["tool_choice"] = harmless
        assert client.post("/v1/chat/completions", json=body).status_code == 200
