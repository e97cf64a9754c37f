"""What descendants of LLaMA do to queries, scores and logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_core.model.switches import Switches

_QUERY_BLOCK = 128


def softcap(x: Tensor, cap: float) -> Tensor:
    """cap · tanh(x / cap): near x where that is small, and never beyond the cap."""
    return torch.tanh(x / cap) * cap


def final_logits(logits: Tensor, switches: Switches) -> Tensor:
    """Logits (..., V) divided and capped, as far as the model does so (Granite, Gemma 2)."""
    if switches.logit_divisor is not None:
        logits = logits / switches.logit_divisor
    return logits if switches.logit_softcap is None else softcap(logits, switches.logit_softcap)


def query_scales(positions: Tensor, beta: float, length: int) -> Tensor:
    """1 + β ln(1 + ⌊p / length⌋) of int64 ``positions`` p, float32 (Ministral 3)."""
    return 1 + beta * (positions // length).log1p()


def grown(queries: Tensor, positions: Tensor, beta: float, length: int | None) -> Tensor:
    """Queries (B, H, T, hd) at ``positions`` (B, T), each multiplied with its `query_scales`."""
    assert length is not None, "a configuration has both numbers or none"
    return queries * query_scales(positions, beta, length)[:, None, :, None]


def attend_capped(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
    cap: float,
) -> Tensor:
    """softmax(softcap(scale q kᵀ)) v, a block of queries at a time; arguments and result as of `attend`."""
    batch, num_heads, width, head_dim = queries.shape
    num_kv_heads, length = keys.shape[1:3]
    # (B, K, H / K, T, hd), so that no key is copied for the heads that share it.
    grouped = queries.view(batch, num_kv_heads, num_heads // num_kv_heads, width, head_dim)
    keys, values = keys[:, :, None], values[:, :, None]
    attended = []
    for first in range(0, width, _QUERY_BLOCK):
        last = min(first + _QUERY_BLOCK, width)
        scores = grouped[:, :, :, first:last] @ keys.mT  # (B, K, H / K, block, L)
        scores = softcap(scores.float() * (head_dim**-0.5 if scale is None else scale), cap)
        if causal:
            seen = torch.ones(last - first, length, dtype=torch.bool, device=keys.device)
            scores = scores.masked_fill(~seen.tril(first), float("-inf"))
        elif mask is not None:
            part = mask[:, :, None, first:last]  # (B, 1, 1, block, L)
            boolean = part.dtype == torch.bool
            scores = scores.masked_fill(~part, float("-inf")) if boolean else scores + part
        attended.append(scores.softmax(-1).to(values.dtype) @ values)
    whole = torch.cat(attended, dim=3)  # (B, K, H / K, T, hd)
    return whole.flatten(1, 2).transpose(1, 2).reshape(batch, width, num_heads * head_dim)
