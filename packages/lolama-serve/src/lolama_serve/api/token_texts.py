"""Tokens and their log-probabilities, as OpenAI's APIs tell them."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Any

from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.protocols.serving import ServedModel

_LOWEST = -9999.0
"""What is told of a token that cannot come: JSON has no infinity, and OpenAI's clients want a number."""


def token_text(model: ServedModel, token_id: int) -> str:
    """The text that one token adds to others, control tokens as they are spelled.

    A token of an answer knows its own: at the beginning of a text a word has no space before it.
    """
    known = _known_bytes(model, token_id)
    if type(token_id) is int and known:
        return known.decode("utf-8", "replace")
    tokenizer, ids = model.tokenizer, [token_id]
    return tokenizer.decode(ids) or tokenizer.decode(ids, skip_special_tokens=False)


def token_bytes(model: ServedModel, token_id: int, text: str) -> list[int]:
    """The bytes of a token that adds ``text``; those of a part of a character are no text by themselves."""
    known, whole = _known_bytes(model, token_id), text.encode()
    return [*(whole if known in (b"", whole, b" " + whole) else known)]


def _known_bytes(model: ServedModel, token_id: int) -> bytes:
    """The bytes of a token; none if they are not known."""
    known = model.token_bytes
    return b"" if known is None or token_id >= len(known) else known[token_id]


def json_logprob(logprob: float) -> float:
    """A log-probability as JSON can hold it; `_LOWEST` for a token that cannot come."""
    return logprob if math.isfinite(logprob) else _LOWEST


def chat_logprobs(logprobs: Sequence[TokenLogprobs], model: ServedModel) -> list[dict[str, Any]]:
    """What ``logprobs.content`` of a chat completion holds."""
    return [
        {
            **_entry(model, one.id, one.logprob),
            "top_logprobs": [_entry(model, *pair) for pair in one.best],
        }
        for one in logprobs
    ]


def completion_logprobs(
    logprobs: Sequence[TokenLogprobs], model: ServedModel, start: int
) -> dict[str, Any]:
    """The ``logprobs`` of a completion whose text begins ``start`` characters into its answer."""
    texts = [token_text(model, one.id) for one in logprobs]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets = []
    for one, text in zip(logprobs, texts, strict=True):
        offsets.append(start)  # of a part of a character: where that begins
        start += len(decoder.decode(bytes(token_bytes(model, one.id, text))))
    return {
        "tokens": texts,
        "token_logprobs": [json_logprob(one.logprob) for one in logprobs],
        "top_logprobs": [
            {token_text(model, i): json_logprob(value) for i, value in one.best} for one in logprobs
        ],
        "text_offset": offsets,
    }


def _entry(model: ServedModel, token_id: int, logprob: float) -> dict[str, Any]:
    text = token_text(model, token_id)
    return {
        "id": token_id,
        "token": text,
        "logprob": json_logprob(logprob),
        "bytes": token_bytes(model, token_id, text),
    }
