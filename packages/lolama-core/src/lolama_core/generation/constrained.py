"""A constraint as a processor of scores, whose mask is made while the model runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache
from itertools import islice

import torch
from torch import Tensor

from lolama_core.protocols import Constraint, ForcingConstraint
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import LolamaError, UsageError

_REMEDY = "correct the constraint, or generate without it"


class Constrained:
    """Keeps one text within a `Constraint`.

    Args:
        constraint: Says which tokens may come next.
    """

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._forcing = constraint if isinstance(constraint, ForcingConstraint) else None
        self._mask: Future[Tensor | None] | None = None
        self._broken: LolamaError | None = None

    def prepare(self) -> None:
        """Let another thread make the mask of the next token, unless it does already."""
        if self._mask is None:
            self._mask = _executor().submit(self._constraint.mask)

    def forced(self, most: int, vocab_size: int) -> Sequence[int]:
        """Up to ``most`` tokens that the constraint says come next; none while its mask is made.

        What it raises is raised by the next call, since other rows choose their tokens meanwhile.
        """
        if self._forcing is None or self._mask is not None or most < 1:
            return ()
        try:
            tokens = [*islice(self._forcing.forced(), most)]
            strange = [i for i in tokens if not isinstance(i, int) or not 0 <= i < vocab_size]
            if not strange:
                return tokens
            reason = f"forces {shown(strange[0])}, which is no token"
            self._broken = UsageError("constraint", reason, f"return ids below {vocab_size}")
        except Exception as error:
            self._broken = _failure(error)
        return ()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (1, V) with -inf for what may not come next; see `LogitsProcessor`.

        Raises:
            UsageError: if the constraint fails, allows nothing, or gives what is no mask.
        """
        if self._broken is not None:
            raise self._broken
        try:
            mask = self._constraint.mask() if self._mask is None else self._mask.result()
        except Exception as error:
            raise _failure(error) from error
        if mask is None:
            return scores
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
            found = type(mask).__name__
            if isinstance(mask, Tensor):
                found = f"{tuple(mask.shape)} {str(mask.dtype)[6:]}"
            raise UsageError("constraint", f"gave a mask of {found}", "return a (V,) bool tensor")
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device="cpu")
        count = min(len(mask), len(allowed))
        allowed[:count] = mask[:count]
        if not allowed.any():
            raise UsageError("constraint", "allows no token", _REMEDY)
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Tell the constraint which token was chosen.

        Raises:
            UsageError: if it fails.
        """
        self._mask = None
        try:
            self._constraint.accept(token)
        except Exception as error:
            raise _failure(error) from error


@cache
def _executor() -> Executor:
    """The thread that makes masks."""
    return ThreadPoolExecutor(1, "lolama-constraints")


if hasattr(os, "register_at_fork"):  # Windows has no forks
    # A thread does not live on in a child process, where a mask would be waited for for ever.
    os.register_at_fork(after_in_child=_executor.cache_clear)


def _failure(error: Exception) -> LolamaError:
    if isinstance(error, LolamaError):
        return error
    return UsageError("constraint", f"failed: {type(error).__name__}: {error}", _REMEDY)
