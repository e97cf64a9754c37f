"""Products with int8 weights on NVIDIA GPUs.

Activations keep their sixteen bits. A few rows are bound by memory: a Triton kernel reads each weight once
and widens it in registers. Many rows are bound by arithmetic: weights are widened in memory, which costs
little beside the product, and cuBLAS multiplies. Neither looks at a value on the host, so both can be
recorded in a CUDA graph, and any number of rows is right. (`torch._int_mm` needs more than 16 rows
and sizes that are multiples of 8, and its activations of eight bits lose more than int8 weights do.)
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec

from torch import Tensor

from lolama_quant.backends import reference

FEW_ROWS = 16
"""One tile of a tensor core has so many rows."""


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    if 1 <= len(x) <= FEW_ROWS and has_triton():
        from lolama_quant.triton_kernels.products import few_rows

        return few_rows(x, weight, scale)
    return reference.linear(x, weight, scale)


def describe() -> str:
    """Which products are used on CUDA here."""
    if has_triton():
        return f"a Triton kernel up to {FEW_ROWS} rows, weights widened for more"
    return f"weights widened: {describe_triton()}"


def has_triton() -> bool:
    """Whether kernels can be compiled here."""
    return _missing() is None


def describe_triton() -> str:
    """Whether kernels can be compiled here, and what is missing if they cannot."""
    return _missing() or "compiled by Triton"


@cache
def _missing() -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    # Triton compiles what launches a kernel with it.
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang")))):
        return "Triton finds no C compiler"
    return None
