"""Ids of several texts as one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def stacked_ids(rows: Sequence[Sequence[int]], return_tensors: str) -> Tensor:
    """Rows of ids as a (B, T) int64 tensor.

    Raises:
        UsageError: if the rows differ in length, or for another kind of tensor than ``"pt"``.
    """
    import torch

    if return_tensors != "pt":
        raise UsageError("return_tensors", f"is {shown(return_tensors)}", 'give "pt", or None')
    shortest = min(map(len, rows), default=0)
    longest = max(map(len, rows), default=0)
    if shortest != longest:
        raise UsageError(
            "return_tensors",
            f"the texts have {shortest} to {longest} ids, and a tensor has rows of one length",
            "leave it out: generate_batch takes lists",
        )
    return torch.tensor(rows, dtype=torch.int64)
