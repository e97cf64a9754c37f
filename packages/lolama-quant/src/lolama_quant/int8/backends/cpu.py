"""Products with int8 weights on a CPU.

The native operator takes any number of rows on x86, and few, which are bound by memory, on ARM (see
`lolama_quant.cpu`). Without it few rows are multiplied in bfloat16. Of more, where the processor multiplies
8-bit integers (VNNI), activations are quantized too, row by row, and torch multiplies integers. Anywhere else
that operator is many times slower than a float32 product, so weights are widened block by block instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_quant.cpu.int8_linear import native_linear
from lolama_quant.cpu.library import int8_rows
from lolama_quant.int8.absmax import LIMIT, quantize_rows
from lolama_quant.int8.backends.reference import blockwise_linear
from lolama_quant.int8.description import CPU_FEW_ROWS
from lolama_quant.int8.processor import multiplies_integers, widens_in_registers

HEAVY = 4.0
"""Rows whose largest magnitude is more than this many times their root mean square are quantized twice.

One scale for a row leaves an error in proportion to its largest value, so one value that stands out takes the
precision of all the others. Between 3.5 and 5 the quality of the built-in models hardly changes; without a
second pass they lose three quarters of what int8 weights alone would keep.
"""

_REGISTER_BYTES = 32
"""Multiples of it are addresses that torch's vector code of `bfloat16_linear` can load from."""

_MOST_INPUTS = (2**31 - 1) // LIMIT**2  # whose products fit into the sum of 32 bits


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) float32."""
    if 0 < len(x) <= int8_rows():
        return native_linear(x, weight, scale)
    return torch_linear(x, weight, scale)


def torch_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`linear` by torch's own operators."""
    if 0 < len(x) <= CPU_FEW_ROWS and widens_in_registers() and weight.shape[1] % 32 == 0:
        return bfloat16_linear(x, weight, scale)
    if multiplies_integers() and weight.shape[1] <= _MOST_INPUTS:
        return integer_linear(x, weight, scale)
    return blockwise_linear(x, weight, scale)


def bfloat16_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), K a multiple of 32, → (M, N) float32 with activations, and the product, rounded to bfloat16.

    torch's operator reads past the end of other numbers of inputs, and ends the process where a tensor begins
    between two registers, as a mapped one may. Its own scales are bfloat16; ours come after it, in float32.
    """
    ones = torch.ones(len(weight), dtype=torch.bfloat16, device="cpu")
    x, weight = _aligned(x.to(torch.bfloat16)), _aligned(weight)
    return torch._weight_int8pack_mm(x, weight, ones).float().mul_(scale)


def _aligned(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.data_ptr() % _REGISTER_BYTES else tensor


def integer_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) → (M, N) float32 by a product of integers: activations get a scale for each row.

    What one scale cannot hold of a `HEAVY` row is quantized again, and multiplied as a row of its own. A
    row's result never depends on the rows beside it.
    """
    wide = x.to(torch.float32)
    values, row_scale = quantize_rows(wide)
    heavy = (LIMIT * row_scale > HEAVY * wide.square().mean(dim=-1).sqrt()).nonzero().flatten()
    rest = quantize_rows(wide[heavy] - values[heavy] * row_scale[heavy, None])
    sums = torch._int_mm(torch.cat((values, rest.values)), weight.t()).float()
    y = sums[: len(x)].mul_(row_scale[:, None])
    y.index_add_(0, heavy, sums[len(x) :].mul_(rest.scale[:, None]))
    return y.mul_(scale)
