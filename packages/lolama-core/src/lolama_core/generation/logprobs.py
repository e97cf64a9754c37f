"""How probable the model finds a token, and which tokens it finds most probable in its place."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TokenLogprobs(NamedTuple):
    """Log-probabilities at the place of one token, as the model gives them, before any setting.

    Attributes:
        id: The token.
        logprob: Natural logarithm of its probability; `TextGenerator.score` gives the same of a whole text.
        best: (id, log-probability) of the most probable tokens at this place, the best one first.
    """

    id: int
    logprob: float
    best: tuple[tuple[int, float], ...]


def token_logprobs(logits: Tensor, token: int, count: int) -> TokenLogprobs:
    """Log-probabilities of ``token`` and of the ``count`` best tokens, in float32.

    Args:
        logits: (1, V), before any setting has changed them.
        token: The token that was chosen.
        count: How many of the best tokens are given; all if there are fewer.
    """
    logprobs = logits[0].float().log_softmax(-1)
    best = logprobs.topk(min(count, len(logprobs)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprobs(token, float(logprobs[token]), tuple(pairs))
