"""Products of one or a few rows with weights of eight, sixteen or 32 bits, widened in registers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE_ROWS = 16  # tl.dot wants at least so many
_MOST_WEIGHTS = 3

# By the bytes of a weight: outputs and inputs of a block, loads under way at a time, and warps.
_ONE_ROW = {
    1: {"BLOCK_OUTPUTS": 4, "BLOCK_INPUTS": 512, "STAGES": 4, "num_warps": 2},
    2: {"BLOCK_OUTPUTS": 4, "BLOCK_INPUTS": 512, "STAGES": 4, "num_warps": 2},
    4: {"BLOCK_OUTPUTS": 4, "BLOCK_INPUTS": 256, "STAGES": 4, "num_warps": 2},
}
_FEW_ROWS = {"BLOCK_OUTPUTS": 16, "BLOCK_INPUTS": 256, "STAGES": 3, "num_warps": 4}


# Sizes that are chosen between must have one type, which a size of 1 would not have.
@triton.jit(do_not_specialize=["outputs", "outputs_1", "outputs_2"])  # type: ignore[untyped-decorator]
def _one_row_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    weight_1,
    weight_2,
    scale,
    scale_1,
    scale_2,
    bias,
    bias_1,
    bias_2,
    y,
    inputs,
    outputs,
    outputs_1,
    outputs_2,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_OUTPUTS outputs of one of up to three weights; y (N of all,) is overwritten or added to."""
    block = tl.program_id(0)
    blocks = tl.cdiv(outputs, BLOCK_OUTPUTS)
    blocks_1 = tl.cdiv(outputs_1, BLOCK_OUTPUTS)
    if block >= blocks + blocks_1:
        block -= blocks + blocks_1
        weight, scale, bias = weight_2, scale_2, bias_2
        y += outputs + outputs_1
        outputs = outputs_2
    elif block >= blocks:
        block -= blocks
        weight, scale, bias = weight_1, scale_1, bias_1
        y += outputs
        outputs = outputs_1
    channel = block * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    exists = channel < outputs
    # 64 bits: a weight may have more than 2^31 elements
    rows = weight + channel[:, None].to(tl.int64) * inputs
    products = tl.zeros((BLOCK_OUTPUTS, BLOCK_INPUTS), dtype=tl.float32)
    for first in tl.range(0, inputs, BLOCK_INPUTS, num_stages=STAGES):
        column = first + tl.arange(0, BLOCK_INPUTS)
        inside = column < inputs
        values = tl.load(
            rows + column[None, :],
            mask=exists[:, None] & inside[None, :],
            other=0,
            eviction_policy="evict_first",  # read once, while x is read by every block
        )
        wide = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
        products += values.to(tl.float32) * wide[None, :]
    result = tl.sum(products, axis=1)
    if HAS_SCALE:
        result *= tl.load(scale + channel, mask=exists, other=0.0)
    if HAS_BIAS:
        result += tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32)
    if ADDS:
        result += tl.load(y + channel, mask=exists, other=0.0).to(tl.float32)
    tl.store(y + channel, result.to(y.dtype.element_ty), mask=exists)


@triton.jit  # type: ignore[untyped-decorator]
def _few_rows_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    scale,
    y,
    rows,
    inputs,
    outputs,
    TILE_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_OUTPUTS output channels of all rows; x (M, K), weight (N, K) and y (M, N)."""
    channel = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    row = tl.arange(0, TILE_ROWS)
    sums = tl.zeros((TILE_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    for first in tl.range(0, inputs, BLOCK_INPUTS, num_stages=STAGES):
        column = first + tl.arange(0, BLOCK_INPUTS)
        integers = tl.load(
            weight + channel[:, None].to(tl.int64) * inputs + column[None, :],
            mask=(channel[:, None] < outputs) & (column[None, :] < inputs),
            other=0,
        )
        values = tl.load(
            x + row[:, None] * inputs + column[None, :],
            mask=(row[:, None] < rows) & (column[None, :] < inputs),
            other=0.0,
        )
        # Integers of eight bits are exact in x's dtype, whichever it is.
        sums += tl.dot(values, tl.trans(integers.to(values.dtype)), input_precision="ieee")
    scales = tl.load(scale + channel, mask=channel < outputs, other=0.0)
    tl.store(
        y + row[:, None] * outputs + channel[None, :],
        (sums * scales[None, :]).to(y.dtype.element_ty),
        mask=(row[:, None] < rows) & (channel[None, :] < outputs),
    )


def one_row(
    x: Tensor,
    weights: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    biases: Sequence[Tensor | None],
    y: Tensor,
    *,
    add: bool = False,
) -> None:
    """The products of one row with up to three weights, one after the other in ``y``.

    Args:
        x: (K,), any floating-point dtype.
        weights: (N, K) each, of one dtype: int8, or floating-point.
        scales: (N,) float32 each, or None for all.
        biases: (N,) each, or None for all.
        y: (N of all,), written; float32, or any other dtype.
        add: Add to what ``y`` holds.
    """
    outputs = [len(weight) for weight in weights]
    blocks = _ONE_ROW[weights[0].itemsize]
    spare = _MOST_WEIGHTS - len(weights)
    # What is not there has an address too: kernels cannot choose between addresses and nothing.
    has_scale, has_bias = scales[0] is not None, biases[0] is not None
    scales, biases = (scales if has_scale else weights), (biases if has_bias else weights)
    _one_row_kernel[(sum(triton.cdiv(n, blocks["BLOCK_OUTPUTS"]) for n in outputs),)](
        x,
        *(*weights, *[weights[0]] * spare),
        *(*scales, *[scales[0]] * spare),
        *(*biases, *[biases[0]] * spare),
        y,
        weights[0].shape[1],
        *(*outputs, *[0] * spare),
        HAS_SCALE=has_scale,
        HAS_BIAS=has_bias,
        ADDS=add,
        **blocks,
    )


def few_rows(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) with M from 1 to 16, weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    rows, inputs = x.shape
    outputs = len(weight)
    assert 1 <= rows <= _TILE_ROWS and weight.is_contiguous()
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    x = x.contiguous()
    if rows == 1:
        one_row(x, (weight,), (scale,), (None,), y)
        return y
    grid = (triton.cdiv(outputs, _FEW_ROWS["BLOCK_OUTPUTS"]),)
    _few_rows_kernel[grid](
        x, weight, scale, y, rows, inputs, outputs, TILE_ROWS=_TILE_ROWS, **_FEW_ROWS
    )
    return y
