"""Products with grouped weights: by torch's operators, and by the fastest means of each device."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.cpu.library import native_library
from lolama_quant.grouped.codes import dequantize
from lolama_quant.grouped.rounded_blocks import round_blocks
from lolama_quant.metal.grouped_linear import grouped_rows
from lolama_quant.triton.compiler import has_triton

_BLOCK_ELEMENTS = 1 << 19
"""Weights that are dequantized at a time: 2 MB of float32, which stay in a processor's cache."""

TRITON_ROWS = {torch.float16: sys.maxsize, torch.bfloat16: sys.maxsize, torch.float32: 16}
"""Up to how many rows of a dtype Triton's kernel takes: no tensor core multiplies float32 exactly."""

METAL_ROWS = 64
"""Up to how many rows Metal's kernel takes. It reads a weight once for every eight of them, and widening
moves some forty bytes a weight. None of it was timed."""


def grouped_product(
    x: Tensor,
    weight: Tensor,
    group_scale: Tensor | None,
    block_scale: Tensor,
    form: str,
) -> Tensor:
    """x (M, K) and the tensors of a weight (N, K) → (M, N) in float32 on a CPU, else in the dtype of ``x``.

    On a CPU activations are rounded as the native product rounds them, unless a gradient is asked for. Within
    `lolama_core.runtime.fast_products` the call becomes `kernel_product`, which `linear_kernel` hands it.

    Args:
        x: Any floating-point dtype.
        weight, group_scale, block_scale: See `protocols.grouped.GroupFormat.tensors`.
        form: The name of their format, one of `protocols.grouped.FORMATS`.
    """
    if has_torch_function((x, weight)):
        arguments = (x, weight, group_scale, block_scale, form)
        found = handle_torch_function(grouped_product, (x, weight), *arguments)
        assert isinstance(found, Tensor)
        return found
    if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
        return widened_product(x, weight, group_scale, block_scale, form)
    return blockwise_product(x, weight, group_scale, block_scale, form)


def widened_product(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """`grouped_product` with activations as they are, and the whole weight in their dtype, in memory."""
    wide = _dequantized(weight, group_scale, block_scale, form, x.shape[1])
    return F.linear(x, wide.to(x.dtype))


def blockwise_product(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """`grouped_product` with rounded activations, in float32, some outputs at a time."""
    rounded, step = round_blocks(x, FORMATS[form]), max(1, _BLOCK_ELEMENTS // x.shape[1])
    parts = []
    for first in range(0, len(weight), step):
        some = slice(first, first + step)
        scales = None if group_scale is None else group_scale[some]
        wide = _dequantized(weight[some], scales, block_scale[some], form, x.shape[1])
        parts.append(F.linear(rounded, wide))
    return torch.cat(parts, dim=-1)


def kernel_product(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """`grouped_product` by the fastest means of the device, without gradients."""
    if x.device.type == "cpu" and not isinstance(native_library(), str):
        from lolama_quant.cpu.grouped_linear import native_grouped

        return native_grouped(x, weight, group_scale, block_scale, form)
    if x.device.type == "cuda":
        return cuda_product(x, weight, group_scale, block_scale, form)
    if x.device.type == "mps":
        return metal_product(x, weight, group_scale, block_scale, form)
    return grouped_product(x, weight, group_scale, block_scale, form)


def cuda_product(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """`grouped_product` on an NVIDIA GPU: by Triton's kernel, which has not run on one yet, or widened."""
    if len(x) <= TRITON_ROWS.get(x.dtype, 0) and has_triton():
        from lolama_quant.triton.kernels.grouped_products import grouped_rows

        return grouped_rows(x, weight, group_scale, block_scale, form)
    return widened_product(x, weight, group_scale, block_scale, form)


def metal_product(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """`grouped_product` on an Apple GPU: by Metal's kernel, which has not run on one yet, or widened."""
    if len(x) <= METAL_ROWS:
        return grouped_rows(x, weight, group_scale, block_scale, form)
    return widened_product(x, weight, group_scale, block_scale, form)


def _dequantized(
    weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str, inputs: int
) -> Tensor:
    """(N, K) float32."""
    tensors = {"weight": weight, "block_scale": block_scale}
    if group_scale is not None:
        tensors["group_scale"] = group_scale
    return dequantize(tensors, FORMATS[form], inputs)
