"""Grouped-query attention over the cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.config import LlamaConfig
from lolama_core.linear import Linear, outputs_of, processor_multiplies
from lolama_core.protocols import CacheSlots, KVCache
from lolama_core.rope import rotate

_QUERY_BLOCK = 128


@dataclass(frozen=True)
class AttentionPlan:
    """What all layers of one forward pass share.

    Attributes:
        cos, sin: (B, 1, T, head_dim), the angles of the new positions.
        slots: where the new keys and values go; None without a cache.
        first_key: keys before it are out of every query's sight (sliding window).
        mask: (B, 1, T, L - first_key), True where a query sees a key, or what is added to its scores in the
            dtype of the keys; None if ``causal`` says it all.
        causal: query t sees keys 0 to t: every row starts from nothing.
        dtype: Of activations inside the blocks; the stream between them keeps its own.
    """

    cos: Tensor
    sin: Tensor
    slots: CacheSlots | None
    first_key: int
    mask: Tensor | None
    causal: bool
    dtype: torch.dtype


@dataclass(frozen=True)
class LastPositions:
    """The last real position of each row, for a last block of which nobody reads the others.

    Attributes:
        columns: (B,) int64, where it is in the input.
        plan: As for a pass of these positions alone.
    """

    columns: Tensor
    plan: AttentionPlan

    def take(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, 1, D)."""
        return x[torch.arange(len(x), device=x.device), self.columns][:, None]


def plan_mask(
    starts: tuple[int, ...],
    totals: tuple[int, ...],
    width: int,
    window: int | None,
    device: torch.device,
) -> tuple[int, Tensor | None, bool]:
    """Choose the cheapest mask that is right: ``first_key``, ``mask`` and ``causal`` of `AttentionPlan`.

    An explicit mask makes a prefill 1.7 times slower, so the two common cases do without: a prompt from
    nothing, and one new position in rows of equal length.
    """
    longest = max(totals)
    window_cuts = window is not None and longest > window
    if max(starts) == 0 and not window_cuts:
        return 0, None, True
    if width == 1 and min(totals) == longest:
        first_key = longest - window if window is not None and window_cuts else 0
        return first_key, None, False
    start = torch.tensor(starts, device=device)
    queries = start[:, None, None] + torch.arange(width, device=device)[None, :, None]  # (B, T, 1)
    keys = torch.arange(longest, device=device)  # (L,)
    mask = keys <= queries
    if window is not None:
        mask &= keys > queries - window
        # A padding query may lie so far out that its window holds no key at all, and softmax over nothing
        # is NaN. Its result is thrown away; let it see the first key.
        mask[..., 0] |= ~mask.any(-1)
    return 0, mask[:, None], False


class Attention(nn.Module):
    """Causal attention with K key/value heads, each shared by H / K query heads (Ainslie et al. 2023)."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        inner, kv_inner = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        input_bias = bool(config.attention_bias)
        self.q_proj = Linear(config.d_model, inner, bias=input_bias)
        self.k_proj = Linear(config.d_model, kv_inner, bias=input_bias)
        self.v_proj = Linear(config.d_model, kv_inner, bias=input_bias)
        self.o_proj = Linear(inner, config.d_model, bias=config.attention_bias is True)

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        cache: KVCache | None,
        last: LastPositions | None = None,
    ) -> Tensor:
        """(B, T, D) → (B, T, D), or (B, 1, D) of the ``last`` positions alone, which see all the others."""
        if last is None:
            projected = outputs_of(x, self.q_proj, self.k_proj, self.v_proj)
        else:
            projected = (self.q_proj(last.take(x)), *outputs_of(x, self.k_proj, self.v_proj))
        queries, keys, values = (
            heads.view(*heads.shape[:2], -1, self.head_dim).transpose(1, 2) for heads in projected
        )  # (B, H, T or 1, hd), (B, K, T, hd) twice
        keys = rotate(keys, plan.cos, plan.sin)
        if cache is not None and plan.slots is not None:
            keys, values = cache.update(self.layer, keys, values, plan.slots)  # (B, K, L, hd)
        plan = plan if last is None else last.plan
        queries = rotate(queries, plan.cos, plan.sin)
        if plan.first_key:
            keys, values = keys[:, :, plan.first_key :], values[:, :, plan.first_key :]
        attended = attend(queries, keys, values, plan.mask, plan.causal)  # (B, T, H hd)
        output: Tensor = self.o_proj(attended.to(x.dtype))
        return output


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """softmax(q kᵀ / √head_dim) v for grouped heads.

    Computed in the dtype of the keys, or for many queries in float32 where the queries are and the processor
    has no instructions for the keys' dtype.

    Args:
        queries: (B, H, T, hd).
        keys, values: (B, K, L, hd), K a divisor of H.
        mask: (B, 1, T, L) bool, or added to the scores in the keys' dtype, or None.
        causal: query t sees keys 0 to t.

    Returns:
        (B, T, H · hd).
    """
    batch, num_heads, width, head_dim = queries.shape
    num_kv_heads = keys.shape[1]
    group = num_heads // num_kv_heads
    if width > 1 and queries.dtype == torch.float32 and not processor_multiplies(keys.dtype):
        keys, values = keys.float(), values.float()
    queries = queries.to(keys.dtype)
    if width == 1 and queries.is_cuda:  # its kernels know of groups, and are faster that way
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, enable_gqa=True
        )
        return attended.reshape(batch, 1, num_heads * head_dim)
    if width == 1:
        # One query: the heads of a group become its rows, so that no key is ever copied. Repeating the
        # keys instead costs 25 times as much at 2k positions.
        rows = queries.reshape(batch, num_kv_heads, group, head_dim)
        attended = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask)
        return attended.reshape(batch, 1, num_heads * head_dim)
    if group > 1:
        keys = keys.repeat_interleave(group, dim=1)  # (B, H, L, hd)
        values = values.repeat_interleave(group, dim=1)
    if causal and queries.device.type == "cpu":
        attended = _causal_in_blocks(queries, keys, values)
    else:
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal
        )
    return attended.transpose(1, 2).reshape(batch, width, num_heads * head_dim)


def _causal_in_blocks(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
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
            queries[:, :, first:last], keys[:, :, :seen], values[:, :, :seen], attn_mask=mask
        )
        attended.append(block)
    return torch.cat(attended, dim=2)
