"""Quantisation, and faster products for weights that are not quantised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lolama_core.protocols.types import QuantizationReport, QuantizationScheme

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Quantizer(Protocol):
    """Swaps the linears of any module from outside. Found through ``lolama.quantizers``."""

    @property
    def name(self) -> str:
        """The scheme's name, such as ``int8``."""
        ...

    def quantize_(self, module: nn.Module, scheme: QuantizationScheme) -> QuantizationReport:
        """Replace the linears of ``module`` in place.

        Raises:
            ModelError: naming the weight, if one holds NaN or Inf.
            UsageError: if the module is quantised already.
        """
        ...

    def prepare_(self, module: nn.Module, scheme: QuantizationScheme) -> None:
        """Give a module on the meta device the layout that a saved quantised model loads into."""
        ...


@runtime_checkable
class LinearKernel(Protocol):
    """A faster ``x @ weight.T + bias`` for dense weights. Found through ``lolama.linear_kernels``."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    def describe(self) -> str:
        """One line for reports: what it runs on here, or why it does not run."""
        ...

    def max_rows(self, weight: Tensor) -> int:
        """Up to how many rows of ``x`` it is the faster choice for such a (N, K) weight; 0 if never."""
        ...

    def linear(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """The products of one input with several weights, side by side.

        Args:
            x: (..., K).
            weights: (N1, K), (N2, K), …, all of one dtype.
            biases: One for each weight, (N,) or None.

        Returns:
            (..., N1 + N2 + …) in the dtype of ``x``.
        """
        ...
