"""Calls in what a model writes: streams give what whole answers give, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lolama_core.text.tool_calls import (
    CallArguments,
    CallBegin,
    CallEnd,
    ContentPiece,
    ToolCallParser,
    ToolEvent,
    new_call_id,
)
from lolama_core.text.tool_formats import FORMATS

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "300"))
NAMES = ("add", "look.up", "now", "é")

Calls = list[tuple[str, Any]]

ADD = ("add", {"a": 1})
DEEP: Any = (
    "look.up",
    {"q": '}]"{[\\ é 🙂 </tool_call> [TOOL_CALLS]', "r": [{"s": [[], {}]}, None]},
)
NOW: Any = ("now", {})

# Format, what the model writes, its content, its calls.
READ: list[tuple[str, str, str, Calls]] = [
    ("hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "", [ADD]),
    ("hermes", '<tool_call>{"arguments":{"a":1},"name":"add"}</tool_call>', "", [ADD]),
    (
        "hermes",
        'I look.\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n',
        "I look.",
        [ADD, NOW],
    ),
    (
        "hermes",
        'a <tool_call>{"name":"now"}</tool_call> b <tool_call>{"name":"add","arguments":{"a":1}}'
        "</tool_call> c",
        "a b c",
        [NOW, ADD],
    ),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [ADD]),
    # The last tag is missing, at the end or ahead of another call.
    ("hermes", '<tool_call>{"name":"now"}<tool_call>{"name":"now"} ', "", [NOW, NOW]),
    ("hermes", 'x <tool_call>{"name":"now"} y', "x y", [NOW]),
    ("llama", '{"name": "add", "parameters": {"a": 1}}', "", [ADD]),
    ("llama", '<|python_tag|>{"type": "function", "name": "now", "parameters": {}}', "", [NOW]),
    ("llama", ' {"name": "now", "parameters": {}}', ' {"name": "now", "parameters": {}}', []),
    (
        "llama",
        '{"name": "add", "arguments": {"a": 1}}; {"name": "now", "parameters": {}}',
        "",
        [ADD, NOW],
    ),
    ("llama", 'So:\n{"name": "now", "parameters": {}}\nDone.', "So:\nDone.", [NOW]),
    ("llama", '{"name": "now", "parameters": {}}; {"a": 1}', '; {"a": 1}', [NOW]),
    ("mistral", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]', "", [ADD]),
    (
        "mistral",
        'Hm.[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}, {"name": "now"}]',
        "Hm.",
        [ADD, NOW],
    ),
    ("mistral", '[TOOL_CALLS]{"name": "now", "arguments": {}}', "", [NOW]),
    (
        "mistral-args",
        '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]look.up[CALL_ID]abc123def[ARGS]'
        + json.dumps(DEEP[1]),
        "",
        [ADD, DEEP],
    ),
    ("mistral-args", 'Yes.\n[TOOL_CALLS]é{"a": 1}', "Yes.", [("é", {"a": 1})]),
    ("generic", '<tool_call>{"name": "now", "arguments": {}}</tool_call>', "", [NOW]),
]
# All of it stays content.
CONTENT = {
    "hermes": [
        "",
        " \n",
        "No calls <here>.",
        '<tool_call>{"name": "add", "arguments": {"a": 1}',
        '<tool_call>{"name": "add", "arguments": {"a": "',
        '<tool_call>{"name": "add", "arguments": {"a": "\\',
        "<tool_call>",
        "<tool_cal",
        "<tool_call>add</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "a=1"}</tool_call>',
        '<tool_call>{"name": ["add"], "arguments": {}}</tool_call>',
        '<tool_call>[{"name": "add"}]</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
        "<tool_call>{'name': 'add', 'arguments': {}}</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>",
        "<tool_call>" + '{"name": ' * 5000 + "1" + "}" * 5000,
    ],
    "llama": [
        "Hello.",
        '{"a": 1}',
        '{"name": "add"}',
        '{"name": "Alice", "parameters": {}}',
        "{",
        "{}",
        '{"na',
        '{"names": 1}',
        '<|python_tag|>print("x")',
        'see {"name": "now", "parameters": {}}',
    ],
    "mistral": [
        "[TOOL_CALLS]",
        "[TOOL",
        "[TOOL_CALLS][]",
        '[TOOL_CALLS][{"name": "now"}, {"name": "unknown"}]',
        '[TOOL_CALLS][{"name": "now"}',
        "[TOOL_CALLS]now[ARGS][1]",
        "[TOOL_CALLS]now",
        "[TOOL_CALLS]now[ARGS]",
        "[TOOL_CALLS]unknown[ARGS]{}",
        "[TOOL_CALLS] !",
    ],
}


def parsed(
    form: str, pieces: Iterable[str], finish: bool = True
) -> tuple[ToolCallParser, list[Any]]:
    parser = ToolCallParser(FORMATS[form], NAMES, lambda: "abcdefghi")
    events: list[ToolEvent] = []
    for piece in pieces:
        events += parser.push(piece)
    return parser, events + (parser.finish() if finish else [])


def outcome(form: str, pieces: Iterable[str]) -> tuple[str, Calls, str]:
    """Content, calls, and the text that the events cover, each checked against the events."""
    parser, events = parsed(form, pieces)
    content = "".join(event.text for event in events if isinstance(event, ContentPiece))
    assert parser.text == content
    calls: Calls = []
    begun = None
    for event in events:
        if isinstance(event, CallBegin):
            assert (begun, event.index, event.id) == (None, len(calls), "abcdefghi")
            begun = event.name
        elif isinstance(event, CallArguments):
            calls.append((begun, json.loads(event.text)))  # type: ignore[arg-type]
        elif isinstance(event, CallEnd):
            assert event.index == len(calls) - 1
            begun = None
        else:
            assert event.text
            assert begun is None
    assert calls == [(call.name, call.arguments) for call in parser.calls]
    covered = "".join(
        event.text if isinstance(event, ContentPiece) else event.source
        for event in events
        if isinstance(event, ContentPiece | CallEnd)
    )
    return content, calls, covered


def check_splits(form: str, text: str) -> tuple[str, Calls]:
    whole = outcome(form, [text])
    assert outcome(form, text) == whole  # every character alone
    if len(text) < 300:
        for place in range(len(text) + 1):
            assert outcome(form, [text[:place], text[place:]]) == whole
    # White space behind the last call is all that nothing covers.
    left = text[len(whole[2]) :]
    assert whole[2] + left == text
    assert not left.strip()
    assert not left or whole[1]
    return whole[0], whole[1]


@pytest.mark.parametrize(("form", "text", "content", "calls"), READ)
def test_calls_are_read_however_the_text_is_cut(
    form: str, text: str, content: str, calls: Calls
) -> None:
    assert check_splits(form, text) == (content, calls)


@pytest.mark.parametrize(
    ("form", "text"), [(form, text) for form, texts in CONTENT.items() for text in texts]
)
def test_what_is_no_call_stays_content(form: str, text: str) -> None:
    assert check_splits(form, text) == (text, [])


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_format_spells_reads_back(form: str) -> None:
    calls = [ADD, DEEP, NOW]
    text = FORMATS[form].spelled([(name, json.dumps(given)) for name, given in calls])
    assert check_splits(form, text) == ("", calls)


def test_a_broken_call_hides_no_later_one() -> None:
    text = '<tool_call>{"name": "add", <tool_call>{"name": "now"}</tool_call>'
    assert check_splits("hermes", text) == ('<tool_call>{"name": "add",', [NOW])


def test_content_streams_as_it_comes() -> None:
    parser, _ = parsed("hermes", [], finish=False)
    texts = [[getattr(e, "text", e) for e in parser.push(c)] for c in ("Hi ", "you <", "b> x", " ")]
    assert texts == [["Hi"], [" you"], [" <b> x"], []]
    assert parser.finish() == [ContentPiece(" ")]


def test_an_answer_in_json_is_not_held_back_in_the_format_of_llama() -> None:
    parser, _ = parsed("llama", [], finish=False)
    assert parser.push('{"answer": ') == [ContentPiece('{"answer":')]


def test_a_call_is_given_out_as_soon_as_it_is_whole() -> None:
    parser, events = parsed("hermes", ['<tool_call>{"name": "now"}</tool_call'], finish=False)
    assert events == []
    assert [type(event) for event in parser.push(">")] == [CallBegin, CallArguments, CallEnd]


def test_ids_suit_every_template() -> None:
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 9 and each.isalnum() and each.isascii() for each in ids)


PARTS = [
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"),
    *(
        '{"name": "now"',
        '"arguments": {',
        '"parameters": {',
        '{"name": "add", "arguments": {"a": 1}}',
    ),
    *(
        '"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        ";",
        "\\",
        "\n",
        " ",
        "now",
        "add",
        "é",
        "🙂",
        "<",
        "1",
        "x y",
    ),
    *(text for _, text, _, _ in READ),
]


def written(chance: random.Random) -> str:
    return "".join(chance.choice(PARTS) for _ in range(chance.randrange(12)))


def test_random_texts_and_splits_give_the_whole_answers_result() -> None:
    for seed in range(CASES):
        chance = random.Random(seed)
        form, text = chance.choice([*FORMATS]), written(chance)
        whole = outcome(form, [text])
        places = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(8)))
        ends = zip([0, *places], [*places, len(text)], strict=True)
        assert outcome(form, [text[a:b] for a, b in ends]) == whole, (seed, text)
        assert outcome(form, text) == whole, (seed, text)
        left = text[len(whole[2]) :]
        assert whole[2] + left == text, (seed, text)
        assert not left.strip(), (seed, text)


@settings(deadline=None, max_examples=max(CASES // 3, 20))
@given(form=st.sampled_from([*FORMATS]), text=st.text(), cut=st.integers(0, 50))
def test_any_text_is_covered(form: str, text: str, cut: int) -> None:
    assert outcome(form, [text[:cut], text[cut:]]) == outcome(form, [text])
    assert outcome(form, [text])[2] == text


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"a":"' * 20_000,
        "<tool_call>" * 50_000,
        '<tool_call>{"name": "now", "arguments": {' + '"x": [1], ' * 30_000,
    ],
    ids=["strings", "tags", "an object"],
)
def test_beginnings_of_calls_are_read_in_vain_a_bounded_number_of_times(text: str) -> None:
    parser, _ = parsed("hermes", [text])
    assert parser.text == text
    assert parser._tried <= 1_000_000 + len(text)
