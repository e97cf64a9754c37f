"""Processors that cut a distribution: what they leave out is never drawn. Otherwise as in `sampling`."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from lolama_core.generation.forbidden_tokens import NEVER

_FEW_CANDIDATES = 1024


def top_k(input_ids: Tensor, scores: Tensor, *, k: int) -> Tensor:
    """Keep the k best; ties with the k-th stay, as in transformers."""
    smallest = scores.topk(min(k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < smallest, NEVER)


def top_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep the best tokens until their probability reaches p; the one that reaches it stays."""
    if scores.device.type == "cpu" and scores.shape[-1] > 4 * _FEW_CANDIDATES:
        # Sorting a whole vocabulary takes a CPU a millisecond or more. The few best nearly always suffice.
        probabilities = scores.softmax(-1)
        best, order = probabilities.topk(_FEW_CANDIDATES)
        if bool((best.sum(-1) > p).all()):
            kept = torch.full_like(scores, NEVER)
            weak = (best.cumsum(-1) - best) >= p  # those before it are enough
            weak[:, 0] = False
            return kept.scatter(1, order, scores.gather(1, order).masked_fill(weak, NEVER))
    ordered, order = scores.sort(descending=False)
    below = ordered.softmax(-1).cumsum(-1) <= 1 - p
    below[:, -1] = False  # the best token always stays
    return scores.masked_fill(below.scatter(1, order, below), NEVER)


def top_n_sigma(input_ids: Tensor, scores: Tensor, *, n: float) -> Tensor:
    """Keep scores within ``n`` standard deviations of the best (Tang et al. 2024, arXiv:2411.07641).

    Forbidden tokens do not count in the deviation. A temperature scales scores and deviation alike, so it
    changes nothing here.
    """
    possible = scores.isfinite()
    count = possible.sum(-1, keepdim=True)
    mean = scores.masked_fill(~possible, 0).sum(-1, keepdim=True) / count
    squares = (scores - mean).masked_fill(~possible, 0).square()
    deviation = (squares.sum(-1, keepdim=True) / count).sqrt()
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - n * deviation, NEVER)


def min_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the best."""
    probabilities = scores.softmax(-1)
    weak = probabilities < p * probabilities.amax(-1, keepdim=True)
    return scores.masked_fill(weak, NEVER)


def typical_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the expected one, until their probability reaches p."""
    log_probabilities = scores.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).nansum(-1, keepdim=True)
    distance = (-log_probabilities - entropy).abs()
    order = distance.argsort(-1)
    reached = probabilities.gather(1, order).cumsum(-1)
    last = (reached < p).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    farthest = distance.gather(1, order).gather(1, last)
    return scores.masked_fill(distance > farthest, NEVER)


def xtc(
    input_ids: Tensor,
    scores: Tensor,
    *,
    probability: float,
    threshold: float,
    kept: Collection[int],
    generator: torch.Generator | None,
) -> Tensor:
    """Now and then exclude the top choices (p-e-w 2024: text-generation-webui, pull request 6335).

    Of the tokens that are at least ``threshold`` probable only the least probable one stays, or several if
    they are equal. If there is only one such token, nothing changes.

    Args:
        input_ids: (B, T).
        scores: (B, V).
        probability: How often it happens. One number is drawn for each row, whatever the scores are.
        threshold: From 0 to 0.5. Above 0.5 there are never two such tokens.
        kept: Ids that are never excluded. mlx-lm keeps end tokens and line breaks: without them a text
            loses its end or its form.
        generator: Where the numbers come from.
    """
    probabilities = scores.softmax(-1)
    # Others have excluded what is not probable at all: it is no choice, however low the threshold.
    choices = (probabilities >= threshold) & (probabilities > 0)
    least = probabilities.masked_fill(~choices, math.inf).amin(-1, keepdim=True)
    excluded = probabilities > least
    excluded[:, [token_id for token_id in kept if token_id < scores.shape[1]]] = False
    drawn = torch.rand((scores.shape[0], 1), generator=generator, device=scores.device)
    return scores.masked_fill(excluded & (drawn < probability), NEVER)
