"""Products with weights, taken by kernels while a module runs as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lolama_core.model.linear import logits_product, product
from lolama_core.protocols import LinearKernel
from lolama_core.protocols.quantizer import FixedOrderKernel


class FastProducts(TorchFunctionMode):
    """Inside its ``with`` block kernels take the products with known weights.

    It stands between the forwards of modules and torch's functions, so it works in any module that multiplies
    by `product` or ``F.linear``. What no kernel knows runs as ever: a weight that was computed, more rows
    than a kernel is good for, a dtype that it does not have, and a product whose gradient is asked for.

    Args:
        modules: Where the known weights are: those of all linears inside.
        kernels: The kernels to choose from.
    """

    def __init__(self, modules: Iterable[nn.Module], kernels: Sequence[LinearKernel]) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, LinearKernel, int]] = {}
        self._fixed = [kernel for kernel in kernels if isinstance(kernel, FixedOrderKernel)]
        for module in modules:
            for part in module.modules():
                weight = part._parameters.get("weight")
                if weight is not None and isinstance(part, nn.Linear) and weight.dim() == 2:
                    self._choose(weight, kernels)
        self._faster: dict[Callable[..., Any], Callable[..., Any]] = dict.fromkeys(
            (product, logits_product, F.linear), self.multiply
        )
        for kernel in kernels:
            self._faster.update(kernel.products())

    def _choose(self, weight: Tensor, kernels: Sequence[LinearKernel]) -> None:
        rows, best = max(
            ((kernel.max_rows(weight), kernel) for kernel in kernels),
            key=lambda pair: pair[0],
            default=(0, None),
        )
        if best is not None and rows > 0:
            self._known[id(weight)] = weight, best, rows

    def kernel_of(self, weight: Tensor) -> LinearKernel | None:
        """What multiplies few rows with ``weight``; None for torch."""
        known, kernel, _ = self._known.get(id(weight), (None, None, 0))
        return kernel if known is weight else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for each of its functions inside the block."""
        faster = self._faster.get(func)
        if faster is not None and not _ask_gradient(args):
            found = faster(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return func(*args, **(kwargs or {}))

    def multiply(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        """``F.linear`` by the weight's kernel, or NotImplemented; parameters are named as there."""
        known, kernel, rows = self._known.get(id(weight), (None, None, 0))
        if known is not weight or kernel is None or input.shape[:-1].numel() > rows:
            return NotImplemented
        return kernel.linear(input, (weight,), (bias,))

    def logits(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, fixed: bool) -> Any:
        """`multiply` with the weight of ``lm_head``.

        If it is to be ``fixed``, sums are in one order for any number of rows, where a kernel has such ones.
        """
        for kernel in self._fixed if fixed else ():
            found = kernel.fixed_linear(x, weight, bias)
            if found is not None:
                return found
        return self.multiply(x, weight, bias)


def _ask_gradient(inputs: Sequence[Any]) -> bool:
    tensors = (one for one in inputs if isinstance(one, Tensor))
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
