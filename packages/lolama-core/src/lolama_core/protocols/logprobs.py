"""Log-probabilities as ``--json`` has them, from a command itself or from a server that it asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lolama_core.protocols.generation import TokenLogprobs
    from lolama_core.protocols.text import Tokenizer


def logprob_facts(
    logprobs: Sequence[TokenLogprobs] | None, tokenizer: Tokenizer
) -> list[dict[str, Any]] | None:
    """What JSON has of each token; None where no log-probabilities were asked for.

    Args:
        logprobs: Those of a text's tokens, in order.
        tokenizer: Spells the tokens, control tokens included.

    Returns:
        For each token ``id``, ``text`` and ``logprob`` (a natural logarithm), and under ``best`` the same of
        the most probable tokens at its place. A token that cannot come has null: JSON has no infinity.
    """
    if logprobs is None:
        return None

    def entry(token_id: int, value: float) -> dict[str, Any]:
        text = tokenizer.decode([token_id], skip_special_tokens=False)
        return {"id": token_id, "text": text, "logprob": value if math.isfinite(value) else None}

    return [
        {**entry(token.id, token.logprob), "best": [entry(*pair) for pair in token.best]}
        for token in logprobs
    ]
