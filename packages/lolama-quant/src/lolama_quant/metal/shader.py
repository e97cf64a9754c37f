"""Products by Metal kernels: their texts are compiled for a dtype of activations, and launched."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROWS, LANES, SIMDGROUPS = 8, 32, 4
"""Rows that a simdgroup computes one output channel of, its lanes, and simdgroups in a threadgroup."""

_HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"
_SCALARS = {torch.float32: "float", torch.float16: "half", torch.bfloat16: "bfloat"}


def product(kernel: str, x: Tensor, *weights: Tensor, **definitions: str | int) -> Tensor:
    """x (M, K) and the tensors of a weight, each of N rows → (M, N) in the dtype of ``x``.

    Args:
        kernel: The name of a kernel and of its file in this folder. It takes ``x``, ``weights``, what it
            writes, and the sizes M, K and N.
        x: float32, float16 or bfloat16.
        weights: See above.
        definitions: What else is defined before the text; see `source`.
    """
    (rows, inputs), outputs = x.shape, len(weights[0])
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    groups, tiles = -(-outputs // SIMDGROUPS), -(-rows // ROWS)
    getattr(library(kernel, x.dtype, **definitions), kernel)(
        # The kernel reads memory, and a tensor may be the negative of what its memory holds.
        *(part.resolve_neg().contiguous() for part in (x, *weights)),
        y,
        _sizes(rows, inputs, outputs, x.device),
        threads=(groups * LANES, tiles * SIMDGROUPS, 1),
        group_size=(LANES, SIMDGROUPS, 1),
    )
    return y


def source(kernel: str, dtype: torch.dtype, **definitions: str | int) -> str:
    """The text of a kernel for activations of ``dtype``, behind Metal's names and what is defined for it."""
    sizes = {"ROWS": ROWS, "LANES": LANES, "SIMDGROUPS": SIMDGROUPS}
    defined = {"SCALAR": _SCALARS[dtype], **sizes, **definitions}
    lines = "".join(f"#define {name} {value}\n" for name, value in defined.items())
    return _HEAD + lines + Path(__file__).with_name(f"{kernel}.metal").read_text(encoding="utf-8")


@cache
def library(kernel: str, dtype: torch.dtype, **definitions: str | int) -> Any:
    """A text of `source`, compiled."""
    return torch.mps.compile_shader(source(kernel, dtype, **definitions))


@cache
def _sizes(rows: int, inputs: int, outputs: int, device: torch.device) -> Tensor:
    """Kept, since making it is a copy to the GPU. Shapes are few: prompts run in chunks."""
    return torch.tensor([rows, inputs, outputs], dtype=torch.int32, device=device)
