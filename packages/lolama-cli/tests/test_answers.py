"""What a text may be, from Python: schemas, classes, regular expressions and grammars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypedDict

import jsonschema
import pytest

import lolama
from lolama.grammar import Grammar
from lolama_core.protocols.errors import UsageError


@dataclass
class Animal:
    name: str
    legs: int
    kind: Literal["dog", "cat"]


class Sum(TypedDict):
    right: bool
    result: int


SCHEMA = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}, "n": {"type": "integer", "maximum": 9999}},
    "required": ["yes", "n"],
    "additionalProperties": False,
}


@cache
def llm() -> lolama.LanguageModel:
    return lolama.load("demo", device="cpu", dtype="float32")


WAYS: dict[str, Callable[..., lolama.Generation]] = {
    "generate": lambda **asked: llm().generate("Once upon a time", **asked),
    "chat": lambda **asked: llm().chat("What is two plus three?", **asked),
    "ask": lambda **asked: llm().conversation().ask("What is two plus three?", **asked),
}
STREAMS: dict[str, Callable[..., lolama.ReplyStream]] = {
    "generate": lambda **asked: llm().stream("Once upon a time", **asked),
    "chat": lambda **asked: llm().chat("What is two plus three?", stream=True, **asked),
    "ask": lambda **asked: llm().conversation().stream("What is two plus three?", **asked),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_schema_has_its_json_in_every_way(way: str) -> None:
    settings: dict[str, Any] = {"schema": SCHEMA, "max_new_tokens": 60, "seed": 4}
    result = WAYS[way](**settings)
    assert result.finish_reason == "eos"
    jsonschema.validate(json.loads(result.text), SCHEMA)
    stream = STREAMS[way](**settings)
    assert "".join(stream) == result.text
    assert stream.result == result


@pytest.mark.parametrize("way", WAYS)
def test_the_other_kinds(way: str) -> None:
    assert WAYS[way](regex="yes|no").text in ("yes", "no")
    assert WAYS[way](grammar='start: "a" "b"+ "!"', max_new_tokens=90).text.rstrip("b!") == "a"
    assert WAYS[way](grammar='root ::= "x" | "y"').text in ("x", "y")
    assert WAYS[way](grammar=Grammar.regex("z")).text == "z"
    # None is as if nothing was asked for.
    plain = WAYS[way](max_new_tokens=5, seed=1)
    assert WAYS[way](max_new_tokens=5, seed=1, schema=None, regex=None, grammar=None) == plain


def test_classes() -> None:
    animal = json.loads(llm().generate("The dog", schema=Animal, seed=1, max_new_tokens=90).text)
    assert [*animal] == ["name", "legs", "kind"]
    assert Animal(**animal).kind in ("dog", "cat")
    total = json.loads(llm().generate("Two", schema=Sum, seed=1, max_new_tokens=60).text)
    assert set(total) == {"right", "result"}


def test_a_text_that_has_no_room_is_broken_off() -> None:
    result = llm().generate("The dog", schema=Animal, max_new_tokens=5)
    assert result.finish_reason == "length"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(result.text)


def test_a_conversation_goes_on_after_an_answer_of_a_schema() -> None:
    talk = llm().conversation()
    answer = talk.ask("What is two plus three?", schema=Sum, seed=1, max_new_tokens=60)
    assert talk.messages[-1]["content"] == answer.text
    assert talk.ask("Tell me a story.", max_new_tokens=5).text


def test_processors_and_stop_texts_go_with_a_grammar() -> None:
    calls = []

    def note(ids: Any, scores: Any) -> Any:
        calls.append(ids.shape[1])
        return scores

    result = llm().generate("One", regex="[a-z]{6}!", logits_processors=[note], stop=["!"])
    assert len(result.text) == 6 and result.finish_reason == "stop" and calls


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"schema": {}, "regex": "a"}, "regex: and schema are both given; give one of them"),
    ({"regex": "a", "grammar": "start: /a/"}, "grammar: and regex are both given"),
    ({"schema": 5}, "schema: 5 is no JSON schema; give a mapping, or a class"),
    ({"schema": "{}"}, "schema: '{}' is no JSON schema"),
    ({"schema": Callable}, "cannot be described: "),
    ({"regex": b"a"}, "regex: is a bytes"),
    ({"grammar": 5}, "grammar: is an int; give a text"),
    ({"grammar": 'rule ::= "a"'}, "has neither a rule start: of Lark nor a rule root ::= of GBNF"),
    ({"grammar": 'start ::= "a"'}, "has neither a rule start: of Lark nor a rule root ::= of GBNF"),
    ({"schema": {"uniqueItems": True}}, "JSON schema: cannot be used: Unimplemented keys"),
]


@pytest.mark.parametrize("place", range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_before_anything_runs(place: int) -> None:
    asked, message = REFUSED[place]
    for way in WAYS.values():
        with pytest.raises(UsageError) as caught:
            way(**asked)
        assert message in str(caught.value)


def test_a_vocabulary_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lolama import grammar_vocabulary

    calls = []
    made = grammar_vocabulary.vocabulary_of

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return made(*arguments)

    monkeypatch.setattr(grammar_vocabulary, "vocabulary_of", counting)
    model = lolama.load("demo", device="cpu", dtype="float32")
    assert not calls
    talk = model.conversation()
    for _ in range(2):
        model.generate("a", regex="b")
        talk.ask("a", regex="b")
    assert len(calls) == 1
