"""Quantization, and faster products for weights that are not quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class QuantizationScheme:
    """How a model is quantized; stored as the checkpoint's ``quantization`` block.

    ``skipped`` are names of linears left as they are; ``outlier_columns`` maps a linear's name to the
    input columns kept in full precision; ``formats`` maps the name of a linear or an embedding to its
    format, of `protocols.grouped.FORMATS` or ``int8``, where that is not the quantizer's own.
    """

    name: str
    version: int = 1
    skipped: tuple[str, ...] = ("lm_head",)
    outlier_columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What `Quantizer.quantize_` did: names of the replaced linears, and weight bytes before and after."""

    scheme: QuantizationScheme
    replaced: tuple[str, ...]
    bytes_before: int
    bytes_after: int


@runtime_checkable
class QuantizedEmbedding(Protocol):
    """A module in the place of an embedding, whose weight is quantized.

    Attributes:
        output_dtype: The dtype of what it gives. Whoever loads weights sets it to what the others become.
    """

    output_dtype: torch.dtype


def set_output_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Tell quantized embeddings inside ``module`` what to give."""
    for part in module.modules():
        if isinstance(part, QuantizedEmbedding):
            part.output_dtype = dtype


def output_dtype(embedding: nn.Module) -> torch.dtype:
    """The dtype of what an embedding gives: that of its weight, or what a quantized one says."""
    if isinstance(embedding, QuantizedEmbedding):
        return embedding.output_dtype
    return embedding.get_parameter("weight").dtype


@runtime_checkable
class Quantizer(Protocol):
    """Swaps the linears of any module from outside. Found through ``lolama.quantizers``."""

    @property
    def name(self) -> str:
        """The scheme's name, such as ``int8``."""
        ...

    def describe(self, device_type: str | None = None) -> str:
        """One line for reports: which products it uses on each kind of device, or on one."""
        ...

    def count(self, module: nn.Module) -> int:
        """How many linears inside ``module`` are quantized by it."""
        ...

    def quantize_(self, module: nn.Module, scheme: QuantizationScheme) -> QuantizationReport:
        """Replace the linears of ``module`` in place.

        Raises:
            ModelError: naming the weight, if one holds NaN or Inf.
            UsageError: if the module is quantized already, or holds nothing to quantize.
        """
        ...

    def prepare_(self, module: nn.Module, scheme: QuantizationScheme) -> None:
        """Give a module on the meta device the layout that a saved quantized model loads into.

        Raises:
            ModelError: for a scheme of another version, or one that does not fit the module.
            UsageError: as for `quantize_`.
        """
        ...

    def declared(self, module: nn.Module) -> Mapping[str, str]:
        """The tensors of a prepared module whose dtype is fixed → that dtype, as safetensors spells it."""
        ...

    def converted(
        self, module: nn.Module, tensors: Iterable[tuple[str, Tensor]]
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a dense model as those of ``module``, which is prepared, one at a time.

        Raises:
            ModelError: naming the weight, if one holds NaN or Inf.
        """
        ...

    def outlier_columns(
        self,
        module: nn.Module,
        scheme: QuantizationScheme,
        count: int,
        run: Callable[[], object],
    ) -> Mapping[str, tuple[int, ...]]:
        """The input columns of each linear that carry the largest activations, for `QuantizationScheme`.

        Args:
            module: Not quantized.
            scheme: Says which linears.
            count: Columns for each.
            run: Runs ``module`` on a text that is typical of what it will read.
        """
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

    def products(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Products of other kinds that it is the faster choice for.

        Returns:
            Function → what takes the same arguments and gives the same result, or NotImplemented. The
            function calls ``torch.overrides.handle_torch_function`` when ``has_torch_function`` says so.
        """
        ...


@runtime_checkable
class FixedOrderKernel(Protocol):
    """A `LinearKernel` that also multiplies in one order of additions, whatever the number of rows."""

    def fixed_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """(..., K), (N, K) and (N,) → (..., N) in the dtype of ``x``; None for a weight it does not know.

        A row has the same result, bit for bit, alone and among others.
        """
        ...
