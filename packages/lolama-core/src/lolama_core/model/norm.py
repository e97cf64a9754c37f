"""RMSNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension (Zhang & Sennrich 2019).

    Normalized in float32, cast back, then multiplied by the weight: the order in which transformers does
    it, which matters in sixteen bits.

    Args:
        dim: Size of the last dimension.
        eps: Added to the mean square.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        if x.dtype == torch.float32:
            # One operator, with nothing to be cast back.
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
        normed = F.rms_norm(x, self.weight.shape, None, self.eps)  # in float32, rounded once
        return normed * self.weight.to(x.dtype)
