"""Products with grouped weights: codes and scales are read as they are stored, and widened in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lolama_core.protocols.grouped import FORMATS

# Chosen by what was compiled for GPUs, where sixteen bits spill hardly a register: none of it was timed.
# Rows of x and of weights that a program takes, bytes of each weight row at a time, and loads under way.
_FEW_ROWS = {"TILE_ROWS": 16, "BLOCK_OUTPUTS": 16, "BLOCK_BYTES": 128, "STAGES": 4, "num_warps": 4}
_MANY_ROWS = {"TILE_ROWS": 64, "BLOCK_OUTPUTS": 64, "BLOCK_BYTES": 64, "STAGES": 3, "num_warps": 4}


@triton.jit  # type: ignore[untyped-decorator]
def _grouped_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    group_scale,
    block_scale,
    y,
    rows,
    inputs,
    outputs,
    row_bytes,
    HALVES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
    HAS_MINIMUMS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_BYTES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_OUTPUTS output channels of TILE_ROWS rows; x (M, K), a grouped weight (N, K) and y (M, N).

    GROUP bytes, a piece, hold the codes of one group of inputs, or in their HALVES those of two neighbors.
    """
    PIECES: tl.constexpr = BLOCK_BYTES // GROUP
    PARTS: tl.constexpr = 2 if HAS_MINIMUMS else 1
    # 64 bits: tensors may have more than 2^31 elements
    channel = (tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)).to(tl.int64)
    row = (tl.program_id(1) * TILE_ROWS + tl.arange(0, TILE_ROWS)).to(tl.int64)
    groups = tl.cdiv(inputs, GROUP)
    scale_parts = tl.cdiv(groups, BLOCK_GROUPS) * PARTS  # of a row of weights
    sums = tl.zeros((BLOCK_OUTPUTS, TILE_ROWS), dtype=tl.float32)
    for first in tl.range(0, tl.cdiv(row_bytes, GROUP), PIECES, num_stages=STAGES):
        piece = first + tl.arange(0, PIECES)
        byte = (piece[:, None] * GROUP + tl.arange(0, GROUP)[None, :])[None, :, :]
        stored = tl.load(
            weight + channel[:, None, None] * row_bytes + byte,
            mask=(channel[:, None, None] < outputs) & (byte < row_bytes),
            other=0,
        )
        place = tl.arange(0, BLOCK_BYTES)
        for half in tl.static_range(HALVES):
            group = piece * HALVES + half
            exists = (channel[:, None] < outputs) & (group[None, :] < groups)
            part = channel[:, None] * scale_parts + group[None, :] // BLOCK_GROUPS * PARTS
            scale = tl.load(block_scale + part, mask=exists, other=0.0).to(tl.float32)
            of_group = group_scale + part * BLOCK_GROUPS + group[None, :] % BLOCK_GROUPS
            if BLOCK_GROUPS > 1:
                scale *= tl.load(of_group, mask=exists, other=0).to(tl.float32)
            codes = stored if HALVES == 1 else (stored >> 4 * half) & 15
            values = codes.to(tl.float32) * scale[:, :, None]
            if HAS_MINIMUMS:
                minimum = tl.load(block_scale + part + 1, mask=exists, other=0.0).to(tl.float32)
                if BLOCK_GROUPS > 1:
                    of_group += BLOCK_GROUPS
                    minimum *= tl.load(of_group, mask=exists, other=0).to(tl.float32)
                values -= minimum[:, :, None]
            column = ((first + place // GROUP) * HALVES + half) * GROUP + place % GROUP
            some = tl.load(
                x + row[None, :] * inputs + column[:, None],
                mask=(row[None, :] < rows) & (column[:, None] < inputs),
                other=0.0,
            )
            wide = tl.reshape(values, (BLOCK_OUTPUTS, BLOCK_BYTES)).to(some.dtype)
            sums += tl.dot(wide, some, input_precision="ieee")
    tl.store(
        y + row[None, :] * outputs + channel[:, None],
        sums.to(y.dtype.element_ty),
        mask=(row[None, :] < rows) & (channel[:, None] < outputs),
    )


def grouped_rows(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """x (M, K) of 16 or 32 bits and the tensors of a weight (N, K) → (M, N) in the dtype of ``x``.

    Weights are rounded to the dtype of ``x``, and sums are float32.

    Args:
        x: See above.
        weight, group_scale, block_scale: See `protocols.grouped.GroupFormat.tensors`.
        form: The name of their format, one of `protocols.grouped.FORMATS`.
    """
    kind, (rows, inputs), outputs = FORMATS[form], x.shape, len(weight)
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    scales = block_scale if group_scale is None else group_scale
    options = _FEW_ROWS if rows <= _FEW_ROWS["TILE_ROWS"] else _MANY_ROWS
    grid = (
        triton.cdiv(outputs, options["BLOCK_OUTPUTS"]),
        triton.cdiv(rows, options["TILE_ROWS"]),
    )
    _grouped_kernel[grid](
        # The kernel reads memory, and a tensor may be the negative of what its memory holds.
        *(part.resolve_neg().contiguous() for part in (x, weight, scales, block_scale)),
        y,
        rows,
        inputs,
        outputs,
        weight.shape[1],
        HALVES=8 // kind.bits,
        GROUP=kind.group,
        BLOCK_GROUPS=kind.block // kind.group,
        HAS_MINIMUMS=kind.has_minimums,
        **options,
    )
    return y
