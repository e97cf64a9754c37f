"""The quantizer ``int8``: linear weights as 8-bit integers with a scale per output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from lolama_core.protocols.errors import NotAvailableError

if TYPE_CHECKING:
    from torch import nn

    from lolama_core.protocols.types import QuantizationScheme


class Int8Quantizer:
    """Names int8 quantisation, and says that this version cannot do it.

    Registered under the entry point ``lolama.quantizers``. It refuses before it looks at the module, so a
    model that was handed over is as it was.
    """

    name = "int8"

    def quantize_(self, module: nn.Module, scheme: QuantizationScheme) -> NoReturn:
        """Refuse.

        Raises:
            NotAvailableError: always.
        """
        raise self._not_yet("quantising a model")

    def prepare_(self, module: nn.Module, scheme: QuantizationScheme) -> NoReturn:
        """Refuse.

        Raises:
            NotAvailableError: always.
        """
        raise self._not_yet("loading a quantised model")

    def _not_yet(self, what: str) -> NotAvailableError:
        return NotAvailableError(
            self.name,
            f"{what} is not in this version of lolama-quant",
            "use the model as it is, or upgrade lolama-quant once a version that quantises is out",
        )
