"""Numbers of Python, of NumPy, or in a tensor of one element: all are the same number to a caller."""

from __future__ import annotations

import operator


def whole_number(value: object) -> int | None:
    """The whole number that ``value`` is, of whatever type; None for anything else, booleans included."""
    if type(value) is int:
        return value
    if not hasattr(type(value), "__index__") or _is_boolean(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type] # it has an index
    except (TypeError, RuntimeError):  # a tensor of several elements, of fractions, or on "meta"
        return None


def real_number(value: object) -> float | None:
    """The real number that ``value`` is, of whatever type; None for anything else, booleans included.

    An integer stays one: the largest have no float.
    """
    whole = whole_number(value)
    if whole is not None:
        return whole
    if not hasattr(type(value), "__float__") or _is_boolean(value):
        return None
    try:
        return float(value)  # type: ignore[arg-type] # it has a float
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_boolean(value: object) -> bool:
    # True has an index, as booleans of other libraries do, but nobody means the number 1 by it.
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
