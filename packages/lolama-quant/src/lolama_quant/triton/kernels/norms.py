"""RMSNorm of what products have written. A norm of what they read is a part of them."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lolama_quant.triton.kernels.overlap import can_overlap, let_next_begin, wait_for_inputs

NORM_BLOCK = 1024
"""Numbers that a program adds up at a time."""


@triton.jit  # type: ignore[untyped-decorator]
def inverse_rms(x, size, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """1 / √(mean square + eps) of ``size`` numbers, float32."""
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, size, BLOCK):
        column = first + tl.arange(0, BLOCK)
        wide = tl.load(x + column, mask=column < size, other=0.0).to(tl.float32)
        squares += wide * wide
    return tl.rsqrt(tl.sum(squares, axis=0) / size + eps)


@triton.jit  # type: ignore[untyped-decorator]
def _add_normed_kernel(  # type: ignore[no-untyped-def]
    change,
    norm,
    stream,
    size,
    eps,
    factor,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program does it all: each number needs the mean square of all."""
    let_next_begin(OVERLAPS)
    wait_for_inputs(OVERLAPS)
    scale = inverse_rms(change, size, eps, BLOCK) * factor
    for first in range(0, size, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < size
        normed = tl.load(change + column, mask=inside, other=0.0) * scale
        normed *= tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
        normed += tl.load(stream + column, mask=inside, other=0.0)
        tl.store(stream + column, normed, mask=inside)


def add_normed(change: Tensor, norm: Tensor, stream: Tensor, eps: float, factor: float) -> None:
    """Add RMSNorm of a change, times a factor, to the stream.

    Args:
        change, stream: (D,) float32; the stream is written.
        norm: (D,), the weights of the norm.
        eps: Added to the mean square.
        factor: What the normed change is multiplied with.
    """
    overlaps = can_overlap(stream.device)
    _add_normed_kernel[(1,)](
        change,
        norm,
        stream,
        len(stream),
        eps,
        factor,
        OVERLAPS=overlaps,
        BLOCK=NORM_BLOCK,
        num_warps=8,
        launch_pdl=overlaps,
    )
