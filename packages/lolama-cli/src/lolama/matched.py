"""A constraint that follows a text through a compiled grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lolama_core.protocols.checks import words_of
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from torch import Tensor


class Matched:
    """A `ForcingConstraint` for one text.

    llguidance raises nothing: after an error it allows the end of the text. So each call here looks for one.

    Args:
        matcher: Where the text stands in the grammar. Nobody else may use it.
        vocab_size: V.
        name: What the grammar is called in messages.

    Raises:
        UsageError: from each method, once the grammar needs more than its limits, or was told a token that
            it does not allow.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, name: str) -> None:
        self._matcher, self._vocab_size, self._name = matcher, vocab_size, name

    def mask(self) -> Tensor:
        """(V,) bool on the CPU: the tokens that may come next, the end tokens where the text may end."""
        bits = torch.zeros((self._vocab_size + 31) // 32, dtype=torch.int32, device="cpu")
        self._matcher.unsafe_compute_mask_ptr(bits.data_ptr(), bits.numel() * bits.element_size())
        self._check()
        places = torch.arange(32, dtype=torch.int32, device="cpu")
        return (bits[:, None] >> places & 1).bool().flatten()[: self._vocab_size]

    def accept(self, token: int) -> None:
        """Go on by a token."""
        self._matcher.consume_token(token)
        self._check()

    def rollback(self, count: int) -> None:
        """Go back by ``count`` tokens."""
        self._matcher.rollback(count)
        self._check()

    def forced(self) -> Sequence[int]:
        """What the grammar itself says comes next, in the model's own tokens."""
        tokens = [] if self._matcher.is_stopped() else self._matcher.compute_ff_tokens()
        self._check()
        return tokens

    def _check(self) -> None:
        problem = self._matcher.get_error()
        if problem:
            raise failure(self._name, problem)


def failure(name: str, problem: str) -> UsageError:
    """The error for what llguidance says of a grammar, which may go on for pages."""
    words = words_of(ValueError(problem.split("\n<")[0]))
    if words.startswith("NoExtension"):
        words = "no text can be what it describes"
    return UsageError(name, f"cannot be used: {words}", "correct it, or make it simpler")
