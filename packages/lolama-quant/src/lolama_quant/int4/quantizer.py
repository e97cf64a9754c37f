"""The quantizers ``int4``, of four bits, and ``gguf``, of whatever formats a GGUF file has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from lolama_core.protocols.quantizer import QuantizationReport, QuantizationScheme

if TYPE_CHECKING:
    from torch import Tensor, nn


class Int4Quantizer:
    """A `protocols.Quantizer`, found through the entry point ``lolama.quantizers``.

    Works on any module: whatever is an `nn.Linear` becomes a `GroupedLinear` of the format ``int4``, but for
    what the scheme's ``formats`` say otherwise.
    """

    name = "int4"

    def describe(self, device_type: str | None = None) -> str:
        """Which products it uses on each kind of device, or on one."""
        from lolama_quant.int4.description import DEVICES, describe

        if device_type is not None:
            return describe(device_type)
        return "; ".join(f"{name}: {describe(name)}" for name in DEVICES)

    def count(self, module: nn.Module) -> int:
        """How many linears inside ``module`` are quantized by it."""
        from lolama_quant.grouped.linear import GroupedLinear

        return sum(
            isinstance(layer, GroupedLinear) and layer.scheme == self.name
            for layer in module.modules()
        )

    def quantize_(self, module: nn.Module, scheme: QuantizationScheme) -> QuantizationReport:
        """Replace layers of ``module`` in place, without calibration; after an error it is as it was.

        Raises:
            ModelError: naming the weight, if one holds NaN or Inf; for a scheme that does not fit.
            UsageError: if the module is quantized already, or has nothing to quantize.
        """
        from lolama_quant.int4.convert import quantize_

        return quantize_(module, scheme)

    def prepare_(self, module: nn.Module, scheme: QuantizationScheme) -> None:
        """Give a module on the meta device the layout that a saved model loads into.

        Raises:
            ModelError: for a scheme of another version, or one that does not fit the module.
            UsageError: if the module is quantized already, or has nothing to quantize.
        """
        from lolama_quant.int4.convert import prepare_

        prepare_(module, scheme)

    def declared(self, module: nn.Module) -> Mapping[str, str]:
        """See `convert.declared`."""
        from lolama_quant.int4.convert import declared

        return declared(module)

    def converted(
        self, module: nn.Module, tensors: Iterable[tuple[str, Tensor]]
    ) -> Iterator[tuple[str, Tensor]]:
        """See `convert.converted`."""
        from lolama_quant.int4.convert import converted

        return converted(module, tensors)

    def outlier_columns(
        self,
        module: nn.Module,
        scheme: QuantizationScheme,
        count: int,
        run: Callable[[], object],
    ) -> Mapping[str, tuple[int, ...]]:
        """See `outliers.outlier_columns`: found as those of int8. No scheme of four bits takes any."""
        from lolama_quant.int8.outliers import outlier_columns

        return outlier_columns(module, scheme, count, run)


class GGUFQuantizer(Int4Quantizer):
    """The same for a model whose tensors a GGUF file holds: its scheme names the format of each."""

    name = "gguf"
