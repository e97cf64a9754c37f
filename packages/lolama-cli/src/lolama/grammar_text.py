"""The texts of grammars, checked before anything reads them, and GBNF as Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

from lolama_core.protocols.checks import kind_of, shown, words_of
from lolama_core.protocols.errors import UsageError

MOST_BYTES = 64 << 10
"""The longest source, in UTF-8. Schemas of published interfaces have a few thousand bytes; an ``anyOf`` of
75 kB took 0.6 s to compile, and one of 1.2 MB was refused after 0.7 s."""

MOST_NESTED = 64
"""Objects and lists in one another in a schema: 32 levels of properties, of which each has two of them."""

MOST_RULES = 500
"""Rules of GBNF. Its converter, in Python, takes time that grows with their square: a second for these."""


def most_bytes(text: str, subject: str) -> str:
    """The text, if it is one, and not too long.

    Raises:
        UsageError: if it is not.
    """
    if not isinstance(text, str):
        raise UsageError(subject, f"is {kind_of(text)}", "give a text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        reason = "holds half of a surrogate pair, which is not Unicode"
        raise UsageError(subject, reason, "give UTF-8 text") from None
    if size > MOST_BYTES:
        reason = f"has {size:,} bytes, more than {MOST_BYTES:,}"
        raise UsageError(subject, reason, "shorten it")
    return text


def checked_schema(schema: Mapping[str, object] | bool) -> str:
    """A JSON schema as text, once it is known to be small.

    Raises:
        UsageError: if it is no schema, or too deep or too long.
    """
    if not isinstance(schema, Mapping | bool):
        reason = f"is {kind_of(schema)}"
        raise UsageError("JSON schema", reason, "give an object, true or false")
    if isinstance(schema, bool):
        if not schema:
            raise UsageError("JSON schema", "is false, which describes nothing", "give another")
        schema = {}
    try:
        text = json.dumps(_plain(schema), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError("JSON schema", f"is no JSON: {words_of(error)}", "correct it") from None
    return most_bytes(text, "JSON schema")


def _plain(schema: object) -> object:
    """The same of dictionaries and lists alone, which `json` knows, unless it is too deep or too much.

    What is in several places counts in each of them, so one that holds itself is too deep.
    """
    left = MOST_BYTES  # no value takes less than a byte

    def plain(value: object, level: int) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            reason = f"has more than {MOST_BYTES:,} values"
            raise UsageError("JSON schema", reason, "shorten it")
        if not isinstance(value, Mapping | list | tuple):
            return value
        if level == MOST_NESTED:
            reason = f"has more than {MOST_NESTED} objects and lists in one another"
            raise UsageError("JSON schema", reason, "give parts of it a name in $defs")
        if not isinstance(value, Mapping):
            return [plain(inner, level + 1) for inner in value]
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {shown(key)} is no text")
        return {key: plain(inner, level + 1) for key, inner in value.items()}

    return plain(schema, 0)


_ROOT = re.compile(r"^\s*root\s*::=", re.MULTILINE)
_START = re.compile(r"^\s*start\s*:(?!:)", re.MULTILINE)


def kind_of_grammar(text: str) -> Literal["lark", "gbnf"]:
    """What a grammar is written in, by its first rule.

    Raises:
        UsageError: if it has none that either knows.
    """
    most_bytes(text, "grammar")
    if _ROOT.search(text):
        return "gbnf"
    if _START.search(text):
        return "lark"
    reason = "has neither a rule start: of Lark nor a rule root ::= of GBNF"
    raise UsageError("grammar", reason, "give one of them")


def checked_gbnf(text: str) -> str:
    """A GBNF grammar, if it has few rules.

    Raises:
        UsageError: if it is too long, or has too many.
    """
    rules = most_bytes(text, "grammar").count("::=")
    if rules > MOST_RULES:
        reason = f"has {rules:,} rules, more than {MOST_RULES}"
        raise UsageError("grammar", reason, "write it in Lark")
    return text


def lark_of_gbnf(text: str) -> str:
    """A GBNF grammar in Lark, as llguidance reads it.

    Raises:
        UsageError: if it is no GBNF.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(_ESCAPES.sub(_character, text))
    except RecursionError:
        raise UsageError("grammar", "is nested too deeply", "give parts of it a name") from None
    except Exception as error:  # the converter raises plain ones
        raise UsageError("grammar", f"is no GBNF: {words_of(error)}", "correct it") from None


_ESCAPES = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


def _character(found: re.Match[str]) -> str:
    """The character of an escape, where it needs none: the converter loses the zeros of such a number."""
    digits = found[1] or found[2] or found[3]
    number = int(digits, 16) if digits else 0
    if number < 0x80:
        return f"\\x{number:02x}" if digits else found[0]
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise ValueError(f"{found[0]} is no character")
    return chr(number)
