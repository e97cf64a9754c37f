"""Processing of logits before a token is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class LogitsProcessor(Protocol):
    """The signature transformers uses, so that processors written for it plug in."""

    def __call__(self, input_ids: Tensor, scores: Tensor, /) -> Tensor:
        """History (B, T) int64 and scores (B, V) float32 → scores (B, V) of any floating-point dtype.

        The history stays untouched. lolama's own processors leave the scores untouched, too; others may
        write to them, and return them.
        """
        ...
