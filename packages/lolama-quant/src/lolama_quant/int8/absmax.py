"""Absmax quantization: a row of numbers as 8-bit integers and one float32 scale.

The largest magnitude of a row becomes ±127 and everything else a multiple of a 127th of it (Dettmers et al.
2022, "LLM.int8()", section 2). The grid is symmetric, so that zero stays zero and products need no offsets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lolama_core.protocols.errors import ModelError

LIMIT = 127

# A scale below the smallest normal float32 would be rounded, down to zero at last, and dividing by it
# overflows. A row that small keeps this scale: its values then are multiples of 1.2e-38, zeros among them.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


class Int8Rows(NamedTuple):
    """``values[r, k] · scale[r]`` is what was quantized.

    Attributes:
        values: (R, K) int8, from -127 to 127.
        scale: (R,) float32, never zero.
    """

    values: Tensor
    scale: Tensor


def quantize_rows(rows: Tensor) -> Int8Rows:
    """(R, K) floating-point → its rows as 8-bit integers, each off by half a scale at most.

    A row of zeros comes out as exact zeros. A row with NaN or Inf gets a scale that is neither, so that every
    product with it is NaN or Inf too, as it would be unquantized.
    """
    wide = rows.to(torch.float32)
    scale = (wide.abs().amax(dim=-1) / LIMIT).clamp(min=SMALLEST_SCALE)
    return Int8Rows((wide / scale[:, None]).round_().to(torch.int8), scale)


def quantize_weight(weight: Tensor, name: str) -> Int8Rows:
    """`quantize_rows` of a (N, K) weight: a scale for each output channel.

    Raises:
        ModelError: naming the weight, if it holds NaN or Inf.
    """
    quantized = quantize_rows(weight)
    if not bool(quantized.scale.isfinite().all()):
        rows = (~quantized.scale.isfinite()).nonzero().flatten()
        reason = f"holds NaN or Inf, in row {int(rows[0])}"
        raise ModelError(name, reason, "download the model again, or use another conversion of it")
    return quantized


def dequantize_rows(quantized: Int8Rows) -> Tensor:
    """(R, K) float32: what the integers stand for."""
    return quantized.values.float() * quantized.scale[:, None]
