"""The linear layers: one for the blocks, one for the logits, and faster products for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.kernels import installed_kernels
from lolama_core.protocols import LinearKernel

_CACHED_ELEMENTS = 1 << 19  # 2 MB of float32

_SMALL_ELEMENTS = 1 << 14
"""A weight of so few elements is widened faster than activations are narrowed and the result widened."""

FEW_ROWS = 8
"""Products of so many rows are bound by memory; those of more, by arithmetic."""


class Linear(nn.Linear):
    """`nn.Linear` whose input may be wider than its weight.

    On a CPU the residual stream is float32 while weights are sixteen-bit: the product is taken in the
    weight's dtype, where memory traffic is half, and handed back in the input's.

    Attributes:
        kernel: A faster product for up to ``kernel_rows`` rows of input; see `prepare_`.
    """

    kernel: LinearKernel | None = None
    kernel_rows = 0

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``."""
        if self.kernel is not None and x.shape[:-1].numel() <= self.kernel_rows:
            return self.kernel.linear(x, (self.weight,), (self.bias,))
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """The same by torch's own operators."""
        weight = self.weight
        if x.dtype == torch.float32 and self._is_widened(x.shape[:-1].numel()):
            product = wide_product(x, weight)
        else:
            product = F.linear(x.to(weight.dtype), weight).to(x.dtype)
        return product if self.bias is None else product + self.bias.to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear:
        # A kernel reads memory of one kind of device, and weights may just have left it.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.kernel is not None:
            self.kernel_rows = self.kernel.max_rows(self.weight)
        return self

    def _is_widened(self, rows: int) -> bool:
        """Whether the product with float32 activations is taken in float32.

        Where the processor has no instructions for the weight's dtype, torch's product of many rows is
        several times slower than widening the weights first.
        """
        weight = self.weight
        if weight.dtype.itemsize > 2:
            return False
        return weight.numel() <= _SMALL_ELEMENTS or (
            rows > FEW_ROWS and not processor_multiplies(weight.dtype)
        )


class OutputProjection(Linear):
    """``lm_head``: logits that are not rounded to the weights' sixteen bits.

    The best two of 32,000 logits are often closer than bfloat16 can tell apart at their size. (On Apple's
    GPUs they are rounded: a product there has one dtype.)
    """

    def product(self, x: Tensor) -> Tensor:
        """(..., D) → (..., V), in float32 where torch can."""
        weight = self.weight
        trains = x.requires_grad or weight.requires_grad  # which this product does not
        if x.is_cuda and x.dtype == weight.dtype and x.dtype.itemsize == 2 and not trains:
            logits = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
            return logits.view(*x.shape[:-1], -1)
        return super().product(x)

    def _is_widened(self, rows: int) -> bool:
        return self.weight.dtype.itemsize <= 2


@cache
def processor_multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for matrix products of ``dtype``, as oneDNN sees it."""
    if dtype in (torch.float32, torch.float64):
        return True
    supported = {
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    try:
        return bool(getattr(torch.ops.mkldnn, supported[dtype])())
    except AttributeError:  # a torch without oneDNN, or one that asks in another way
        return False


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """float32 (..., K) and a (N, K) weight of sixteen bits → (..., N), in float32.

    A block of the weight's rows at a time: the wide copy of a block stays in the processor's cache, so
    memory still moves sixteen bits a weight.
    """
    rows = max(1, _CACHED_ELEMENTS // weight.shape[1])
    return torch.cat([F.linear(x, block.float()) for block in torch.split(weight, rows)], dim=-1)


def outputs_of(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """(..., K) through several linears that read the same input → (..., N) of each.

    One call of a kernel where all of them use the same; otherwise each by itself, of whatever kind it is.
    """
    first = linears[0]
    if isinstance(first, Linear) and first.kernel is not None:
        alike = [one for one in linears if isinstance(one, Linear) and one.kernel is first.kernel]
        rows = min(linear.kernel_rows for linear in alike)
        if len(alike) == len(linears) and x.shape[:-1].numel() <= rows:
            weights, biases = zip(*((linear.weight, linear.bias) for linear in alike), strict=True)
            joined = first.kernel.linear(x, weights, biases)
            return torch.split(joined, [len(weight) for weight in weights], dim=-1)
    return tuple(linear(x) for linear in linears)


def linear_kernels() -> list[LinearKernel]:
    """The kernels that installed packages provide, through the entry point ``lolama.linear_kernels``.

    Raises:
        NotAvailableError: if one cannot be loaded.
    """
    return installed_kernels("lolama.linear_kernels")


def prepare_(module: nn.Module, kernels: Sequence[LinearKernel]) -> None:
    """Let every dense linear inside ``module`` use the kernel that takes the most rows of its weights.

    In place, after loading; parameters, their names and ``state_dict`` stay as they are. Without a kernel
    for its device and dtype a layer uses torch's product. Linears of other packages become `Linear` either
    way, so which product is taken of sixteen-bit weights is decided here for all of them.
    """
    for parent in module.modules():
        for name, child in parent.named_children():
            if not isinstance(child, nn.Linear):
                continue
            rows, best = max(
                ((kernel.max_rows(child.weight), kernel) for kernel in kernels),
                key=lambda pair: pair[0],
                default=(0, None),
            )
            linear = child if isinstance(child, Linear) else _with_same_parameters(child)
            if rows:
                linear.kernel, linear.kernel_rows = best, rows
            setattr(parent, name, linear)


def _with_same_parameters(plain: nn.Linear) -> Linear:
    linear = Linear(
        plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta"
    )
    linear.weight, linear.bias = plain.weight, plain.bias
    return linear.train(plain.training)


def kernels_in_use(module: nn.Module) -> dict[LinearKernel | None, int]:
    """How many linears inside ``module`` take their products of few rows from which kernel.

    For reports on a loaded model: `prepare_` decides layer by layer, and says nothing.

    Returns:
        Kernel → number of linears. None stands for torch's own product; what no linear uses is left out.
    """
    counts: dict[LinearKernel | None, int] = {}
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            kernel = layer.kernel if isinstance(layer, Linear) else None
            counts[kernel] = counts.get(kernel, 0) + 1
    return counts
