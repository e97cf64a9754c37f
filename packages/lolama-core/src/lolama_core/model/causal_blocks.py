"""Causal attention on CPUs, in pieces that fit what torch's kernel does there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_QUERY_BLOCK = 128


def causal_in_blocks(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Causal attention (B, H, T, hd), a block of queries at a time, over the keys that some of them see.

    torch's kernel for CPUs multiplies by whole tiles of 512 keys, most of which a short prompt masks again.
    """
    width = queries.shape[2]
    attended = []
    for first in range(0, width, _QUERY_BLOCK):
        last = min(first + _QUERY_BLOCK, width)
        seen = min(last, keys.shape[2])  # a row of padding at the end may have no keys
        mask = torch.ones(last - first, seen, dtype=torch.bool, device=queries.device).tril(first)
        block = F.scaled_dot_product_attention(
            queries[:, :, first:last],
            keys[:, :, :seen],
            values[:, :, :seen],
            attn_mask=mask,
            scale=scale,
        )
        attended.append(block)
    return torch.cat(attended, dim=2)
