"""The linear layer of the encoder and the projector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """`nn.Linear` whose input and bias may be wider than its weight.

    On a CPU activations and biases are float32 while weights are sixteen-bit. The product is taken in the
    weight's dtype. In a loaded model lolama-core puts its own layer in the place of this one, which takes it
    as the processor does it fastest.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``."""
        weight, bias = self.weight, self.bias
        if x.dtype == weight.dtype and (bias is None or bias.dtype == weight.dtype):
            return F.linear(x, weight, bias)
        product = F.linear(x.to(weight.dtype), weight).to(x.dtype)
        return product if bias is None else product + bias.to(x.dtype)
