"""A constraint that begins where a model has ended its thought."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from lolama.thinking import ThoughtFormat
    from lolama_core.protocols import ForcingConstraint, Tokenizer

_TAG_TOKENS = 16
"""Tokens that are searched for the tag at the end of a thought."""


class AfterThought:
    """A `ForcingConstraint` for a reply that a thought may come before, which is free, but has to end.

    Where the prompt has not begun the thought, the model does so with its first token or not at all.

    Args:
        reply: What the reply may be.
        thoughts: The tags of thoughts.
        tokenizer: Knows them.
        ends: Ids that end a text.
        vocab_size: V.

    Raises:
        UsageError: from `accept`, if one token ends the thought and begins the reply.
    """

    def __init__(
        self,
        reply: ForcingConstraint,
        thoughts: ThoughtFormat,
        tokenizer: Tokenizer,
        ends: Collection[int],
        vocab_size: int,
    ) -> None:
        self._reply, self._thoughts, self._tokenizer = reply, thoughts, tokenizer
        self._thinking = torch.ones(vocab_size, dtype=torch.bool, device="cpu")
        self._thinking[[end for end in ends if end < vocab_size]] = False
        begin = tokenizer.encode_ids(thoughts.begin, add_special_tokens=False)
        self._begin = begin[0] if len(begin) == 1 and begin[0] < vocab_size else None
        self._tokens: list[int] = []
        # How many tokens come before the reply; None until it begins.
        self._reply_at: int | None = None

    def mask(self) -> Tensor | None:
        """(V,) bool: see `Constraint`."""
        if self._reply_at is None and (self._thoughts.opened or self._tokens):
            return self._thinking
        mask = self._reply.mask()
        if self._reply_at is None and self._begin is not None and mask is not None:
            mask[self._begin] = True
        return mask

    def accept(self, token: int) -> None:
        """Go on by a token."""
        if self._reply_at is None and not self._tokens and not self._thoughts.opened:
            if token != self._begin:
                self._reply_at = 0
        elif self._reply_at is None:
            self._think(token)
            self._tokens.append(token)
            return
        self._tokens.append(token)
        if self._reply_at is not None:
            self._reply.accept(token)

    def rollback(self, count: int) -> None:
        """Go back by ``count`` tokens."""
        kept = len(self._tokens) - count
        if self._reply_at is not None:
            self._reply.rollback(min(count, len(self._tokens) - self._reply_at))
            if kept < self._reply_at or not kept:
                self._reply_at = None
        del self._tokens[kept:]

    def forced(self) -> Sequence[int]:
        """What the reply's grammar says comes next."""
        return () if self._reply_at is None else self._reply.forced()

    def _think(self, token: int) -> None:
        last = [*self._tokens[1 - _TAG_TOKENS :], token]
        text = self._tokenizer.decode(last, skip_special_tokens=False)
        _, end, rest = text.rpartition(self._thoughts.end)
        if not end:
            return
        if rest.strip():
            reason = f"began within the token that ends {self._thoughts.end}"
            raise UsageError("the reply", reason, "let the model not think")
        self._reply_at = len(self._tokens) + 1
