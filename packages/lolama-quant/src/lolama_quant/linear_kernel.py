"""Products of a few rows with dense weights, at the speed of memory, on a CPU.

torch is imported where a weight is there already: reports ask the kernel what it runs on without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lolama_quant.cpu.library import describe, dtype_number, most_rows, native_library

if TYPE_CHECKING:
    from torch import Tensor

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
        if isinstance(library, str) or not _is_known(weight) or weight.nbytes < _SMALLEST_BYTES:
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
        from lolama_quant.cpu.linear import native_linear

        return native_linear(x, weights, biases)

    def fixed_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """See `protocols.quantizer.FixedOrderKernel`: with float32 sums, for weights on a CPU."""
        if isinstance(native_library(), str) or not _is_known(weight):
            return None
        from lolama_quant.cpu.linear import fixed_linear

        return fixed_linear(x, weight, bias)

    def products(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Those of int8 and of grouped weights, on every kind of device."""
        from lolama_quant.grouped import product as grouped
        from lolama_quant.int8.linear import int8_product, kernel_product

        return {
            int8_product: kernel_product,
            grouped.grouped_product: grouped.kernel_product,
        }


def _is_known(weight: Tensor) -> bool:
    """Whether the library can read a weight row by row, as its memory is."""
    is_plain = weight.is_contiguous() and not weight.is_neg()
    return weight.device.type == "cpu" and dtype_number(weight.dtype) is not None and is_plain
