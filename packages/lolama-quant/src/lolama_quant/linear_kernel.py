"""Products of a few rows with dense weights, at the speed of memory, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_quant.native_library import (
    NativeLibrary,
    describe,
    dtype_number,
    most_rows,
    native_library,
)

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
        return describe()

    def max_rows(self, weight: Tensor) -> int:
        """Up to how many rows it is the faster choice; 0 away from the CPU or without the library."""
        library = native_library()
        if isinstance(library, str) or dtype_number(weight.dtype) is None:
            return 0
        if weight.device.type != "cpu" or weight.nbytes < _SMALLEST_BYTES:
            return 0
        return most_rows(library, weight.dtype)

    def linear(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """x (..., K) and weights (N1, K), (N2, K), … → (..., N1 + N2 + …) in the dtype of ``x``.

        Args:
            x: Any floating-point dtype; computed with as float32, or in tiles as bfloat16.
            weights: All float32, all bfloat16 or all float16.
            biases: (N,) or None for each.
        """
        if torch.compiler.is_compiling():
            return torch.ops.lolama.linear(x, weights, biases)  # type: ignore[no-any-return]
        return _linear(x, weights, biases)


def _linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
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
    y = torch.empty((*x.shape[:-1], sum(outputs)), dtype=torch.float32)
    if _is_tiled(library, dtype, rows, outputs):
        narrow_x = x.to(torch.bfloat16).contiguous()
        library.tiled_linear(narrow_x.data_ptr(), *addresses, outputs, y.data_ptr(), rows, inputs)
    else:
        wide_x = x.to(torch.float32).contiguous()
        library.linear(wide_x.data_ptr(), *addresses, outputs, y.data_ptr(), rows, inputs, number)
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
def _(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    return x.new_empty((*x.shape[:-1], sum(weight.shape[0] for weight in weights)))
