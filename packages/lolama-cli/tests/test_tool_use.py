"""Calls of tools in chats, with a model whose text is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import lolama
from lolama.prompts import check_messages
from lolama_core.protocols.errors import UsageError

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def add(a: int, b: int = 0) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture(scope="module")
def llm() -> lolama.LanguageModel:
    return lolama.load("demo", device="cpu", dtype="float32")


def saying(llm: lolama.LanguageModel, text: str) -> Any:
    """Has the model write a text."""
    [eos] = list(llm.tokenizer.eos_ids)[:1]
    ids = [*llm.tokenizer.encode_ids(text, add_special_tokens=False), eos]
    start: list[int] = []

    def force(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        start[:] = start or [input_ids.shape[1]]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, ids[input_ids.shape[1] - start[0]]] = 0
        return forced

    return [force]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_apart_from_the_reply(llm: lolama.LanguageModel, stream: bool) -> None:
    processors = saying(llm, "I add.\n" + CALL)
    chat: Callable[..., Any] = llm.chat
    made = chat("What is 1 + 2?", tools=[add], stream=stream, logits_processors=processors)
    if stream:
        assert "".join(made) == "I add."
        result = made.result
        assert made.result == result  # ids of calls stay what they are
    else:
        result = made
    [call] = result.tool_calls
    assert (result.text, call.name, call.arguments) == ("I add.", "add", {"a": 1, "b": 2})
    assert add(**call.arguments) == 3


def test_without_tools_nothing_is_a_call(llm: lolama.LanguageModel) -> None:
    result = llm.chat("What is 1 + 2?", logits_processors=saying(llm, CALL))
    assert (result.text, result.tool_calls) == (CALL, ())


def test_a_template_that_knows_of_no_tools_is_told_in_a_message(llm: lolama.LanguageModel) -> None:
    ids, _ = llm.encode_chat("What is 1 + 2?", tools=[add])
    text = llm.tokenizer.decode(ids)
    assert '"name": "add"' in text
    assert "What is 1 + 2?" in text
    result = llm.chat("What is 1 + 2?", tools=[add], logits_processors=saying(llm, CALL))
    [call] = result.tool_calls
    asked: list[Mapping[str, object]] = [
        {"role": "user", "content": "What is 1 + 2?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "3"},
    ]
    ids, _ = llm.encode_chat(asked, tools=[add])
    text = llm.tokenizer.decode(ids)
    assert CALL in text
    assert "<tool_response>\n3\n</tool_response>" in text
    # A conversation with calls may go on without tools.
    ids, _ = llm.encode_chat(asked)
    assert CALL in llm.tokenizer.decode(ids)


CALLS = [{"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}]


def test_messages_may_hold_calls_and_results() -> None:
    messages: list[dict[str, object]] = [
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "content": None, "tool_call_id": "a"},
    ]
    assert check_messages(messages) == messages


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "tool_calls": CALLS},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": "x", "tool_calls": "add"},
        {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "add"}}]},
        {"role": "assistant", "content": "x", "tool_calls": [{"name": "add", "arguments": {}}]},
    ],
)
def test_other_shapes_are_refused(message: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="messages"):
        check_messages([message])
