"""Settings of a generation as the command line has them: what they are called, in words and in JSON.

Everything here is made of the rows of `GenerationConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lolama import GenerationConfig
from lolama_core.protocols.checks import is_integer, is_number
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import Kind, Setting, rows
from lolama_core.protocols.types import JSON

_CALLED = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}
# These stand in front of the others. The help of a command has them among its other options.
_FIRST = (
    *("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("stop", "seed"),
)
# ``generate`` has an option of its own for log-probabilities: they have no place in plain text.
_TABLE = {
    name: row for name, row in rows(GenerationConfig).items() if not name.endswith("logprobs")
}

COMMON: tuple[str, ...] = tuple(_CALLED.get(name, name) for name in _FIRST)
"""Keys of the settings that most people use."""

SETTINGS: Mapping[str, Setting] = {
    _CALLED.get(name, name): _TABLE[name] for name in dict.fromkeys((*_FIRST, *_TABLE))
}
"""Key → row. JSON calls a setting by its key; options and ``/set`` do so, too, with dashes."""


def option_of(key: str) -> str:
    """The option that sets it."""
    return f"--{key.replace('_', '-')}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _list_of(element: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(element, value))


def _is_text_or_id(value: object) -> bool:
    return _is_text(value) or is_integer(value)


def _spells_id(text: str) -> bool:
    # Python refuses to read thousands of digits, and no token id has as many as 20.
    return text.isdecimal() and len(text) < 20


def _is_biases(value: object) -> bool:
    return isinstance(value, dict) and all(
        _spells_id(key) and is_number(bias) for key, bias in value.items()
    )


# Kind → whether JSON holds one, and what it is called.
_IN_JSON: Mapping[Kind, tuple[Callable[[Any], bool], str]] = {
    "integer": (is_number, "a number"),
    "integer or null": (lambda value: value is None or is_number(value), "a number"),
    "number": (is_number, "a number"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "list of strings": (
        lambda value: _is_text(value) or _list_of(_is_text)(value),
        "a text or a list of texts",
    ),
    "list of integers": (_list_of(is_integer), "a list of token ids"),
    "list of lists of integers": (_list_of(_list_of(is_integer)), "a list of lists of token ids"),
    "list of strings or integers": (_list_of(_is_text_or_id), "a list of texts and token ids"),
    "object": (_is_biases, "an object of token ids and numbers"),
}

# Kinds whose elements are words without spaces.
_WORDS = ("list of integers", "list of lists of integers", "object")


def expected_in_json(row: Setting, value: JSON) -> str | None:
    """What JSON should hold for a setting, if ``value`` is of another kind."""
    right, words = _IN_JSON[row.kind]
    return None if right(value) else words


def from_json(row: Setting, value: Any) -> Any:
    """A value of JSON as `GenerationConfig` takes it. What makes no sense is left for it to refuse.

    Raises:
        UsageError: about the setting, if a token id has two values, as in ``{"15": 1, "015": 2}``.
    """
    if row.kind == "object" and isinstance(value, dict):
        pairs = ((int(key) if _spells_id(key) else key, bias) for key, bias in value.items())
        return _biases(pairs, row.name)
    return value


def to_json(value: Any) -> JSON:
    """A value of `GenerationConfig` as JSON has it."""
    if isinstance(value, tuple):
        return [to_json(element) for element in value]
    if isinstance(value, Mapping):
        return {str(key): bias for key, bias in value.items()}
    return value  # type: ignore[no-any-return] # a number, a text, or nothing


def from_text(row: Setting, text: str, subject: str) -> Any:
    """What a user typed behind a setting's name, as `GenerationConfig` takes it; see `from_words`.

    A list may be written in JSON: it begins with ``[``.

    Raises:
        UsageError: about ``subject``, for a text that spells no value of this kind.
    """
    if isinstance(row.default, tuple) and text.startswith("["):
        return _json_list(row, text, subject)
    words = text.split() if row.kind in _WORDS else [text]
    return from_words(row, words, subject, more="put spaces between several")


def to_text(value: JSON) -> str:
    """A setting's value in JSON as `from_text` reads it."""
    if value in (None, [], {}):
        return "none"
    if isinstance(value, dict):
        return " ".join(f"{token_id}={bias}" for token_id, bias in value.items())
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def from_words(
    row: Setting, words: Sequence[str], subject: str, *, more: str = "repeat the option for more"
) -> Any:
    """What a user typed, a word for each element of a list, as `GenerationConfig` takes it.

    ``none`` is nothing, and stands alone. Numbers out of their range are left for it to refuse.

    Args:
        row: The setting.
        words: What was typed.
        subject: What errors are about.
        more: How to give several values.

    Raises:
        UsageError: for words that spell no value of this kind.
    """
    listed = isinstance(row.default, tuple | dict)
    if {*words} == {"none"}:
        return type(row.default)() if listed else None
    if "none" in words:
        reason = "none stands beside other values, and means that there are none"
        raise UsageError(subject, reason, "leave out none, or the others")
    if row.kind == "object":
        return _biases((_bias(word, subject, more) for word in words), subject)
    if row.kind == "list of lists of integers":
        return tuple(_ids(word, subject) for word in words)
    if row.kind == "list of integers":
        return tuple(token_id for word in words for token_id in _ids(word, subject))
    return tuple(words) if listed else _scalar(*words)


def _scalar(text: str) -> JSON:
    """A number or a boolean, or what says in an error that it is none."""
    try:
        value: JSON = json.loads(text) if len(text) < 40 else text
    except ValueError:
        return text
    return value


def _json_list(row: Setting, text: str, subject: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    expected = expected_in_json(row, value)
    if expected is not None:
        remedy = f"write {expected}" if row.kind in _WORDS else f"write {json.dumps([text])}"
        raise UsageError(subject, f"{text!r:.40} is not {expected} in JSON", remedy)
    return value


def _ids(word: str, subject: str) -> tuple[int, ...]:
    numbers = word.split(",")
    if not all(map(_spells_id, numbers)):
        raise UsageError(subject, f"{word!r:.40} is no list of token ids", "write them as 5,7,9")
    return tuple(map(int, numbers))


def _biases(pairs: Iterable[tuple[Any, float]], subject: str) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for token_id, bias in pairs:
        if token_id in found:
            raise UsageError(subject, f"gives token id {token_id} two values", "give it one")
        found[token_id] = bias
    return found


def _bias(word: str, subject: str, more: str) -> tuple[int, float]:
    token_id, equals, bias = word.partition("=")
    try:
        if not equals or not _spells_id(token_id):
            raise ValueError
        return int(token_id), float(bias)
    except ValueError:
        reason = f"{word!r:.40} is not ID=VALUE"
        remedy = f"write a token id and a number, as in 15=-2.5, and {more}"
        raise UsageError(subject, reason, remedy) from None
