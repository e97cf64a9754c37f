"""Tokens and their log-probabilities, as OpenAI's APIs tell them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lolama_core.protocols import Tokenizer
from lolama_core.protocols.generation import TokenLogprobs

_LOWEST = -9999.0
"""What is told of a token that cannot come: JSON has no infinity, and OpenAI's clients want a number."""


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of one token, control tokens as they are spelled."""
    return tokenizer.decode([token_id]) or tokenizer.decode([token_id], skip_special_tokens=False)


def number(logprob: float) -> float:
    """A log-probability as JSON can hold it."""
    return logprob if math.isfinite(logprob) else _LOWEST


def chat_logprobs(logprobs: Sequence[TokenLogprobs], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """What ``logprobs.content`` of a chat completion holds."""
    return [
        {
            **_entry(tokenizer, one.id, one.logprob),
            "top_logprobs": [_entry(tokenizer, *pair) for pair in one.best],
        }
        for one in logprobs
    ]


def completion_logprobs(
    logprobs: Sequence[TokenLogprobs], tokenizer: Tokenizer, start: int
) -> dict[str, Any]:
    """The ``logprobs`` of a completion whose text begins ``start`` characters into its answer."""
    texts = [token_text(tokenizer, one.id) for one in logprobs]
    offsets = []
    for text in texts:
        offsets.append(start)
        start += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [number(one.logprob) for one in logprobs],
        "top_logprobs": [
            {token_text(tokenizer, i): number(value) for i, value in one.best} for one in logprobs
        ],
        "text_offset": offsets,
    }


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    text = token_text(tokenizer, token_id)
    return {
        "id": token_id,
        "token": text,
        "logprob": number(logprob),
        "bytes": [*text.encode()],
    }
