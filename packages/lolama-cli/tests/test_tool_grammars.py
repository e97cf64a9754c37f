"""Grammars of tool calls, as llguidance reads them: what they let a model write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from lolama_core.protocols.errors import UsageError
from lolama_core.text.tool_calls import ToolCallParser
from lolama_core.text.tool_formats import FORMATS
from lolama_core.text.tool_grammars import function_names, tool_lark

CONTROLS = ["<eos>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "</think>"]


class Bytes:
    """A vocabulary of single bytes, and of control tokens."""

    eos_token_id = 256
    bos_token_id = None

    def __init__(self) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [c.encode() for c in CONTROLS]
        self.special_token_ids = range(256, len(self.tokens))

    def __call__(self, text: str | bytes) -> list[int]:
        return [*(text.encode() if isinstance(text, str) else text)]


TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()))
IDS = {"[TOOL_CALLS]": 257, "[ARGS]": 258}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": False, **parameters}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


ADD = tool(
    "add",
    properties={"a": {"$ref": "#/$defs/number"}},
    required=["a"],
    **{"$defs": {"number": {"type": "integer", "minimum": 0}}},
)
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
TOOLS = [ADD, NOW]
ONE, NONE = ("add", '{"a": 1}'), ("now", "{}")
NAMED = {"type": "function", "function": {"name": "now"}}


def ids_of(text: str, controls: bool) -> list[int]:
    ids: list[int] = []
    while text:
        mark = next((each for each in IDS if controls and text.startswith(each)), None)
        ids += [IDS[mark]] if mark else [*text[0].encode()]
        text = text[len(mark or text[0]) :]
    return ids


def accepts(grammar: str, text: str, *, controls: bool = False) -> bool:
    """Whether a grammar lets a model write a text, and end there."""
    matcher = LLMatcher(TOKENIZER, grammar)
    assert not matcher.get_error()
    ids = ids_of(text, controls)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("controls", [False, True])
def test_what_a_grammar_lets_through_is_a_call(form: str, controls: bool) -> None:
    ids = IDS if controls else {}
    spelled = FORMATS[form].spelled

    def check(choice: Any, parallel: bool, text: str, expected: bool) -> None:
        grammar = tool_lark(FORMATS[form], TOOLS, choice, parallel, control_ids=ids)
        assert accepts(grammar, text, controls=controls) == expected, (choice, parallel, text)

    several = FORMATS[form].several
    for parallel in (False, True):
        for choice in ("auto", "required"):
            check(choice, parallel, spelled([ONE]), True)
            check(choice, parallel, spelled([NONE]), True)
            check(choice, parallel, spelled([ONE, NONE, ONE]), parallel and several)
            check(choice, parallel, spelled([("add", '{"a": "1"}')]), False)
            check(choice, parallel, spelled([("add", '{"a": -1}')]), False)
            check(choice, parallel, spelled([("add", "{}")]), False)
            check(choice, parallel, spelled([("now", '{"a": 1}')]), False)
            check(choice, parallel, spelled([("other", "{}")]), False)
            check(choice, parallel, spelled([ONE])[:-1], False)
        check(NAMED, parallel, spelled([NONE]), True)
        check(NAMED, parallel, spelled([ONE]), False)
    for text in ("Hello.", "", "line\n\nline <tool [x] {", '{"answer": {"name": 1}}'):
        check("auto", True, text, True)
        check("required", True, text, False)
        check(NAMED, True, text, False)
    if form != "llama":
        check("auto", True, "I look.\n" + spelled([ONE]), True)
        check("auto", True, "I look.\n" + spelled([("add", "{}")]), False)


@pytest.mark.parametrize("form", FORMATS)
def test_the_parser_reads_what_the_grammar_forces(form: str) -> None:
    grammar = tool_lark(FORMATS[form], TOOLS, "required")
    text = FORMATS[form].spelled([ONE])
    assert accepts(grammar, text)
    parser = ToolCallParser(FORMATS[form], function_names(TOOLS))
    parser.push(text)
    parser.finish()
    assert [(call.name, call.arguments) for call in parser.calls] == [("add", {"a": 1})]


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_may_come_first(opened: bool, control: bool) -> None:
    ids = {"</think>": 260} if control else {}
    grammar = tool_lark(
        FORMATS["hermes"],
        TOOLS,
        "required",
        control_ids=ids,
        thought=("<think>", "</think>"),
        opened=opened,
    )
    IDS.update(ids)
    try:
        call = FORMATS["hermes"].spelled([ONE])
        begin = "" if opened else "<think>"
        assert accepts(grammar, f"{begin}hm\n<tool_call>?</think>\n\n{call}", controls=True)
        assert not accepts(grammar, f"{begin}hm\n</think>\n\nno", controls=True)
        assert accepts(grammar, call, controls=True) != opened
    finally:
        IDS.pop("</think>", None)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("none", "tool_choice: is 'none'"),
        ({"function": {}}, "tool_choice: is "),
        ({"function": {"name": "other"}}, "tool_choice: names 'other', which is none of the tools"),
    ],
)
def test_another_choice_is_refused(choice: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tool_lark(FORMATS["hermes"], TOOLS, choice)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"name": "add"}], "names no function"),
        (["add"], "names no function"),
        ([tool('a"b')], "name a function"),
        ([ADD, ADD], "two functions add"),
    ],
)
def test_tools_that_no_call_could_name_are_refused(tools: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        function_names(tools)


def test_no_tools_have_no_grammar() -> None:
    with pytest.raises(UsageError, match="tools: are none"):
        tool_lark(FORMATS["hermes"], [])


def test_a_schema_stays_what_it_is() -> None:
    described = tool("f", properties={"x": {"enum": ["é\n\"'\\"]}}, required=["x"])
    grammar = tool_lark(FORMATS["hermes"], [described], "required")
    text = FORMATS["hermes"].spelled([("f", json.dumps({"x": "é\n\"'\\"}, ensure_ascii=False))])
    assert accepts(grammar, text)
