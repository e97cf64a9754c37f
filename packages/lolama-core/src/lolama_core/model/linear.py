"""The linear layers: one for the blocks, one for the logits."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

_CACHED_ELEMENTS = 1 << 19  # 2 MB of float32

_SMALL_ELEMENTS = 1 << 14
"""Up to this many elements, widening a weight costs less than narrowing activations."""

FEW_ROWS = 8
"""Up to this many rows, memory limits a product; beyond, arithmetic does."""


class Linear(nn.Linear):
    """`nn.Linear` whose input may be wider than its weight.

    On a CPU the residual stream is float32 while weights are sixteen-bit: the product is taken in the
    weight's dtype, where memory traffic is half, and handed back in the input's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``."""
        return product(x, self.weight, self.bias)


class OutputProjection(Linear):
    """``lm_head``: logits that are not rounded to the weights' sixteen bits.

    The best two of 32,000 logits are often closer than bfloat16 can tell apart at their size. (On Apple's
    GPUs they are rounded: a product there has one dtype.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., V), in float32 where torch can."""
        return logits_product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K), (N, K) and (N,) → (..., N) in the dtype of ``x``.

    A `torch.overrides.TorchFunctionMode` sees the call as it sees those of torch's own functions.
    """
    if has_torch_function((x, weight)):
        return _as_tensor(handle_torch_function(product, (x, weight), x, weight, bias))
    few = weight.numel() <= _SMALL_ELEMENTS
    many = x.shape[:-1].numel() > FEW_ROWS and not processor_multiplies(weight.dtype)
    # Where the processor has no instructions for the weight's dtype, torch's product of many rows is several
    # times slower than widening the weights first.
    return _product(x, weight, bias, widen=few or many)


def logits_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., D), (V, D) and (V,) → (..., V); like `product`, with float32 sums that are not rounded."""
    if has_torch_function((x, weight)):
        return _as_tensor(handle_torch_function(logits_product, (x, weight), x, weight, bias))
    trains = x.requires_grad or weight.requires_grad  # which torch.mm with an out_dtype does not
    sixteen_bits = x.dtype == weight.dtype and x.dtype.itemsize == 2
    if x.is_cuda and sixteen_bits and bias is None and not trains:
        logits = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
        return logits.view(*x.shape[:-1], -1)
    return _product(x, weight, bias, widen=True)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, *, widen: bool) -> Tensor:
    if widen and x.dtype == torch.float32 and weight.dtype.itemsize <= 2:
        y = wide_product(x, weight)
    else:
        y = F.linear(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias.to(x.dtype)


def _as_tensor(found: object) -> Tensor:
    assert isinstance(found, Tensor)
    return found


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


def inner_dtype(x: Tensor, layers: Iterable[nn.Module]) -> torch.dtype:
    """The dtype of activations inside the blocks, for (B, T, D) new positions.

    Many rows of bfloat16 are multiplied as such where the processor can (see `Linear`), so what is in
    between need not be converted there and back. Memory limits a product of few rows, not arithmetic.
    """
    if x.shape[0] * x.shape[1] <= FEW_ROWS:
        return x.dtype
    first = next(iter(layers), None)
    linear = getattr(getattr(first, "attention", None), "q_proj", None)
    if not isinstance(linear, Linear):
        return x.dtype
    if linear.weight.dtype == torch.bfloat16 and processor_multiplies(torch.bfloat16):
        return torch.bfloat16
    return x.dtype


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """float32 (..., K) and a (N, K) weight of sixteen bits → (..., N), in float32.

    A block of the weight's rows at a time: the wide copy of a block stays in the processor's cache, so
    memory still moves sixteen bits a weight.
    """
    rows = max(1, _CACHED_ELEMENTS // weight.shape[1])
    return torch.cat([F.linear(x, block.float()) for block in torch.split(weight, rows)], dim=-1)


def share_linear_(module: nn.Module) -> None:
    """Let every dense linear inside ``module`` be a `Linear`, in place; parameters stay as they are.

    Which product is taken of sixteen-bit weights is then decided in one place, for all packages.
    """
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and not isinstance(child, Linear):
                setattr(parent, name, _with_same_parameters(child))


def _with_same_parameters(plain: nn.Linear) -> Linear:
    linear = Linear(
        plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta"
    )
    linear.weight, linear.bias = plain.weight, plain.bias
    return linear.train(plain.training)
