"""The last block of a prompt, for the last position of each row: nobody reads the others."""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_core.model.attention import attend
from lolama_core.model.block import Block
from lolama_core.model.masks import PassPlan, plan_mask
from lolama_core.model.rope import rotate
from lolama_core.protocols import CacheSlots, KVCache


def run_last_block(
    block: Block, x: Tensor, plan: PassPlan, slots: CacheSlots, cache: KVCache, window: int | None
) -> Tensor:
    """(B, T, D) → (B, 1, D): what ``block`` makes of the last real positions, which see all the others.

    Every position still gets its key and value, and the rest is computed for one position of each row.
    """
    columns = torch.tensor([count - 1 for count in slots.counts], device=x.device)
    rows = torch.arange(len(columns), device=x.device)
    attention, normed = block.attention, block.attention_norm(x).to(plan.dtype)
    # (B, H, 1, hd), (B, K, T, hd) twice
    queries, keys, values = (
        attention.split_heads(projected)
        for projected in (
            attention.q_proj(normed[rows, columns][:, None]),
            attention.k_proj(normed),
            attention.v_proj(normed),
        )
    )
    keys = rotate(keys, plan.cos, plan.sin)
    keys, values = cache.update(attention.layer, keys, values, slots)  # (B, K, L, hd)
    cos, sin = (angles[rows, :, columns][:, :, None] for angles in (plan.cos, plan.sin))
    before = tuple(max(total - 1, 0) for total in slots.totals)
    first_key, mask, causal = plan_mask(before, slots.totals, 1, window, x.device)
    if first_key:
        keys, values = keys[:, :, first_key:], values[:, :, first_key:]
    attended = attend(rotate(queries, cos, sin), keys, values, mask, causal)  # (B, 1, H hd)
    x = x[rows, columns][:, None] + attention.o_proj(attended.to(plan.dtype))
    x = x + block.feed_forward(block.ffn_norm(x).to(plan.dtype))
    return x
