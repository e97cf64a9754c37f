"""Products of one or a few rows with weights of eight, sixteen or 32 bits, widened in registers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from lolama_quant.triton.kernels.activations import gated
from lolama_quant.triton.kernels.overlap import can_overlap, let_next_begin, wait_for_inputs

_TILE_ROWS = 16  # the least that tl.dot takes
_MOST_WEIGHTS = 3

# By the bytes of a weight, without a norm and with one, where each block reads more besides its weights: rows
# of weights and inputs of a block, loads under way at a time, and warps.
_ONE_ROW = {
    (1, False): {"BLOCK_ROWS": 8, "BLOCK_INPUTS": 1024, "STAGES": 3, "num_warps": 4},
    (1, True): {"BLOCK_ROWS": 8, "BLOCK_INPUTS": 512, "STAGES": 4, "num_warps": 2},
    (2, False): {"BLOCK_ROWS": 8, "BLOCK_INPUTS": 1024, "STAGES": 3, "num_warps": 4},
    (2, True): {"BLOCK_ROWS": 8, "BLOCK_INPUTS": 512, "STAGES": 3, "num_warps": 2},
    (4, False): {"BLOCK_ROWS": 4, "BLOCK_INPUTS": 256, "STAGES": 4, "num_warps": 2},
    (4, True): {"BLOCK_ROWS": 4, "BLOCK_INPUTS": 256, "STAGES": 4, "num_warps": 2},
}
_FEW_ROWS = {"BLOCK_OUTPUTS": 16, "BLOCK_INPUTS": 256, "STAGES": 3, "num_warps": 4}


# Sizes that are chosen between must have one type, which a size of 1 would not have.
@triton.jit(do_not_specialize=["outputs", "outputs_1", "outputs_2"])  # type: ignore[untyped-decorator]
def _one_row_kernel(  # type: ignore[no-untyped-def]
    x,
    norm,
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
    eps,
    outputs,
    outputs_1,
    outputs_2,
    NORMS: tl.constexpr,
    GATES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ADDS: tl.constexpr,
    FACTOR: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_ROWS rows of weights; y (N of all,) is overwritten or added to.

    Up to three weights lie one after the other. With GATES rows of the first two take turns, since what
    becomes of them, ACTIVATION(first) · second, needs both.
    """
    block = tl.program_id(0)
    row = tl.arange(0, BLOCK_ROWS)
    if GATES:
        channel = block * (BLOCK_ROWS // 2) + row // 2
        second = row % 2 == 1
        weights = tl.where(second, weight_1, weight)
        scales = tl.where(second, scale_1, scale) + channel
        biases = tl.where(second, bias_1, bias) + channel
    else:
        blocks = tl.cdiv(outputs, BLOCK_ROWS)
        blocks_1 = tl.cdiv(outputs_1, BLOCK_ROWS)
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
        channel = block * BLOCK_ROWS + row
        weights = weight + row * 0
        scales = scale + channel
        biases = bias + channel
    exists = channel < outputs
    # 64 bits: a weight may have more than 2^31 elements
    rows = (weights + channel.to(tl.int64) * inputs)[:, None]
    wait_for_inputs(OVERLAPS)
    products = tl.zeros((BLOCK_ROWS, BLOCK_INPUTS), dtype=tl.float32)
    squares = tl.zeros((BLOCK_INPUTS,), dtype=tl.float32)
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
        if NORMS:
            squares += wide * wide
            wide *= tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
        products += values.to(tl.float32) * wide[None, :]
    let_next_begin(OVERLAPS)
    result = tl.sum(products, axis=1)
    if NORMS:
        result *= tl.rsqrt(tl.sum(squares, axis=0) / inputs + eps)
    if HAS_SCALE:
        result *= tl.load(scales, mask=exists, other=0.0)
    if HAS_BIAS:
        result += tl.load(biases, mask=exists, other=0.0).to(tl.float32)
    if GATES:
        gate, up = tl.split(tl.reshape(result, (BLOCK_ROWS // 2, 2)))
        result = gated(gate, up, ACTIVATION)
        channel = block * (BLOCK_ROWS // 2) + tl.arange(0, BLOCK_ROWS // 2)
        exists = channel < outputs
    if FACTOR is not None:
        result *= FACTOR
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
    norm: Tensor | None = None,
    eps: float = 0.0,
    activation: str | None = None,
    add: bool = False,
    factor: float | None = None,
) -> None:
    """The products of one row with up to three weights, one after the other in ``y``.

    Args:
        x: (K,), any floating-point dtype.
        weights: (N, K) each, of one dtype: int8, or floating-point.
        scales: (N,) float32 each, or None for all.
        biases: (N,) each, or None for all.
        y: (N of all,), written; float32, or any other dtype.
        norm: (K,): ``x`` goes through RMSNorm with these weights and ``eps`` first.
        activation: One of `block_parts.ACTIVATIONS`. Of two weights, activation(first product) · second
            product is written to ``y`` (N,).
        add: Add to what ``y`` holds.
        factor: What is written or added is multiplied with it.
    """
    outputs = [len(weight) for weight in weights]
    options = _ONE_ROW[weights[0].itemsize, norm is not None]
    spare = _MOST_WEIGHTS - len(weights)
    gates = activation is not None
    rows = 2 * outputs[0] if gates else 0
    block = options["BLOCK_ROWS"]
    blocks = triton.cdiv(rows, block) if gates else sum(triton.cdiv(n, block) for n in outputs)
    # What is not there has an address too: kernels cannot choose between addresses and nothing.
    has_scale, has_bias = scales[0] is not None, biases[0] is not None
    scales, biases = (scales if has_scale else weights), (biases if has_bias else weights)
    overlaps = can_overlap(x.device)
    _one_row_kernel[(blocks,)](
        x,
        x if norm is None else norm,
        *(*weights, *[weights[0]] * spare),
        *(*scales, *[scales[0]] * spare),
        *(*biases, *[biases[0]] * spare),
        y,
        weights[0].shape[1],
        eps,
        *(*outputs, *[0] * spare),
        NORMS=norm is not None,
        GATES=gates,
        ACTIVATION=activation,
        HAS_SCALE=has_scale,
        HAS_BIAS=has_bias,
        ADDS=add,
        FACTOR=factor,
        OVERLAPS=overlaps,
        launch_pdl=overlaps,
        **options,
    )


def few_rows(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) with M from 1 to 16, weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    rows, inputs = x.shape
    outputs = len(weight)
    assert 1 <= rows <= _TILE_ROWS and weight.is_contiguous()
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    # The kernels read memory, and a tensor may be the negative of what its memory holds.
    x, weight, scale = x.resolve_neg().contiguous(), weight.resolve_neg(), scale.resolve_neg()
    if rows == 1:
        one_row(x, (weight,), (scale,), (None,), y)
        return y
    grid = (triton.cdiv(outputs, _FEW_ROWS["BLOCK_OUTPUTS"]),)
    _few_rows_kernel[grid](
        x, weight, scale, y, rows, inputs, outputs, TILE_ROWS=_TILE_ROWS, **_FEW_ROWS
    )
    return y
