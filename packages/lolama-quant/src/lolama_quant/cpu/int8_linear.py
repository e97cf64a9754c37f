"""Products with int8 weights on a CPU: native/int8.h and the panels beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_quant.cpu.library import native_library


def native_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) of any floating-point dtype, weight (N, K) int8, scale (N,) float32 → (M, N) float32.

    Activations are rounded to 8 bits in groups of 64, with a scale for each group, and a second time where
    one stands out of its group; in AVX2's panels to 15 bits, with a scale for each row. Needs the library.
    """
    if torch.compiler.is_compiling():
        return torch.ops.lolama.int8_linear(x, weight, scale)  # type: ignore[no-any-return]
    return _linear(x, weight, scale)


def _linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    library = native_library()
    assert not isinstance(library, str), library
    rows, inputs = x.shape
    assert weight.is_contiguous() and weight.shape[1] == inputs and weight.dtype == torch.int8
    assert scale.is_contiguous() and scale.dtype == torch.float32
    # The library reads memory, and a tensor may be the negative of what its memory holds.
    weight, scale = weight.resolve_neg(), scale.resolve_neg()
    wide = x.resolve_neg().to(torch.float32).contiguous()
    y = torch.empty((rows, len(weight)), dtype=torch.float32, device="cpu")
    library.int8_linear(
        wide.data_ptr(),
        [weight.data_ptr()],
        [scale.data_ptr()],
        [0],
        [len(weight)],
        y.data_ptr(),
        rows,
        inputs,
    )
    return y


# The same product as an operator of torch, with a fake kernel for tracing, so that a compiled model keeps it.
_operator = torch.library.custom_op("lolama::int8_linear", _linear, mutates_args=())


@_operator.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)
