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
