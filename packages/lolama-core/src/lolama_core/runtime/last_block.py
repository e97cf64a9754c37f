"""The last block of a prompt, for the last position of each row: nobody reads the others."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lolama_core.model.block import Block
from lolama_core.model.llama import Llama
from lolama_core.model.masks import PassPlan, plan_mask
from lolama_core.protocols import CacheSlots, KVCache


def run_last_block(
    text: Llama, block: Block, x: Tensor, plan: PassPlan, slots: CacheSlots, cache: KVCache
) -> Tensor:
    """(B, T, D) → (B, 1, D): what the last block makes of the last real positions, which see the others.

    Every position still gets its key and value, and the rest is computed for one position of each row.
    """
    kind = block.attention.kind
    plan, window = plan.of_kind(kind), text.kinds[kind].sliding_window
    columns = torch.tensor([count - 1 for count in slots.counts], device=x.device)
    rows = torch.arange(len(columns), device=x.device)
    before = tuple(max(total - 1, 0) for total in slots.totals)
    first_key, mask, causal = plan_mask(before, slots.totals, 1, window, x.device)
    last = replace(plan, first_key=first_key, mask=mask, causal=causal)
    cos, sin = (angles[rows, :, columns][:, :, None] for angles in (plan.cos, plan.sin))
    attention, normed = block.attention, block.attention_norm(x).to(plan.dtype)
    last_normed, places = (part[rows, columns][:, None] for part in (normed, plan.positions))
    queries = attention.queries_of(last_normed, cos, sin, places)  # (B, H, 1, hd)
    attended = attention.answer(normed, queries, last, cache)
    x = block.add(x[rows, columns][:, None], attended, block.attention_post_norm)
    return block.add(x, block.feed_forward(block.ffn_norm(x).to(plan.dtype)), block.ffn_post_norm)
