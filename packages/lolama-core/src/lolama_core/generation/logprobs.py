"""How probable the model finds a token, and which tokens it finds most probable in its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.protocols.types import PromptKey


def token_logprobs(logits: Tensor, tokens: Sequence[int], count: int) -> list[TokenLogprobs]:
    """Log-probabilities of each token and of the ``count`` best ones in its place, in float32.

    Args:
        logits: (T, V), before any setting has changed them.
        tokens: T tokens.
        count: How many of the best tokens are given; all if there are fewer.
    """
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])
    best = logprobs.topk(min(count, logprobs.shape[1]))
    return [
        TokenLogprobs(token, logprob, tuple(zip(ids, values, strict=True)))
        for token, [logprob], ids, values in zip(
            tokens, chosen.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


class PromptLogprobs:
    """Log-probabilities of the tokens of a prompt, as it runs chunk by chunk.

    Args:
        keys: Those of its positions. What is no number is no token: a part of a picture.
        count: How many of the best tokens are given for each.

    Attributes:
        tokens: Those read so far. The first position of a prompt has none.
    """

    def __init__(self, keys: Sequence[PromptKey], count: int) -> None:
        self._keys, self._count = keys, count
        self.tokens: list[TokenLogprobs] = []

    def __call__(self, logits: Tensor, first: int) -> None:
        """Read (T, V) logits of the positions from ``first`` on; from 0 on, read anew."""
        if first == 0:
            self.tokens.clear()
        following = self._keys[first + 1 : first + 1 + len(logits)]
        places = [place for place, key in enumerate(following) if isinstance(key, int)]
        if places:
            tokens = [key for key in following if isinstance(key, int)]
            self.tokens += token_logprobs(logits[places], tokens, self._count)
