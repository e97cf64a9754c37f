"""Products with int8 weights by torch's ordinary operators, on any device.

`int8.linear.int8_product` is the product of a layer. On a CPU it rounds the activations first. `cpu`, `cuda`
and `lolama_quant.metal` take the same products faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A block of this many weights stays in a processor's cache after it is widened (2 MB of float32).
_BLOCK_ELEMENTS = 1 << 19


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``.

    All integers of eight bits are exact in each floating-point dtype, so only the product is rounded; the
    scale is applied to it in float32, in place: on a GPU that is one pass over the product, not three.
    """
    return F.linear(x, weight.to(x.dtype)).mul_(scale)


def blockwise_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The same in float32, a block of channels at a time: a CPU's memory then moves eight bits a weight."""
    wide = x.to(torch.float32)
    rows = max(1, _BLOCK_ELEMENTS // weight.shape[1])
    blocks = [F.linear(wide, block.float()) for block in torch.split(weight, rows)]
    return torch.cat(blocks, dim=-1).mul_(scale)
