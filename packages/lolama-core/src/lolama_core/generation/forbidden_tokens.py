"""Processors that forbid tokens: their scores become -inf, whatever they were. Otherwise as in `sampling`.

Each does what transformers does for the setting of the same name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

NEVER = float("-inf")


def no_repeat_ngram(input_ids: Tensor, scores: Tensor, *, size: int) -> Tensor:
    """Forbid what would end a run of ``size`` tokens that the history, the prompt included, holds already."""
    length = input_ids.shape[1]
    if length < size:
        return scores
    begun = input_ids[:, None, length - size + 1 :]  # (B, 1, size - 1)
    runs = input_ids.unfold(1, size, 1)  # (B, T - size + 1, size)
    return _forbid(scores, runs[..., -1], (runs[..., :-1] == begun).all(-1))


def bad_words(input_ids: Tensor, scores: Tensor, *, words: Sequence[Tensor]) -> Tensor:
    """Forbid the last token of a word where the others stand before it.

    Args:
        input_ids: (B, T).
        scores: (B, V).
        words: The result of `by_length`; their ids are below V.
    """
    for group in words:
        ids = group.to(scores.device)  # (N, length)
        before = input_ids.shape[1] - ids.shape[1] + 1
        if before >= 0:
            begun = (input_ids[:, None, before:] == ids[:, :-1]).all(-1)  # (B, N)
            scores = _forbid(scores, ids[:, -1].expand_as(begun), begun)
    return scores


def by_length(words: Collection[Sequence[int]]) -> list[Tensor]:
    """Words of any lengths → a (N, length) tensor for each length: those are compared all at once."""
    lengths = sorted({len(word) for word in words})
    return [torch.tensor([word for word in words if len(word) == length]) for length in lengths]


def min_new_tokens(
    input_ids: Tensor, scores: Tensor, *, count: int, prompt_length: int, eos_ids: Collection[int]
) -> Tensor:
    """Forbid end tokens until ``count`` tokens follow the prompt."""
    if input_ids.shape[1] - prompt_length >= count:
        return scores
    return suppress_tokens(input_ids, scores, ids=eos_ids)


def suppress_tokens(input_ids: Tensor, scores: Tensor, *, ids: Collection[int]) -> Tensor:
    """Forbid some tokens. Ids past the vocabulary are never chosen anyway."""
    known = [token_id for token_id in ids if token_id < scores.shape[1]]
    places = torch.tensor(known, dtype=torch.int64, device=scores.device)
    return scores.index_fill(1, places, NEVER)


def mask_unused(input_ids: Tensor, scores: Tensor, *, vocab_size: int) -> Tensor:
    """Never choose an id that the tokenizer does not know: its row of ``lm_head`` is noise."""
    masked = scores.clone()
    masked[:, vocab_size:] = NEVER
    return masked


def _forbid(scores: Tensor, ids: Tensor, where: Tensor) -> Tensor:
    """Scores (B, V) with ``ids`` (B, N) forbidden ``where`` (B, N) says so; an id may stand there twice."""
    highest = torch.where(where, NEVER, -NEVER).to(scores.dtype)
    return scores.scatter_reduce(1, ids, highest, "amin")
