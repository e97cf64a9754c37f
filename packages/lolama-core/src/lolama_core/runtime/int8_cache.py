"""Keys and values in int8: a code for each number, and a scale for each position and head.

A vector x (head_dim) of a position and a head is stored as head_dim codes of one byte and, behind them, its
scale s in two bytes (bfloat16): x ≈ s · codes, with codes from -127 to 127. Each vector stands alone, so what
is stored of a position never changes, and is copied, shared and saved as other keys and values are.

The scale is max |x| / 127, rounded up, so that no code is cut off. bfloat16 has the range of float32, so no
scale is too large or too small for it. A vector of zeros has the scale 0. One with NaN or an infinity has the
scale NaN: it is NaN as a whole, and so are the logits of whoever sees it, which generation refuses.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError

CacheDtype: TypeAlias = Literal["int8"]
"""What keys and values may be stored in, besides the model's own dtype."""

SCALE_BYTES = 2


def check_cache_dtype(cache_dtype: object, model: CausalLM | None = None) -> None:
    """Refuse what keys and values cannot be stored in.

    Raises:
        UsageError: for anything but None and int8, and for int8 and a model with dynamic RoPE or LongRoPE.
    """
    if cache_dtype is None:
        return
    if cache_dtype != "int8":
        remedy = 'give `cache_dtype="int8"`, or leave it out for the dtype of the model'
        raise UsageError("cache_dtype", f"is {shown(cache_dtype)}", remedy)
    changed_by = None if model is None else own_cache(model.make_cache(1, 1)).changed_by
    if changed_by is not None:
        reason = (
            f"is not for models with {changed_by}, whose keys and values change as a text grows"
        )
        raise UsageError("cache_dtype", reason, "leave it out")


def quantized(x: Tensor) -> Tensor:
    """(..., head_dim) → (..., head_dim + 2) int8: codes, and the bytes of their scale."""
    wide = x.float()
    scale = _scales(wide)
    # 0 / 0, NaN, and what is so small that its scale is 0, have the code 0.
    codes = (wide / scale.float()).round().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.cat((codes.to(torch.int8), scale.view(torch.int8)), dim=-1)


def _scales(wide: Tensor) -> Tensor:
    """(..., head_dim) float32 → (..., 1) bfloat16."""
    most = wide.abs().amax(-1, keepdim=True)
    exact = torch.where(most.isfinite(), most / 127, torch.nan)
    # The upper half of a float32 is a bfloat16; one is added to it if the lower half is not zero.
    upper = (exact.view(torch.int32) + 0xFFFF) >> 16
    return upper.to(torch.int16).view(torch.bfloat16)


def dequantized(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantized` made, (..., head_dim + 2) → (..., head_dim) of ``dtype``."""
    return (stored[..., :-SCALE_BYTES].float() * scales_of(stored).float()).to(dtype)


def scales_of(stored: Tensor) -> Tensor:
    """(..., head_dim + 2) int8 → (..., 1) bfloat16."""
    return stored[..., -SCALE_BYTES:].contiguous().view(torch.bfloat16)
