"""Products with grouped weights on a CPU: native/grouped_product.h."""

from __future__ import annotations

import torch
from torch import Tensor

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.cpu.library import format_number, native_library


def native_grouped(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    """x (M, K) of any floating-point dtype and the tensors of a weight (N, K) → (M, N) float32.

    Activations are rounded as `lolama_quant.grouped.rounded_blocks` does it. Needs the library.

    Args:
        x: See above.
        weight, group_scale, block_scale: See `protocols.grouped.GroupFormat.tensors`.
        form: The name of their format, one of `protocols.grouped.FORMATS`.
    """
    if torch.compiler.is_compiling():
        return torch.ops.lolama.grouped_linear(  # type: ignore[no-any-return]
            x, weight, group_scale, block_scale, form
        )
    return _linear(x, weight, group_scale, block_scale, form)


def _linear(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    library, number = native_library(), format_number(FORMATS[form])
    assert not isinstance(library, str) and number is not None, library
    rows, inputs = x.shape
    parts = {"weight": weight, "group_scale": group_scale, "block_scale": block_scale}
    # The library reads memory, and a tensor may be the negative of what its memory holds.
    plain = {
        name: part.resolve_neg().contiguous() for name, part in parts.items() if part is not None
    }
    dtypes = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}
    wanted = FORMATS[form].tensors(len(weight), inputs)
    assert {name: (part.dtype, tuple(part.shape)) for name, part in plain.items()} == {
        name: (dtypes[dtype], size) for name, (dtype, size) in wanted.items()
    }
    wide = x.resolve_neg().to(torch.float32).contiguous()
    y = torch.empty((rows, len(weight)), dtype=torch.float32, device="cpu")
    size = library.grouped_scratch(rows, inputs, number)
    scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
    library.grouped(
        wide.data_ptr(),
        plain["weight"].data_ptr(),
        plain["group_scale"].data_ptr() if "group_scale" in plain else None,
        plain["block_scale"].data_ptr(),
        None,
        len(weight),
        y.data_ptr(),
        rows,
        inputs,
        number,
        scratch.data_ptr(),
        library.int8_instruction_set,
    )
    return y


# The same product as an operator of torch, with a fake kernel for tracing, so that a compiled model keeps it.
_operator = torch.library.custom_op("lolama::grouped_linear", _linear, mutates_args=())


@_operator.register_fake
def _(
    x: Tensor, weight: Tensor, group_scale: Tensor | None, block_scale: Tensor, form: str
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)
