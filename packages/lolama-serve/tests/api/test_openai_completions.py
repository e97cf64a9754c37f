"""`/v1/completions`, over the built-in model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

TALE: dict[str, Any] = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 5}


def streamed(client: TestClient, **more: Any) -> dict[int, dict[str, Any]]:
    """The answers of a stream, each put together from its pieces."""
    text = client.post("/v1/completions", json={**TALE, **more, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    found: dict[int, dict[str, Any]] = {}
    for [choice] in (json.loads(line)["choices"] for line in lines):
        index = choice["index"]
        one = found.setdefault(index, {"index": index, "text": "", "logprobs": None})
        one["text"] += choice["text"]
        one["finish_reason"] = choice["finish_reason"]
        for name, values in (choice["logprobs"] or {}).items():
            one["logprobs"] = one["logprobs"] or {}
            one["logprobs"].setdefault(name, []).extend(values)
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"echo": True},
        {"logprobs": 1},
        {"echo": True, "logprobs": 1},
        {"echo": True, "logprobs": 0, "max_tokens": 0},
        {"echo": True, "logprobs": 1, "prompt": ["One", "Two"], "n": 2},
        {"echo": True, "logprobs": 1, "prompt": [5, 6, 7]},
        {"logprobs": 1, "stop": [" upon", "the"]},
    ],
)
def test_a_stream_adds_up_to_the_answers_that_come_as_a_whole(
    client: TestClient, more: dict[str, Any]
) -> None:
    whole = client.post("/v1/completions", json={**TALE, **more}).json()["choices"]
    assert [*sorted(streamed(client, **more).items())] == [*enumerate(whole)]
