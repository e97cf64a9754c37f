"""A linear layer and an embedding whose weight is grouped; `product` has their products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from lolama_core.protocols.decoder_kernel import LinearWeights
from lolama_core.protocols.grouped import FORMATS, GroupFormat
from lolama_quant.grouped.codes import dequantize
from lolama_quant.grouped.product import grouped_product

DTYPES = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}


class GroupedWeight(nn.Module):
    """What a linear layer and an embedding have in common: a weight (N, K) in up to three tensors.

    Args:
        outputs, inputs: N and K.
        form: The name of its format, one of `protocols.grouped.FORMATS`.
        device: Where parameters are made; ``meta`` before loading.

    Attributes:
        form: Its format.
        inputs: K, which packed codes do not tell.
        scheme: The name of the quantizer that it is of, for reports.
        weight, group_scale, block_scale: See `protocols.grouped.GroupFormat.tensors`. They do not train, and
            keep their dtypes when the model is converted.
    """

    weight: nn.Parameter
    group_scale: nn.Parameter | None
    block_scale: nn.Parameter

    def __init__(
        self, outputs: int, inputs: int, form: str, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.form: GroupFormat = FORMATS[form]
        self.inputs = inputs
        self.scheme = "int4"
        self.register_parameter("group_scale", None)
        for name, (dtype, size) in self.form.tensors(outputs, inputs).items():
            made = torch.empty(size, dtype=DTYPES[dtype], device=device)
            setattr(self, name, nn.Parameter(made, requires_grad=False))

    def dequantized(self, rows: Tensor | None = None) -> Tensor:
        """(N, K) float32: what the weight stands for; with ``rows`` (M,) those alone, (M, K)."""
        tensors = {
            name: part.detach() if rows is None else part.detach()[rows]
            for name, part in self.named_parameters()
            if name != "bias"
        }
        return dequantize(tensors, self.form, self.inputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves go to every tensor, conversions past those of the weight."""
        own = {id(part) for name, part in self.named_parameters() if name != "bias"}
        own |= {id(part.data) for name, part in self.named_parameters() if name != "bias"}

        def keep_dtype(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            is_own = id(tensor) in own or tensor.dtype in (torch.uint8, torch.int8)
            return (
                tensor.to(changed.device) if is_own and changed.dtype != tensor.dtype else changed
            )

        applied: Self = super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return applied


class GroupedLinear(GroupedWeight):
    """``x @ weight.T + bias``, in the place of an `nn.Linear`. It does not train.

    Args:
        in_features, out_features: K and N.
        form: The name of its format, one of `protocols.grouped.FORMATS`.
        bias: Whether there is one.
        dtype: The dtype of the bias.
        device: Where parameters are made; ``meta`` before loading.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        form: str,
        *,
        bias: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(out_features, in_features, form, device)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter("bias", None)
        if bias:
            made = torch.empty(out_features, dtype=dtype, device=device)
            self.bias = nn.Parameter(made, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in the dtype of ``x``, at any number of rows and any strides."""
        rows = x.reshape(-1, self.in_features)  # (M, K)
        y = grouped_product(rows, self.weight, self.group_scale, self.block_scale, self.form.name)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def linear_weights(self) -> LinearWeights | None:
        """What a decoding kernel may read in place of a call; see `protocols.HasLinearWeights`."""
        if type(self) is not GroupedLinear:
            return None
        return LinearWeights(
            weight=self.weight,
            bias=self.bias,
            form=self.form,
            inputs=self.in_features,
            group_scale=self.group_scale,
            block_scale=self.block_scale,
        )

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        about = f"{self.in_features}, {self.out_features}, {self.form.name}"
        return f"{about}, bias={self.bias is not None}"


class GroupedEmbedding(GroupedWeight):
    """Rows of a grouped weight by id, in the place of an `nn.Embedding`.

    Args:
        num_embeddings, embedding_dim: N and K.
        form: The name of its format, one of `protocols.grouped.FORMATS`.
        dtype: The dtype of what it gives.
        device: Where parameters are made; ``meta`` before loading.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        form: str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, form, device)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.output_dtype = dtype or torch.get_default_dtype()

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids → (..., K) in ``output_dtype``."""
        rows = self.dequantized(ids.reshape(-1))
        return rows.to(self.output_dtype).reshape(*ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.form.name}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """A conversion changes what it gives."""
        applied: Any = super()._apply(fn, recurse)
        self.output_dtype = fn(
            torch.empty(0, dtype=self.output_dtype, device=self.weight.device)
        ).dtype
        found: Self = applied
        return found
