"""Which layers of a module a quantizer replaces, and replacing them."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lolama_core.protocols.errors import ModelError, UsageError


def check_version(version: int, known: int, name: str) -> None:
    """Refuse a saved layout that is not known here.

    Raises:
        ModelError: for another version of the layout that a quantizer of this name writes.
    """
    if version != known:
        raise ModelError(
            "quantization",
            f"has version {version} of the {name} layout; this lolama-quant reads {known}",
            "upgrade with `pip install --upgrade lolama-quant`",
        )


def dense_linears(module: nn.Module, skipped: Collection[str]) -> dict[str, nn.Linear]:
    """Name → linear, for those inside ``module`` that a quantizer replaces.

    A skipped name covers the linear whose name it is or ends, and all linears inside a module of that name.
    Left out are also a linear that shares its weight with something else (an ``lm_head`` that is the
    embedding: tied weights stay tied), and one whose weight torch reads around the layer (inside
    `nn.MultiheadAttention`).
    """
    elsewhere = {
        id(parameter)
        for layer in module.modules()
        if not isinstance(layer, nn.Linear)
        for parameter in layer.parameters(recurse=False)
    }
    return {
        name: layer
        for name, layer in module.named_modules()
        if name
        and isinstance(layer, nn.Linear)
        and not isinstance(layer, NonDynamicallyQuantizableLinear)
        and id(layer.weight) not in elsewhere
        and not any(covers(one, name) for one in skipped)
    }


def check_found(found: Collection[str], is_quantized: bool) -> None:
    """Refuse a module that is quantized, or in which nothing is.

    Raises:
        UsageError: saying which.
    """
    if is_quantized:
        raise UsageError("model", "is quantized already", "quantize the model it was made from")
    if not found:
        raise UsageError("model", "has no linear layer to quantize", "use it as it is")


def covers(one: str, name: str) -> bool:
    """Whether ``one`` is the name of a layer, or how that ends, or the name of a module around it."""
    return name == one or name.endswith(f".{one}") or name.startswith(f"{one}.")


def swap(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` in the place of what ``module`` has under ``name``."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)
