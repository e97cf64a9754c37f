"""The tokens that a GGUF file lists, with a kind and a score for each, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from lolama_core.protocols.checks import is_number
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.utf8 import is_unicode
from lolama_hub.folder.fields import Fields, shown

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # as in SentencePiece

# The largest published vocabulary has a million tokens, of six characters on average.
_MOST_TOKENS = 2**21
_MOST_CHARACTERS = 2**24
_LONGEST_TOKEN = 2**16
_REMEDY = "get the file again"
# What llama.cpp's converter puts where the model has rows that its tokenizer does not.
_PADDING = re.compile(r"\[PAD\d+\]")
_KINDS = {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE}

T = TypeVar("T")


@dataclass(frozen=True)
class TokenList:
    """The tokens of a file, as its tokenizer knows them.

    Attributes:
        texts: Text of each id. Those of no use behind the last one are left out.
        kinds: Kind of each id, ``NORMAL`` to ``BYTE``. One of no use is ``UNUSED``.
        scores: Score of each id; empty if the file has none.
        ids: Text → id.
    """

    texts: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    ids: dict[str, int]


def read_tokens(fields: Fields) -> TokenList:
    """The tokens of a file.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.

    Raises:
        ModelError: naming the key and the token.
    """
    name = "ggml.tokens"
    listed = list_of(fields, name, str, most=_MOST_TOKENS)
    # There may be several without text. llama.cpp calls them so, too.
    texts = [text or f"[EMPTY_{number}]" for number, text in enumerate(listed)]
    if not texts:
        raise fields.refuse(name, "a list of tokens, which has at least one")
    if sum(map(len, texts)) > _MOST_CHARACTERS:
        raise refused(fields, name, f"has more than {_MOST_CHARACTERS} characters")
    if max(map(len, texts)) > _LONGEST_TOKEN or not is_unicode("".join(texts)):
        text = next(one for one in texts if len(one) > _LONGEST_TOKEN or not is_unicode(one))
        raise refused(fields, name, f"has {shown(text)}, which can be no token")
    ids = {text: number for number, text in enumerate(texts)}
    if len(ids) < len(texts):
        number, text = next((n, text) for n, text in enumerate(texts) if ids[text] != n)
        reason = f"has {shown(text)} twice, at {number} and {ids[text]}"
        raise refused(fields, name, reason)
    kinds = [
        kind if text else UNUSED for kind, text in zip(_kinds(fields, texts), listed, strict=True)
    ]
    size = len(texts)
    while size > 1 and kinds[size - 1] == UNUSED:
        size -= 1
        del ids[texts[size]]
    scores = _scores(fields, len(texts))
    return TokenList(texts[:size], kinds[:size], scores[:size], ids)


def list_of(fields: Fields, name: str, kind: type[T], *, most: int) -> list[T]:
    """The list ``name``; empty if there is none.

    Raises:
        ModelError: if it is none, has entries of another type, or more than ``most``.
    """
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(one) is kind for one in value):
        raise fields.refuse(name, f"a list of {kind.__name__}")
    if len(value) > most:
        raise refused(fields, name, f"has {len(value)} entries, more than {most}")
    return cast(list[T], value)


def refused(fields: Fields, name: str, reason: str) -> ModelError:
    """The error for a key, in words of its own."""
    return ModelError(str(fields.path), f"{fields.block}.{name} {reason}", _REMEDY)


def _kinds(fields: Fields, texts: Sequence[str]) -> list[int]:
    name = "ggml.token_type"
    found = list_of(fields, name, int, most=_MOST_TOKENS)
    if not found:
        return [NORMAL] * len(texts)
    _check_length(fields, name, found, len(texts))
    if not set(found) <= _KINDS:
        number, kind = next((n, kind) for n, kind in enumerate(found) if kind not in _KINDS)
        raise refused(fields, name, f"has {kind} at {number}, expected {NORMAL} to {BYTE}")
    return [
        # Older converters call padding unknown or user defined.
        UNUSED if kind in (UNKNOWN, USER_DEFINED) and _PADDING.fullmatch(text) else kind
        for kind, text in zip(found, texts, strict=True)
    ]


def _scores(fields: Fields, size: int) -> list[float]:
    name = "ggml.scores"
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fields.refuse(name, "a list of numbers")
    _check_length(fields, name, value, size)
    for number, score in enumerate(value):
        if not is_number(score):
            raise refused(fields, name, f"has {shown(score)} at {number}, expected a number")
    return cast(list[float], value)


def _check_length(fields: Fields, name: str, values: Sequence[object], size: int) -> None:
    if len(values) != size:
        raise refused(fields, name, f"has {len(values)} entries, but there are {size} tokens")
