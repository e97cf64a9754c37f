"""What installed packages offer to make models fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lolama_core.plugins import installed_kernels
from lolama_core.protocols import DecoderKernel, LinearKernel


@dataclass(frozen=True)
class Kernels:
    """What makes models fast.

    Attributes:
        linear: Take single products.
        decoder: Take whole blocks; the first that takes some has them.
    """

    linear: Sequence[LinearKernel] = ()
    decoder: Sequence[DecoderKernel] = ()

    @classmethod
    def installed(cls) -> Kernels:
        """Those of installed packages: entry points ``lolama.linear_kernels`` and ``lolama.decoder_kernels``.

        Raises:
            NotAvailableError: if one cannot be loaded.
        """
        return cls(
            installed_kernels("lolama.linear_kernels"), installed_kernels("lolama.decoder_kernels")
        )
