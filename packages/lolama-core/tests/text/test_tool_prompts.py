from __future__ import annotations

import json
from typing import Any

from lolama_core.protocols.types import Message
from lolama_core.text.tool_calls import ToolCallParser
from lolama_core.text.tool_formats import FORMATS
from lolama_core.text.tool_prompts import told_turns

TOOL = {"type": "function", "function": {"name": "add", "description": "é"}}
ASKED: Message = {"role": "user", "content": "1 + 2?"}


def called(arguments: Any, content: Any = None) -> Message:
    call: Any = {"id": "a", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call, call]}


def test_tools_are_told_first() -> None:
    first, *rest = told_turns([ASKED], [TOOL])
    assert (first["role"], rest) == ("system", [ASKED])
    assert json.dumps(TOOL, ensure_ascii=False) in str(first["content"])
    [system, _] = told_turns([{"role": "system", "content": "Be kind."}, ASKED], [TOOL])
    assert system["content"] == f"Be kind.\n\n{first['content']}"
    [asked] = told_turns([ASKED], [TOOL], system=False)
    assert asked == {"role": "user", "content": f"{first['content']}\n\n1 + 2?"}
    assert told_turns([ASKED], []) == [ASKED]


def test_parts_of_a_message_stay_parts() -> None:
    image: Any = {"type": "image"}
    [asked] = told_turns([{"role": "user", "content": [image]}], [TOOL], system=False)
    assert isinstance(asked["content"], list)
    assert asked["content"][1:] == [image]


def test_what_is_told_as_an_example_is_no_call() -> None:
    [first, _] = told_turns([ASKED], [TOOL])
    parser = ToolCallParser(FORMATS["generic"], ["add"])
    parser.push(str(first["content"]))
    parser.finish()
    assert parser.calls == ()


def test_calls_and_results_are_texts() -> None:
    results: list[Message] = [{"role": "tool", "content": text} for text in ("3", "é")]
    turns = told_turns(
        [ASKED, called('{"a": 1}', "Hm."), *results, ASKED, called({}), *results], []
    )
    assert [turn["role"] for turn in turns] == [
        "user",
        "assistant",
        "user",
        "user",
        "assistant",
        "user",
    ]
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert turns[1]["content"] == f"Hm.\n{call}\n{call}"
    assert "tool_calls" not in turns[1]
    answers = "<tool_response>\n3\n</tool_response>\n<tool_response>\né\n</tool_response>"
    assert turns[2]["content"] == turns[5]["content"] == answers
    parser = ToolCallParser(FORMATS["generic"], ["add"])
    parser.push(str(turns[4]["content"]))
    assert [call.arguments for call in parser.calls] == [{}, {}]
