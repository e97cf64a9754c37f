"""``--json-schema``, ``--regex`` and ``--grammar``, and the same keys in lines of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from warm_program import run

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Lily", "Tom"]}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SETTINGS = ("generate", "-m", "demo", "--seed", "1")
BROKEN_OFF = "note: the text is broken off, so it is not yet what was asked for"


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def grammar(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_json_of_a_schema(schema: Path) -> None:
    outcome = run(*SETTINGS, "--json-schema", schema, "--max-tokens", "50", "A child:")
    assert (outcome.code, outcome.err) == (0, "")
    jsonschema.validate(json.loads(outcome.out), SCHEMA)


def test_a_regular_expression() -> None:
    outcome = run(*SETTINGS, "--regex", "yes|no", "Is it?")
    assert outcome.code == 0 and outcome.out in (b"yes", b"no") and outcome.err == ""
    whole = run(*SETTINGS, "--regex", "yes|no", "--json", "Is it?")
    assert json.loads(whole.out)["text"] in ("yes", "no")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.gbnf", 'root ::= "x" y\ny ::= "y"'),
        ("a.lark", 'start: "x" "y"'),
        ("a.GBNF", 'other ::= "y"\nroot ::= "x" other'),
        ("a.txt", '# by its first rule\nroot ::= "x" "y"'),
        ("grammar", '// by its first rule\nstart: "x" y\ny: "y"'),
    ],
)
def test_grammars_by_ending_and_by_first_rule(tmp_path: Path, name: str, text: str) -> None:
    outcome = run(*SETTINGS, "--grammar", grammar(tmp_path, name, text), "A")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"xy", "")


def test_a_text_that_is_broken_off_is_called_so(schema: Path) -> None:
    short = run(*SETTINGS, "--json-schema", schema, "--max-tokens", "3", "A child:")
    assert short.code == 0 and short.out.startswith(b'{"')
    assert short.err.startswith(BROKEN_OFF)
    as_json = run(*SETTINGS, "--json-schema", schema, "--max-tokens", "3", "--json", "A child:")
    assert json.loads(as_json.out)["finish_reason"] == "length"
    assert as_json.err.startswith(BROKEN_OFF)
    assert BROKEN_OFF not in run(*SETTINGS, "--max-tokens", "3", "A child:").err


REFUSED: dict[str, tuple[list[str], str]] = {
    "two": (
        ["--regex", "a", "--json-schema", "s.json"],
        "error: --regex: does not go with --json-schema; leave one of them out",
    ),
    "three": (
        ["--regex", "a", "--json-schema", "s.json", "--grammar", "g"],
        "error: --regex: does not go with --json-schema",
    ),
    "itself": (
        ["--json-schema", json.dumps(SCHEMA)],
        "error: --json-schema: is a schema itself; write it to a file, and name that",
    ),
    "none": (["--json-schema", "none.json"], "none.json: there is no such file; give another file"),
    "folder": (["--grammar", "."], "is not a regular file; give another file to --grammar"),
    "no JSON": (["--json-schema", "g"], "g: is not JSON (Expecting value"),
    "deep": (["--json-schema", "deep.json"], "deep.json: "),
    "a list": (["--json-schema", "list.json"], "list.json: is a list; give an object, true or"),
    "long": (["--json-schema", "long.json"], "long.json: is larger than 65,536 bytes"),
    "no rule": (["--grammar", "g"], "g: has neither a rule start: of Lark nor a rule root ::="),
    "no GBNF": (["--grammar", "s.gbnf"], "grammar: is no GBNF: "),
    "not UTF-8": (["--grammar", "binary"], "binary: "),
    "regex": (["--regex", "("], "regex: cannot be used: "),
    "unknown": (["--json-schema", "unique.json"], 'Unimplemented keys: ["uniqueItems"]'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = REFUSED[name]
    files: dict[str, bytes] = {
        "s.json": json.dumps(SCHEMA).encode(),
        "list.json": b"[1]",
        "deep.json": b"[" * 20_000 + b"]" * 20_000,
        "long.json": b'{"title": "' + b"x" * 70_000 + b'"}',
        "unique.json": b'{"uniqueItems": true}',
        "g": b"nothing",
        "s.gbnf": b"start: 5",
        "binary": b"\xff\xfe",
    }
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    paths = [str(tmp_path / one) if one in {*files, "none.json", "."} else one for one in arguments]
    outcome = run(*SETTINGS, *paths, "A")
    assert (outcome.code, outcome.out) == (2, b"")
    assert message in outcome.err and outcome.err.count("\n") == 1


def batch(tmp_path: Path, lines: list[Any], *options: str | Path) -> list[dict[str, Any]]:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = run(*SETTINGS, "--max-tokens", "50", *options, "--batch", path)
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_lines_of_a_batch_have_their_own(schema: Path, tmp_path: Path) -> None:
    lines = [
        {"prompt": "A", "regex": "[ab]{3}"},
        {"prompt": "A"},
        {"prompt": "A", "json_schema": {"const": 5}},
        {"prompt": "A", "grammar": 'root ::= "x"'},
        {"prompt": "A", "grammar": 'start: "y"'},
    ]
    texts = [answer["text"] for answer in batch(tmp_path, lines, "--json-schema", schema)]
    assert len(texts[0]) == 3 and set(texts[0]) <= {"a", "b"}
    jsonschema.validate(json.loads(texts[1]), SCHEMA)
    assert texts[2:] == ["5", "x", "y"]


def test_a_line_that_makes_no_sense_stops_no_other(tmp_path: Path) -> None:
    lines = [
        {"prompt": "A", "regex": "a", "grammar": 'start: "y"'},
        {"prompt": "A", "json_schema": [1]},
        {"prompt": "A", "json_schema": {"uniqueItems": True}},
        {"prompt": "A", "grammar": "nothing"},
        {"prompt": "A", "regex": 5},
        {"prompt": "A", "regex": "ab"},
    ]
    *wrong, right = batch(tmp_path, lines)
    assert right["text"] == "ab"
    messages = [answer["error"]["message"] for answer in wrong]
    expected = [
        "line 1: grammar and regex are both there",
        "line 2: json_schema is a list",
        'Unimplemented keys: ["uniqueItems"]',
        "line 4: grammar has neither",
        "line 5: regex is an int",
    ]
    for message, words in zip(messages, expected, strict=True):
        assert words in message
    assert {answer["error"]["exit_code"] for answer in wrong} == {2}


def test_answers_that_were_to_be_something_else_are_made_again(
    schema: Path, tmp_path: Path
) -> None:
    keys = {
        batch(tmp_path, [{"prompt": "A"}], *options)[0]["key"]
        for options in ((), ("--json-schema", schema), ("--regex", "a"), ("--regex", "b"))
    }
    assert len(keys) == 4
