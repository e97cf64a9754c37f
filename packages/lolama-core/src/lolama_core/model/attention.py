"""Grouped-query attention over the cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.model.causal_blocks import causal_in_blocks
from lolama_core.model.config import LlamaConfig
from lolama_core.model.linear import Linear, processor_multiplies
from lolama_core.model.masks import PassPlan
from lolama_core.model.norm import RMSNorm
from lolama_core.model.rope import rotate
from lolama_core.model.scaling import attend_capped, grown
from lolama_core.protocols import KVCache


class Attention(nn.Module):
    """Causal attention with K key/value heads, each shared by H / K query heads (Ainslie et al. 2023)."""

    def __init__(self, config: LlamaConfig, layer: int, kind: int = 0) -> None:
        super().__init__()
        self.layer, self.kind = layer, kind
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        inner, kv_inner = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        input_bias = bool(config.attention_bias)
        self.q_proj = Linear(config.d_model, inner, bias=input_bias)
        self.k_proj = Linear(config.d_model, kv_inner, bias=input_bias)
        self.v_proj = Linear(config.d_model, kv_inner, bias=input_bias)
        self.o_proj = Linear(inner, config.d_model, bias=config.attention_bias is True)
        self.scale, self.softcap = config.attention_scale, config.attention_softcap
        self.growth, self.growth_length = config.query_scale_beta, config.query_scale_length
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.qk_norm is not None:
            each = config.qk_norm == "head"
            self.q_norm = RMSNorm(config.head_dim if each else inner, config.eps)
            self.k_norm = RMSNorm(config.head_dim if each else kv_inner, config.eps)

    def forward(self, x: Tensor, plan: PassPlan, cache: KVCache | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        plan = plan.of_kind(self.kind)
        queries = self.queries_of(x, plan.cos, plan.sin, plan.positions)  # (B, H, T, hd)
        return self.answer(x, queries, plan, cache)

    def queries_of(self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        """(B, Q, D), its positions (B, Q) and their angles → (B, H, Q, hd)."""
        queries = rotate(self.split_heads(norm_heads(self.q_proj(x), self.q_norm)), cos, sin)
        if self.growth is not None:
            queries = grown(queries, positions, self.growth, self.growth_length)
        return queries

    def answer(self, x: Tensor, queries: Tensor, plan: PassPlan, cache: KVCache | None) -> Tensor:
        """Queries (B, H, Q, hd) over the keys of ``x`` (B, T, D) and those in the cache → (B, Q, D).

        Q is T, or 1 where only the last position is asked for; the mask is that of the queries.
        """
        heads = self.split_heads(norm_heads(self.k_proj(x), self.k_norm))
        keys = rotate(heads, plan.cos, plan.sin)  # (B, K, T, hd)
        values = self.split_heads(self.v_proj(x))
        if cache is not None and plan.slots is not None:
            keys, values = cache.update(self.layer, keys, values, plan.slots)  # (B, K, L, hd)
        if plan.first_key:
            keys, values = keys[:, :, plan.first_key :], values[:, :, plan.first_key :]
        attended = self.attend(queries, keys, values, plan)  # (B, Q, H hd)
        output: Tensor = self.o_proj(attended.to(x.dtype))
        return output

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, plan: PassPlan) -> Tensor:
        """(B, H, Q, hd) over (B, K, L, hd) → (B, Q, H · hd). An observer puts its own in the place."""
        return attend(queries, keys, values, plan.mask, plan.causal, self.scale, self.softcap)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, heads · hd) → (B, heads, T, hd)."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


def norm_heads(x: Tensor, norm: RMSNorm | None) -> Tensor:
    """(B, T, heads · hd), normalized over as many dimensions as the norm has: one head, or all of them."""
    if norm is None:
        return x
    normed: Tensor = norm(x.reshape(*x.shape[:2], -1, norm.weight.shape[0]))
    return normed.flatten(-2)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None = None,
    cap: float | None = None,
) -> Tensor:
    """softmax(q kᵀ / √head_dim) v for grouped heads.

    Computed in the dtype of the keys, or for many queries in float32 where the queries are and the processor
    has no instructions for the keys' dtype.

    Args:
        queries: (B, H, T, hd).
        keys, values: (B, K, L, hd), K a divisor of H.
        mask: (B, 1, T, L) bool, or added to the scores in the keys' dtype, or None.
        causal: query t sees keys 0 to t.
        scale, cap: What q kᵀ is multiplied with, if not 1 / √head_dim; what it stays below.

    Returns:
        (B, T, H · hd).
    """
    batch, num_heads, width, head_dim = queries.shape
    group = num_heads // keys.shape[1]
    if width > 1 and queries.dtype == torch.float32 and not processor_multiplies(keys.dtype):
        keys, values = keys.float(), values.float()
    queries = queries.to(keys.dtype)
    if cap is not None:
        return attend_capped(queries, keys, values, mask, causal, scale, cap)
    if width == 1:
        return _attend_one(queries, keys, values, mask, scale)
    if group > 1:
        keys = keys.repeat_interleave(group, dim=1)  # (B, H, L, hd)
        values = values.repeat_interleave(group, dim=1)
    if causal and queries.device.type == "cpu":
        attended = causal_in_blocks(queries, keys, values, scale)
    else:
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal, scale=scale
        )
    return attended.transpose(1, 2).reshape(batch, width, num_heads * head_dim)


def _attend_one(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """`attend` for one query of each row (B, H, 1, hd)."""
    if queries.is_cuda:  # its kernels know of groups, and are faster that way
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=True
        )
    else:
        # The heads of a group become its rows, so that no key is ever copied. Repeating the keys instead
        # costs 25 times as much at 2k positions.
        rows = queries.reshape(len(queries), keys.shape[1], -1, queries.shape[-1])
        attended = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return attended.reshape(len(queries), 1, -1)
