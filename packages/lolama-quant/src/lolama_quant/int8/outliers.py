"""Which input columns of a linear are worth their full precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.int8.convert import linears_of


def outlier_columns(
    module: nn.Module, scheme: QuantizationScheme, count: int, run: Callable[[], object]
) -> dict[str, tuple[int, ...]]:
    """The ``count`` input columns of each linear that carry the largest activations.

    A few features of a language model are many times larger than the others (Dettmers et al. 2022): their
    weights matter most, and quantized beside the others they take the precision of all.

    Args:
        module: Not quantized yet.
        scheme: Says which linears.
        count: The most columns of each linear. More than half of them are never taken.
        run: Runs ``module`` on a text that is typical of what it will read.

    Returns:
        Name → columns, ascending: `QuantizationScheme.outlier_columns`.
    """
    linears = linears_of(module, scheme)
    largest: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()  # (K,)
            largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in linears.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: tuple(sorted(seen.topk(min(count, len(seen) // 2)).indices.tolist()))
        for name, seen in largest.items()
    }
