"""The linear layers: one for the blocks, one for the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CACHED_ELEMENTS = 1 << 19  # 2 MB of float32


class Linear(nn.Linear):
    """`nn.Linear` whose input may be wider than its weight.

    On a CPU the residual stream is float32 while weights are sixteen-bit: the product is taken in the
    weight's dtype, where memory traffic is half, and handed back in the input's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class OutputProjection(Linear):
    """``lm_head``: logits that are not rounded to the weights' sixteen bits.

    The best two of 32,000 logits are often closer than bfloat16 can tell apart at their size. With float32
    activations the product is therefore taken in float32, a block of rows at a time: a block's wide copy
    stays in the processor's cache, so memory still moves sixteen bits a weight.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., V) in the dtype of ``x``."""
        if self.weight.dtype == x.dtype or x.dtype != torch.float32:
            return super().forward(x)
        rows = max(1, _CACHED_ELEMENTS // self.in_features)
        return torch.cat(
            [F.linear(x, block.float()) for block in torch.split(self.weight, rows)], dim=-1
        )
