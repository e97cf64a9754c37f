"""How well a model predicts a text: what ``lolama eval`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

import lolama_quant
from lolama.steps import Steps, counted
from lolama_core import TextGenerator
from lolama_core.protocols import CausalLM, Tokenizer
from lolama_core.protocols.errors import UsageError

WINDOW = 512
"""Tokens that are predicted from one another, as in lolama-quant's report."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """What a model made of a text.

    Attributes:
        tokens: The number of tokens in the text.
        window: Tokens of the pieces in which the text was read.
        perplexity: Geometric mean of 1 / probability over every token but the first of a piece.
    """

    tokens: int
    window: int
    perplexity: float


def default_texts() -> list[str]:
    """The documents that ship with lolama-quant: stories that the built-in model was not trained on."""
    return lolama_quant.default_text()


def perplexity(
    model: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    steps: Steps | None = None,
    cache_dtype: Literal["int8"] | None = None,
) -> Perplexity:
    """How surprised a model is by ``texts``, each read by itself.

    Args:
        model, tokenizer: What reads.
        texts: Documents.
        steps: Is told how many pieces of them are read.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.

    Raises:
        UsageError: for a ``cache_dtype`` that the model cannot have, or if there are not two tokens to
            predict one from the other.
        ResourceError: if memory runs out.
    """
    window = min(WINDOW, model.max_seq_len)
    documents = [tokenizer.encode_ids(text, split_special_tokens=True) for text in texts]
    pieces = [piece for ids in documents for piece in _pieces(ids, window)]
    if not pieces:
        raise UsageError("text", "holds no two tokens", "give a longer one")
    generator = TextGenerator(model, cache_dtype=cache_dtype)
    read = counted(pieces, len(pieces), steps)
    scores = torch.cat([generator.score(piece) for piece in read]).double()
    return Perplexity(
        tokens=sum(map(len, pieces)), window=window, perplexity=float(scores.mean().neg().exp())
    )


def _pieces(ids: Sequence[int], window: int) -> list[Sequence[int]]:
    pieces = [ids[start : start + window] for start in range(0, len(ids), window)]
    return [piece for piece in pieces if len(piece) > 1]
