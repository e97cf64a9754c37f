"""Products of dense weights by native/linear.c, as a function and as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_quant.cpu.library import NativeLibrary, dtype_number, native_library


def native_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """See `linear_kernel.NativeLinearKernel.linear`. Needs the library."""
    if torch.compiler.is_compiling():
        return torch.ops.lolama.linear(x, weights, biases)  # type: ignore[no-any-return]
    return _linear(x, weights, biases)


def fixed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `linear_kernel.NativeLinearKernel.fixed_linear`. Needs the library."""
    return _linear(x, (weight,), (bias,), fixed=True)


def _linear(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], fixed: bool = False
) -> Tensor:
    library = native_library()
    assert not isinstance(library, str), library
    dtype, inputs = weights[0].dtype, x.shape[-1]
    number = dtype_number(dtype)
    assert number is not None
    for weight in weights:
        assert weight.is_contiguous() and weight.shape[1] == inputs and weight.dtype == dtype
    outputs = [weight.shape[0] for weight in weights]
    rows = x.shape[:-1].numel()
    # The library reads memory, and a tensor may be the negative of what its memory holds.
    x, weights = x.resolve_neg(), [weight.resolve_neg() for weight in weights]
    wide_biases = [
        None if bias is None else bias.resolve_neg().to(torch.float32).contiguous()
        for bias in biases
    ]
    addresses = (
        [weight.data_ptr() for weight in weights],
        [0 if bias is None else bias.data_ptr() for bias in wide_biases],
    )
    y = torch.empty((*x.shape[:-1], sum(outputs)), dtype=torch.float32, device="cpu")
    if not fixed and _is_tiled(library, dtype, rows, outputs):
        narrow_x = x.to(torch.bfloat16).contiguous()
        library.tiled_linear(narrow_x.data_ptr(), *addresses, outputs, y.data_ptr(), rows, inputs)
    else:
        wide_x = x.to(torch.float32).contiguous()
        sizes = rows, inputs, number
        # More digits than bfloat16 has, as fast.
        in_parts = fixed and library.tiled is not None and dtype == torch.bfloat16
        parts = torch.empty_like(wide_x) if in_parts else None
        library.linear(
            wide_x.data_ptr(),
            *addresses,
            outputs,
            y.data_ptr(),
            *sizes,
            fixed=fixed,
            parts=None if parts is None else parts.data_ptr(),
        )
    return y.to(x.dtype)


def _is_tiled(
    library: NativeLibrary, dtype: torch.dtype, rows: int, outputs: Sequence[int]
) -> bool:
    """Whether both factors are taken in bfloat16. One row keeps its float32: it has time to spare."""
    enough = min(outputs, default=0) >= 4 * torch.get_num_threads()
    return library.tiled is not None and dtype == torch.bfloat16 and rows > 1 and enough


# The same product as an operator of torch, with a fake kernel for tracing, so that a compiled model keeps it.
_operator = torch.library.custom_op("lolama::linear", _linear, mutates_args=())


@_operator.register_fake
def _(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], fixed: bool = False
) -> Tensor:
    return x.new_empty((*x.shape[:-1], sum(weight.shape[0] for weight in weights)))
