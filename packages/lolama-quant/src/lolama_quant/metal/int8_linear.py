"""Products with int8 weights on Apple GPUs, by one Metal kernel that widens weights in registers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("int8_linear.metal")
ROWS, LANES, SIMDGROUPS = 8, 32, 4
SCALARS = {torch.float32: "float", torch.float16: "half", torch.bfloat16: "bfloat"}


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) in the dtype of ``x``."""
    rows, inputs = x.shape
    outputs = len(weight)
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    groups, tiles = grid(rows, outputs)
    _library(x.dtype).int8_linear(
        # The kernel reads memory, and a tensor may be the negative of what its memory holds.
        x.resolve_neg().contiguous(),
        weight.resolve_neg(),
        scale.resolve_neg(),
        y,
        _sizes(rows, inputs, outputs, x.device),
        threads=(groups * LANES, tiles * SIMDGROUPS, 1),
        group_size=(LANES, SIMDGROUPS, 1),
    )
    return y


def grid(rows: int, outputs: int) -> tuple[int, int]:
    """Threadgroups: `SIMDGROUPS` output channels wide, `ROWS` rows deep."""
    return -(-outputs // SIMDGROUPS), -(-rows // ROWS)


def source(dtype: torch.dtype) -> str:
    """The kernel's text for activations of ``dtype``."""
    definitions = f"#define SCALAR {SCALARS[dtype]}\n#define SIMDGROUPS {SIMDGROUPS}\n"
    return definitions + SOURCE.read_text(encoding="utf-8")


@cache
def _library(dtype: torch.dtype) -> Any:
    return torch.mps.compile_shader(source(dtype))


@cache
def _sizes(rows: int, inputs: int, outputs: int, device: torch.device) -> Tensor:
    """Kept, since making it is a copy to the GPU. Shapes are few: prompts run in chunks."""
    return torch.tensor([rows, inputs, outputs], dtype=torch.int32, device=device)
