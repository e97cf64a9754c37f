"""Products with int8 weights on Apple GPUs, by one Metal kernel that widens weights in registers."""

from __future__ import annotations

from torch import Tensor

from lolama_quant.metal.shader import product


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    return product("int8_linear", x, weight, scale)
