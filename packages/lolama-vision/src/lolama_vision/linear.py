"""The linear layer of the encoder and the projector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """`nn.Linear` whose bias may be wider than its weight, and its input than either.

    On a CPU biases have the precision of activations while weights are sixteen-bit. The product is taken
    in the weight's dtype, float16 aside, which few processors multiply: that is widened first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``."""
        weight, bias = self.weight, self.bias
        if x.dtype == torch.float32 and weight.dtype == torch.float16:
            weight = weight.float()
        if x.dtype == weight.dtype and (bias is None or bias.dtype == weight.dtype):
            return F.linear(x, weight, bias)
        product = F.linear(x.to(weight.dtype), weight).to(x.dtype)
        return product if bias is None else product + bias.to(x.dtype)
