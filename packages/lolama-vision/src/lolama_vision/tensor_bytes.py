"""What a tensor holds, as bytes, without NumPy."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def bytes_of(tensor: Tensor) -> bytes:
    """A copy of the values, row by row."""
    # A tensor may be the negative of what its memory holds, noted in a bit beside it.
    tensor = tensor.detach().cpu().contiguous().resolve_neg()
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.nbytes else b""


def sum_of(tensor: Tensor) -> int:
    """A sum over the memory of ``tensor``, at the speed of memory: nearly any write to it changes the sum."""
    import torch

    flat = tensor.detach().contiguous().flatten()
    words = flat.nbytes // 8 * 8 // flat.itemsize
    whole, rest = flat[:words].view(torch.int64), flat[words:].view(torch.uint8)
    return int(whole.sum()) + int(rest.sum(dtype=torch.int64))
