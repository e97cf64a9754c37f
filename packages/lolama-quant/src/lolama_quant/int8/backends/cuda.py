"""Products with int8 weights on NVIDIA GPUs.

Activations keep their sixteen bits. A few rows are bound by memory: a Triton kernel reads each weight once
and widens it in registers. Many rows are bound by arithmetic: weights are widened in memory, which costs
little beside the product, and cuBLAS multiplies. Neither looks at a value on the host, so both can be
recorded in a CUDA graph, and any number of rows is right. (`torch._int_mm` needs more than 16 rows
and sizes that are multiples of 8, and its activations of eight bits lose more than int8 weights do.)
"""

from __future__ import annotations

from torch import Tensor

from lolama_quant.int8.backends import reference
from lolama_quant.int8.description import CUDA_FEW_ROWS
from lolama_quant.triton.compiler import has_triton


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    if 1 <= len(x) <= CUDA_FEW_ROWS and has_triton():
        from lolama_quant.triton.kernels.products import few_rows

        return few_rows(x, weight, scale)
    return reference.linear(x, weight, scale)
