"""The cases of the official JSON-Schema-Test-Suite (2020-12): nothing wrong is accepted.

A schema that asks for what is not known here is refused with a reason. Of a valid document that is refused
the reason is mostly that properties come in the schema's order, and texts without blanks.

``nox -s json-schema-suite`` fetches the suite and sets LOLAMA_JSON_SCHEMA_SUITE to its folder.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from spelled import Speller, of_bytes

from lolama.grammar import Grammar
from lolama_core.protocols.errors import UsageError

SUITE = os.environ.get("LOLAMA_JSON_SCHEMA_SUITE")
EXPECTED = Path(__file__).with_name("json_schema_suite.json")

OWN: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 2}, [4, 100], [3, 5, "4", None]),
    ({"enum": [[], {"a": None}, "é"]}, [[], {"a": None}, "é"], [{}, {"a": 1}, "e"]),
    ({"anyOf": [{"type": "string", "maxLength": 1}, {"type": "null"}]}, ["a", "🙂", None], ["ab"]),
    ({"prefixItems": [{"const": 1}], "items": False, "type": "array"}, [[1], []], [[1, 2], [2]]),
    (
        {"$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}, "type": "object"}}}
        | {"$ref": "#/$defs/N"},
        [{}, {"n": {"n": {}}}],
        [{"n": 1}, []],
    ),
    (
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}},
        [{"xa": None}],
        [{"xa": 1}],
    ),
]


class Case(NamedTuple):
    """A document of the suite."""

    file: str
    about: str
    schema: Any
    document: Any
    valid: bool


@cache
def speller() -> Speller:
    return Speller(of_bytes())


def verdict(case: Case) -> str:
    """ "agrees", "accepts what is invalid", or why a schema or a valid document is refused."""
    try:
        grammar = Grammar.json_schema(case.schema)
        text = json.dumps(case.document, ensure_ascii=False, separators=(",", ":"))
        accepted = speller().accepts(grammar, text)
    except UsageError as error:
        return f"refuses the schema: {_kind(error.reason)}"
    if accepted == case.valid:
        return "agrees"
    return "accepts what is invalid" if accepted else "refuses what is valid"


def _kind(reason: str) -> str:
    """What is refused, without its names and numbers."""
    words = reason.removeprefix("cannot be used: ")
    keys = re.fullmatch(r"Unimplemented keys: \[(.*)\]", words)
    if keys:
        return f"the keys {keys[1]}"
    return re.sub(r"[\"'`/(#:].*", "", words).strip()


@pytest.mark.parametrize("place", range(len(OWN)))
def test_documents_of_some_schemas(place: int) -> None:
    schema, valid, invalid = OWN[place]
    cases = [Case("", "", schema, document, True) for document in valid]
    cases += [Case("", "", schema, document, False) for document in invalid]
    assert {verdict(case) for case in cases} == {"agrees"}


def cases_of(folder: Path) -> Iterator[Case]:
    files = sorted(folder.glob("tests/draft2020-12/*.json"))
    assert files, f"{folder} has no tests/draft2020-12"
    for file in files:
        for group in json.loads(file.read_text("utf-8")):
            for test in group["tests"]:
                yield Case(
                    file.stem,
                    f"{group['description']}: {test['description']}",
                    group["schema"],
                    test["data"],
                    test["valid"],
                )


def found_in(folder: Path) -> dict[str, Any]:
    """The figures, and each valid document that is refused."""
    verdicts: Counter[str] = Counter()
    refused: dict[str, list[str]] = {}
    for case in cases_of(folder):
        found = verdict(case)
        verdicts[found] += 1
        if found.endswith("valid"):
            refused.setdefault(f"{found}, {case.file}", []).append(case.about)
    return {"verdicts": dict(sorted(verdicts.items())), "documents": refused}


@pytest.mark.skipif(SUITE is None, reason="nox -s json-schema-suite fetches the suite")
def test_the_suite() -> None:
    assert SUITE is not None
    found = found_in(Path(SUITE))
    if os.environ.get("LOLAMA_WRITE_EXPECTED"):
        EXPECTED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    assert "accepts what is invalid" not in found["verdicts"]
    assert found == json.loads(EXPECTED.read_text("utf-8"))
