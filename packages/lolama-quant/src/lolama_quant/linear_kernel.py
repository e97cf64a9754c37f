"""Products of a few rows with dense weights, at the speed of memory, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_quant.native_library import INSTRUCTION_SETS, dtype_number, native_library

# Past this many rows the product is no longer bound by memory, and torch's blocked one is faster.
_FEW_ROWS = 8

# The call through ctypes takes as long as torch's product with a weight of this size.
_SMALLEST_BYTES = 1 << 16


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

    def max_rows(self, weight: Tensor) -> int:
        """Up to how many rows it is the faster choice; 0 away from the CPU or without the library."""
        if dtype_number(weight.dtype) is None or isinstance(native_library(), str):
            return 0
        if weight.device.type != "cpu" or weight.nbytes < _SMALLEST_BYTES:
            return 0
        return _FEW_ROWS

    def linear(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """x (..., K) and weights (N1, K), (N2, K), … → (..., N1 + N2 + …) in the dtype of ``x``.

        Args:
            x: Any floating-point dtype; computed with as float32.
            weights: All float32, all bfloat16 or all float16.
            biases: (N,) or None for each.
        """
        if torch.compiler.is_compiling():
            return torch.ops.lolama.linear(x, weights, biases)  # type: ignore[no-any-return]
        return _linear(x, weights, biases)


def _linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    library = native_library()
    assert not isinstance(library, str), library
    number = dtype_number(weights[0].dtype)
    inputs = x.shape[-1]
    assert number is not None
    for weight in weights:
        assert weight.is_contiguous() and weight.shape[1] == inputs
        assert weight.dtype == weights[0].dtype
    outputs = [weight.shape[0] for weight in weights]
    wide_x = x.to(torch.float32).contiguous()
    wide_biases = [None if bias is None else bias.to(torch.float32).contiguous() for bias in biases]
    y = torch.empty((*x.shape[:-1], sum(outputs)), dtype=torch.float32)
    library.linear(
        wide_x.data_ptr(),
        [weight.data_ptr() for weight in weights],
        [0 if bias is None else bias.data_ptr() for bias in wide_biases],
        outputs,
        y.data_ptr(),
        x.shape[:-1].numel(),
        inputs,
        number,
    )
    return y.to(x.dtype)


# The same product as an operator of torch, with a fake kernel for tracing, so that a compiled model keeps it.
_operator = torch.library.custom_op("lolama::linear", _linear, mutates_args=())


@_operator.register_fake
def _(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    return x.new_empty((*x.shape[:-1], sum(weight.shape[0] for weight in weights)))
