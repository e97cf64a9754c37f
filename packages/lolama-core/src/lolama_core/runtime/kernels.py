"""What makes models fast: what installed packages offer, or what a model was given."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

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


_kernels: weakref.WeakKeyDictionary[nn.Module, Kernels] = weakref.WeakKeyDictionary()


def set_kernels(model: nn.Module, kernels: Kernels | None) -> None:
    """Run ``model`` with these kernels from the next text on. A copy of it does not have them.

    Args:
        model: Any that `runner_of` runs.
        kernels: ``Kernels()`` for none at all; None for those of installed packages, as at first.

    Example:
        >>> model, tokenizer = lolama_core.load("demo")
        >>> set_kernels(model, Kernels(linear=[MyKernel()]))
    """
    _kernels.pop(model, None)
    if kernels is not None:
        _kernels[model] = kernels


def given_kernels(model: nn.Module) -> Kernels | None:
    """What `set_kernels` gave ``model``; None if it runs with those of installed packages."""
    return _kernels.get(model)


def kernels_of(model: nn.Module) -> Kernels:
    """What makes ``model`` fast: what `set_kernels` gave it, else what installed packages provide.

    Raises:
        NotAvailableError: if one of those cannot be loaded.
    """
    given = given_kernels(model)
    return Kernels.installed() if given is None else given
