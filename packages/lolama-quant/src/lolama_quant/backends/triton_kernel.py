"""A Triton kernel for products of a few rows with int8 weights, dequantised in registers.

Imported only where Triton is installed.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE_ROWS = 16  # tl.dot wants at least so many
_BLOCK_OUTPUTS = 16
_BLOCK_INPUTS = 256


@triton.jit  # type: ignore[untyped-decorator] # Triton has no types
def _kernel(
    x_address: Any,
    weight_address: Any,
    scale_address: Any,
    y_address: Any,
    rows: Any,
    inputs: Any,
    outputs: Any,
    TILE_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
) -> None:
    """BLOCK_OUTPUTS output channels of all rows; x (M, K), weight (N, K) and y (M, N) are contiguous."""
    channel = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    row = tl.arange(0, TILE_ROWS)
    sums = tl.zeros((TILE_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    for first in range(0, inputs, BLOCK_INPUTS):
        column = first + tl.arange(0, BLOCK_INPUTS)
        weight = tl.load(
            # 64 bits: a weight may have more than 2^31 elements
            weight_address + channel[:, None].to(tl.int64) * inputs + column[None, :],
            mask=(channel[:, None] < outputs) & (column[None, :] < inputs),
            other=0,
        )
        x = tl.load(
            x_address + row[:, None] * inputs + column[None, :],
            mask=(row[:, None] < rows) & (column[None, :] < inputs),
            other=0.0,
        )
        if TILE_ROWS == 1:
            sums += tl.sum(weight.to(tl.float32) * x.to(tl.float32), axis=1)[None, :]
        else:
            # Integers of eight bits are exact in x's dtype, whichever it is.
            sums += tl.dot(x, tl.trans(weight.to(x.dtype)), input_precision="ieee")
    scale = tl.load(scale_address + channel, mask=channel < outputs, other=0.0)
    tl.store(
        y_address + row[:, None] * outputs + channel[None, :],
        (sums * scale[None, :]).to(y_address.dtype.element_ty),
        mask=(row[:, None] < rows) & (channel[None, :] < outputs),
    )


def few_rows(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) with M from 1 to 16, weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    rows, inputs = x.shape
    outputs = len(weight)
    assert 1 <= rows <= _TILE_ROWS and weight.is_contiguous()
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    _kernel[(triton.cdiv(outputs, _BLOCK_OUTPUTS),)](
        x.contiguous(),
        weight,
        scale,
        y,
        rows,
        inputs,
        outputs,
        TILE_ROWS=1 if rows == 1 else _TILE_ROWS,
        BLOCK_OUTPUTS=_BLOCK_OUTPUTS,
        BLOCK_INPUTS=_BLOCK_INPUTS,
    )
    return y
