"""Products of a few rows with dense weights, at the speed of memory, on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_quant.native_library import INSTRUCTION_SETS, dtype_number, native_library

# Past this many rows the product is no longer bound by memory, and torch's blocked one is faster.
_FEW_ROWS = 8


class NativeLinearKernel:
    """``x @ weight.T + bias`` by native/linear.c: a `protocols.LinearKernel`.

    Every weight is read once, widened in registers and multiplied with float32 activations; sums are
    float32. torch's own one-row product leaves about half of a CPU's memory bandwidth unused in bfloat16.
    """

    name = "native"

    def describe(self) -> str:
        """What it runs on here, or why it does not run."""
        library = native_library()
        if isinstance(library, str):
            return library
        return (
            f"{INSTRUCTION_SETS[library.instruction_set]}, up to {_FEW_ROWS} rows, torch's threads"
        )

    def max_rows(self, device: torch.device, dtype: torch.dtype) -> int:
        """Up to how many rows it is the faster choice; 0 away from the CPU or without the library."""
        if device.type != "cpu" or dtype_number(dtype) is None or isinstance(native_library(), str):
            return 0
        return _FEW_ROWS

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (..., K) and weight (N, K) → (..., N) in the dtype of ``x``.

        Args:
            x: Any floating-point dtype; computed with as float32.
            weight: float32, bfloat16 or float16.
            bias: (N,) or None.
        """
        if torch.compiler.is_compiling():
            return torch.ops.lolama.linear(x, weight, bias)  # type: ignore[no-any-return]
        return _linear(x, weight, bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    library = native_library()
    assert not isinstance(library, str), library
    number = dtype_number(weight.dtype)
    assert number is not None and weight.is_contiguous() and x.shape[-1] == weight.shape[1]
    outputs, inputs = weight.shape
    rows = x.to(torch.float32).contiguous()
    wide_bias = bias.to(torch.float32).contiguous() if bias is not None else None
    y = torch.empty((*x.shape[:-1], outputs), dtype=torch.float32)
    library.linear(
        rows.data_ptr(),
        weight.data_ptr(),
        wide_bias.data_ptr() if wide_bias is not None else None,
        y.data_ptr(),
        rows.numel() // inputs if inputs else y.numel() // max(outputs, 1),
        outputs,
        inputs,
        number,
        library.instruction_set,
    )
    return y.to(x.dtype)


# The same product as an operator of torch, with a fake kernel for tracing, so that a compiled model keeps it.
_operator = torch.library.custom_op("lolama::linear", _linear, mutates_args=())


@_operator.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))
