"""How probable the model found a token, and what else might have come."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TokenLogprobs(NamedTuple):
    """Log-probabilities at the place of one token, as the model gives them, before any setting.

    Attributes:
        id: The token.
        logprob: Natural logarithm of its probability. The sum over a text is what `TextGenerator.score` says.
        best: The most probable tokens at this place, with theirs, the best one first.
    """

    id: int
    logprob: float
    best: tuple[tuple[int, float], ...]


def token_logprobs(logits: Tensor, token: int, count: int) -> TokenLogprobs:
    """Those of a token and of the ``count`` best, or of all if there are fewer, from logits (1, V)."""
    logprobs = logits[0].float().log_softmax(-1)
    best = logprobs.topk(min(count, len(logprobs)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprobs(token, float(logprobs[token]), tuple(pairs))
