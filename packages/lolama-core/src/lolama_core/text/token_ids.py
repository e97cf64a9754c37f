"""Token ids of whatever kind a caller has → a list of Python's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.text.plain_numbers import whole_number

if TYPE_CHECKING:
    from torch import Tensor

TokenIds: TypeAlias = "Tensor | Iterable[SupportsIndex]"
"""A (T,) or (1, T) tensor or array, or a list of whole numbers of any kind."""


def token_ids(ids: TokenIds) -> list[int]:
    """One row of ids, as integers. It does not check whether a model or tokenizer knows them.

    Raises:
        UsageError: for several rows, or what is no id.
    """
    plain = []
    for value in _row(ids):
        token_id = whole_number(value)
        if token_id is None:
            remedy = "token ids are whole numbers, one row at a time"
            reason = f"{shown(value)} is of type {type(value).__name__}, no token id"
            raise UsageError("input_ids", reason, remedy)
        plain.append(token_id)
    return plain


def _row(ids: Any) -> Iterable[object]:
    """The elements of one row."""
    if getattr(ids, "is_meta", False):
        raise UsageError("input_ids", "is on the device meta, which holds no values", "use cpu")
    shape = getattr(ids, "shape", None)
    if shape is not None:  # of torch, NumPy, or what behaves like them
        values = getattr(ids, "tolist", lambda: ids)()
        if len(shape) == 1:
            return list(values)
        if len(shape) == 2 and len(values) == 1:
            return list(values[0])
        reason = f"is {tuple(shape)} {getattr(ids, 'dtype', '')}, expected (1, T) whole numbers"
        raise UsageError("input_ids", reason, "use generate_batch for several prompts")
    if isinstance(ids, Iterable) and not isinstance(ids, str | bytes | bytearray | Mapping | Set):
        return ids
    remedy = 'give its "input_ids"' if isinstance(ids, Mapping) else "give a list of token ids"
    raise UsageError("input_ids", f"is of type {type(ids).__name__}, no row of ids", remedy)
