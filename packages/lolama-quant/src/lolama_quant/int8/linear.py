"""A linear layer whose weight is 8-bit integers, and its product; `backends` has that of each device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from lolama_core.protocols.decoder_kernel import LinearWeights
from lolama_quant.int8.absmax import Int8Rows
from lolama_quant.int8.backends import backend_of, reference
from lolama_quant.int8.rounded_activations import round_activations


class Int8Linear(nn.Module):
    """``x @ (weight · scale).T + bias``, in the place of an `nn.Linear`. It does not train.

    Args:
        in_features, out_features: K and N.
        bias: Whether there is one.
        outlier_columns: Input columns whose weights keep their precision, ascending.
        dtype: The dtype of bias and outlier weights.
        device: Where parameters are made; ``meta`` before loading.

    Attributes:
        weight: (N, K) int8. Outlier columns hold zeros.
        scale: (N,) float32, one for each output channel; it stays float32 when the model is converted.
        bias: (N,) or None.
        outlier_weight: (N, C), or None without outlier columns.

    Example:
        >>> Int8Linear.from_dense(nn.Linear(64, 32), quantize_weight(weight, "w"))(torch.randn(5, 64)).shape
        torch.Size([5, 32])
    """

    outlier_columns: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        outlier_columns: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = _fixed(
            torch.empty(out_features, in_features, dtype=torch.int8, device=device)
        )
        self.scale = _fixed(torch.empty(out_features, dtype=torch.float32, device=device))
        self.register_parameter("bias", None)
        self.register_parameter("outlier_weight", None)
        if bias:
            self.bias = _fixed(torch.empty(out_features, dtype=dtype, device=device))
        if outlier_columns:
            size = (out_features, len(outlier_columns))
            self.outlier_weight = _fixed(torch.empty(size, dtype=dtype, device=device))
        # Known before loading, so never on the meta device; the scheme says which, so never saved.
        columns = torch.tensor(outlier_columns, device="cpu") if outlier_columns else None
        self.register_buffer("outlier_columns", columns, persistent=False)

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, quantized: Int8Rows, outlier_columns: Sequence[int] = ()
    ) -> Self:
        """The int8 form of ``linear``, whose weight without the outlier columns is ``quantized``."""
        made = cls(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            outlier_columns=outlier_columns,
            dtype=linear.weight.dtype,
            device="meta",
        )
        made.weight, made.scale = _fixed(quantized.values), _fixed(quantized.scale)
        if linear.bias is not None:
            made.bias = _fixed(linear.bias.detach())
        if made.outlier_columns is not None:
            made.outlier_columns = made.outlier_columns.to(linear.weight.device)
            made.outlier_weight = _fixed(linear.weight.detach()[:, made.outlier_columns])
        return made.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``, at any number of rows and any strides."""
        rows = x.reshape(-1, self.in_features)  # (M, K)
        dense = rows
        if self.outlier_columns is not None:
            # The integers of these columns are zeros; their activations would only coarsen the others.
            dense = rows.index_fill(1, self.outlier_columns, 0)
        y = int8_product(dense, self.weight, self.scale)
        if self.outlier_columns is not None:
            y = y + F.linear(rows[:, self.outlier_columns], self.outlier_weight.to(x.dtype))
        if self.bias is not None:
            y += self.bias.to(y.dtype)  # a tensor of its own, so nothing else sees it change
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def linear_weights(self) -> LinearWeights | None:
        """What a decoding kernel may read in place of a call; see `protocols.HasLinearWeights`."""
        if type(self) is not Int8Linear or self.outlier_columns is not None:
            return None
        return LinearWeights(weight=self.weight, bias=self.bias, scale=self.scale)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        columns = 0 if self.outlier_columns is None else len(self.outlier_columns)
        about = f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
        return f"{about}, outlier_columns={columns}" if columns else about

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves go to every tensor, conversions past the scale: float16 has no room for small scales."""

        def keep_scale(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            is_scale = tensor is self.scale or tensor is self.scale.data
            if is_scale and changed.dtype != torch.float32:
                return tensor.to(changed.device)
            return changed

        applied: Self = super()._apply(keep_scale, recurse)  # type: ignore[no-untyped-call]
        return applied


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K), weight (N, K) int8, scale (N,) float32 → (M, N) by torch's own operators.

    On a CPU activations are rounded as the native product rounds them, unless a gradient is asked for. Within
    `lolama_core.runtime.fast_products` the call becomes `kernel_product`, which `linear_kernel` hands it.
    """
    if has_torch_function((x, weight)):
        found = handle_torch_function(int8_product, (x, weight), x, weight, scale)
        assert isinstance(found, Tensor)
        return found
    if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
        return reference.linear(x, weight, scale)
    return reference.blockwise_linear(round_activations(x), weight, scale)


def kernel_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`int8_product` by the fastest means of the device, without gradients."""
    y: Tensor = backend_of(x.device.type).linear(x, weight, scale)
    return y


def _fixed(value: Tensor) -> Any:
    """A parameter that does not train: integers cannot, and scales without them mean nothing."""
    return nn.Parameter(value, requires_grad=False)
