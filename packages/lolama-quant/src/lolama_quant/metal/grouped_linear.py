"""Products with grouped weights on Apple GPUs, by one Metal kernel that widens codes in registers."""

from __future__ import annotations

from torch import Tensor

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.metal.shader import product


def grouped_rows(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """x (M, K) of 16 or 32 bits and the tensors of a weight (N, K) → (M, N) in the dtype of ``x``.

    Weights are float32 as soon as they are widened, and so are sums.

    Args:
        x: See above.
        weight, group_scale, block_scale: See `protocols.grouped.GroupFormat.tensors`.
        form: The name of their format, one of `protocols.grouped.FORMATS`.
    """
    kind = FORMATS[form]
    return product(
        "grouped_linear",
        x,
        weight,
        block_scale if group_scale is None else group_scale,  # which is not read then
        block_scale,
        CODE="uchar" if kind.bits == 4 else "char",
        WHOLE="uchar" if kind.has_minimums else "char",
        HALVES=8 // kind.bits,
        GROUP=kind.group,
        BLOCK_GROUPS=kind.block // kind.group,
        PARTS=2 if kind.has_minimums else 1,
    )
